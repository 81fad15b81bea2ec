//! What it takes to issue tokens, checked.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use subtle::ConstantTimeEq;

use super::Found;
use super::document::Step::{Index, Key};
use super::file::{OAuthFile, TokenAlgorithm};
use super::gateway::{network, secret};
use super::overrides::Environment;
use super::routes::plain;
use crate::digest::sha256;
use crate::id::ClientId;
use crate::jwks;
use crate::token::{Algorithm, MasterKey};

/// Where the gateway answers itself when it issues tokens: no route leads there.
pub const OAUTH_PATHS: [&str; 6] = [
    "/oauth/token",
    "/oauth/revoke",
    "/oauth/introspect",
    "/oauth/whoami",
    "/.well-known/oauth-authorization-server",
    "/.well-known/jwks.json",
];

/// The fewest characters of a resource server's secret: it is kept as a plain digest, so it must not be one to be guessed.
const SECRET_CHARACTERS: usize = 32;

/// What it takes to issue tokens.
#[derive(Clone, Debug)]
pub struct OAuth {
    /// Our own address as clients know it; `None`: where the first listener is bound.
    pub issuer: Option<Arc<str>>,
    /// `aud` of our tokens; `None`: the issuer.
    pub audience: Option<Arc<str>>,
    /// What signing keys are sealed with in the store.
    pub master_key: Arc<MasterKey>,
    /// What new signing keys sign by: `EdDSA` or ES256.
    pub algorithm: Algorithm,
    /// How long a token is good for.
    pub token_lifetime: Duration,
    /// How long a new signing key is published before it signs.
    pub publish_ahead: Duration,
    /// Services that may introspect every token.
    pub resource_servers: Vec<ResourceServer>,
}

/// A service that may introspect every token.
#[derive(Clone)]
pub struct ResourceServer {
    /// Its name.
    pub name: Arc<str>,
    secret: [u8; 32],
}

impl ResourceServer {
    fn new(name: &str, secret: &str) -> Self {
        Self { name: name.into(), secret: sha256(secret) }
    }

    /// Whether this is its secret. In constant time.
    #[must_use]
    pub fn proves(&self, secret: &[u8]) -> bool {
        sha256(secret).as_slice().ct_eq(&self.secret).into()
    }
}

impl fmt::Debug for ResourceServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ResourceServer({})", self.name)
    }
}

/// Checks what the schema could not, and fills in the defaults. Paths count from `base`.
pub(super) fn build(file: &OAuthFile, base: &Path, env: &Environment, found: &mut Found<'_>) -> Option<OAuth> {
    let of = |name| [Key("oauth"), Key(name)];
    let Some(master_key) = &file.master_key else {
        alone(found);
        return None;
    };
    let steps = of("master_key");
    let master_key = found.parsed(&steps, secret(master_key, base, env)).and_then(|text| found.parsed(&steps, MasterKey::parse(&text)));
    let issuer = file.issuer.as_deref().and_then(|text| found.parsed(&of("issuer"), own_address(text)));
    if file.audience.as_deref() == Some("") {
        found.wrong(&of("audience"), "is empty: leave it out for the issuer, or say whom tokens are for");
    }
    let resource_servers = resource_servers(file, base, env, found);
    let seconds = |value: Option<u32>, default: u32| Duration::from_secs(value.unwrap_or(default).into());
    Some(OAuth {
        issuer,
        audience: file.audience.as_deref().map(Arc::from),
        master_key: Arc::new(master_key?),
        algorithm: match file.algorithm.unwrap_or_default() {
            TokenAlgorithm::EdDsa => Algorithm::EdDsa,
            TokenAlgorithm::Es256 => Algorithm::Es256,
        },
        token_lifetime: seconds(file.token_lifetime_secs, 900),
        publish_ahead: seconds(file.publish_ahead_secs, 3600),
        resource_servers,
    })
}

/// The private networks in which keys may be fetched, those of issuers too: whether tokens are issued here or not.
pub(super) fn key_networks(file: &OAuthFile, found: &mut Found<'_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (at, text) in file.key_networks.iter().enumerate() {
        let network = network(text, "everywhere, this machine itself included: name the private networks with keys in them");
        networks.extend(found.parsed(&[Key("oauth"), Key("key_networks"), Index(at)], network));
    }
    networks
}

/// Tells of each setting that means nothing, since no tokens are issued.
fn alone(found: &mut Found<'_>) {
    if found.told(&[Key("oauth"), Key("master_key")]) {
        return;
    }
    for name in ["issuer", "audience", "algorithm", "token_lifetime_secs", "publish_ahead_secs", "resource_servers"] {
        if found.has(&[Key("oauth")], name) {
            found.wrong(
                &[Key("oauth"), Key(name)],
                "means nothing without `oauth.master_key`, and no token is issued: give that, or leave this out",
            );
        }
    }
}

/// An issuer identifier (RFC 8414 §2), as clients will compare it: letter by letter.
fn own_address(text: &str) -> Result<Arc<str>, String> {
    let wrong = |why: &str| format!("`{text}` {why}: write the address that clients know, as `https://api.example.test`");
    let uri: http::Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    let authority = uri.authority().ok_or_else(|| wrong("is not a whole URL"))?;
    let host = authority.host();
    // As it is written, not as it might be read: `HTTPS://` is another issuer to whoever compares.
    let private = text.starts_with("https://") || (text.starts_with("http://") && jwks::is_loopback(host));
    if !private {
        return Err(wrong("does not begin with `https://`, which only an address of this machine itself need not"));
    }
    if authority.as_str().contains('@') {
        return Err(wrong("has a user name or password"));
    }
    if host.is_empty() || host.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(wrong("has no host in small letters"));
    }
    if authority.port_u16() == Some(0) || (authority.port().is_none() && authority.as_str().ends_with(':')) {
        return Err(wrong("has no usable port"));
    }
    if text.contains(['?', '#']) {
        return Err(wrong("has a query or a fragment"));
    }
    if text.ends_with('/') {
        return Err(wrong("ends with `/`"));
    }
    // The endpoints are at the root, and where the metadata of an issuer with a path are is another place (RFC 8414 §3.1).
    if uri.path().len() > 1 {
        return Err(wrong("has a path"));
    }
    Ok(text.into())
}

fn resource_servers(file: &OAuthFile, base: &Path, env: &Environment, found: &mut Found<'_>) -> Vec<ResourceServer> {
    let mut servers = Vec::new();
    let mut taken = BTreeMap::new();
    for (at, server) in file.resource_servers.iter().enumerate() {
        let of = |name| [Key("oauth"), Key("resource_servers"), Index(at), Key(name)];
        plain(&server.name, &of("name"), found);
        if server.name.starts_with(ClientId::PREFIX) {
            found.wrong(&of("name"), "is the name of a client: take one that does not begin with `smd_`");
        }
        if let Some(other) = taken.insert(server.name.as_str(), at) {
            found.wrong(&of("name"), format!("`{}` is the name of resource_servers[{other}] already: give each its own", server.name));
        }
        let given = server.secret.as_ref().and_then(|value| found.parsed(&of("secret"), secret(value, base, env)));
        let Some(text) = given else { continue };
        let length = text.chars().count();
        if length < SECRET_CHARACTERS {
            let message = format!("has {length} characters: at least {SECRET_CHARACTERS} are needed, as `openssl rand -base64 32` prints");
            found.wrong(&of("secret"), message);
            continue;
        }
        servers.push(ResourceServer::new(&server.name, &text));
    }
    servers
}
