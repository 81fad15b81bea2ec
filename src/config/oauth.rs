//! The settings of the authorization server, checked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Found;
use super::document::Step::{Index, Key};
use super::file::{GatewayFile, OAuthFile, SigningAlgorithm};
use super::gateway::secret;
use super::overrides::Environment;
use crate::token::{Algorithm, MasterKey};

/// The least that the secret of a resource server has, in characters.
const SECRET: usize = 32;

/// The settings of the authorization server.
#[derive(Clone, Debug)]
pub struct OAuth {
    /// What signing keys are sealed with.
    pub master_key: Arc<MasterKey>,
    /// The gateway's own address; `None`: that of its first listener.
    pub issuer: Option<Arc<str>>,
    /// Whom tokens are made for; `None`: the issuer.
    pub audience: Option<Arc<str>>,
    /// What a new key signs by.
    pub algorithm: Algorithm,
    /// How long a token lives.
    pub token_lifetime: Duration,
    /// How long a new key is published before it signs.
    pub publish_ahead: Duration,
    /// Who may ask about any token.
    pub resource_servers: Vec<ResourceServer>,
}

/// A service that may ask about any token.
#[derive(Clone)]
pub struct ResourceServer {
    /// What it calls itself.
    pub name: Arc<str>,
    digest: [u8; 32],
}

impl std::fmt::Debug for ResourceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ResourceServer({})", self.name)
    }
}

impl ResourceServer {
    /// Whether the secret is its own; takes as long for any.
    #[must_use]
    pub fn proves(&self, secret: &[u8]) -> bool {
        Sha256::digest(secret).as_slice().ct_eq(&self.digest).into()
    }
}

/// Checks what the schema could not; `None` without a master key.
pub(super) fn build(file: &GatewayFile, base: &Path, env: &Environment, found: &mut Found<'_>) -> Option<OAuth> {
    let OAuthFile { master_key, issuer, audience, algorithm, token_lifetime_secs, publish_ahead_secs, resource_servers } = &file.oauth;
    let Some(master_key) = master_key else {
        let others = [
            ("issuer", issuer.is_some()),
            ("audience", audience.is_some()),
            ("algorithm", algorithm.is_some()),
            ("token_lifetime_secs", token_lifetime_secs.is_some()),
            ("publish_ahead_secs", publish_ahead_secs.is_some()),
            ("resource_servers", !resource_servers.is_empty()),
        ];
        for (name, _) in others.iter().filter(|(_, given)| *given) {
            found.wrong(
                &[Key("oauth"), Key(name)],
                "means nothing without `oauth.master_key`: no tokens are issued; make one with `openssl rand -base64 32`",
            );
        }
        return None;
    };
    let steps = [Key("oauth"), Key("master_key")];
    let text = found.parsed(&steps, secret(master_key, base, env));
    let master_key = text.and_then(|text| found.parsed(&steps, MasterKey::parse(&text)));
    let issuer = issuer.as_ref().and_then(|text| found.parsed(&[Key("oauth"), Key("issuer")], own_address(text)));
    if audience.as_ref().is_some_and(|audience| audience.trim().is_empty()) {
        found.wrong(
            &[Key("oauth"), Key("audience")],
            "is empty: leave it out, or name the API that tokens are for, as `https://api.example.test`",
        );
    }
    let mut servers: Vec<ResourceServer> = Vec::new();
    for (at, server) in resource_servers.iter().enumerate() {
        let steps = |key| [Key("oauth"), Key("resource_servers"), Index(at), Key(key)];
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if server.name.is_empty() || server.name.len() > 64 || !server.name.chars().all(plain) || server.name.starts_with("smd_") {
            found.wrong(
                &steps("name"),
                format!(
                    "`{}` is not the name of a service: expected 1 to 64 letters, digits, `_`, `-` or `.`, and not the id of a client",
                    server.name
                ),
            );
        } else if servers.iter().any(|known| *known.name == server.name) {
            found.wrong(&steps("name"), format!("`{}` is there twice: give each service its own name", server.name));
        }
        let text = server.secret.as_ref().and_then(|text| found.parsed(&steps("secret"), secret(text, base, env)));
        let Some(text) = text else { continue };
        if text.chars().count() < SECRET {
            found.wrong(&steps("secret"), format!("has {} characters: at least {SECRET} are needed", text.chars().count()));
        }
        servers.push(ResourceServer { name: server.name.as_str().into(), digest: Sha256::digest(text.as_bytes()).into() });
    }
    let secs = |value: Option<u32>, default: u32| Duration::from_secs(value.unwrap_or(default).into());
    Some(OAuth {
        master_key: Arc::new(master_key?),
        issuer: issuer.map(Into::into),
        audience: audience.as_deref().map(Into::into),
        algorithm: match algorithm {
            None | Some(SigningAlgorithm::EdDsa) => Algorithm::EdDsa,
            Some(SigningAlgorithm::Es256) => Algorithm::Es256,
        },
        token_lifetime: secs(*token_lifetime_secs, 900),
        publish_ahead: secs(*publish_ahead_secs, 3600),
        resource_servers: servers,
    })
}

/// The address of an authorization server (RFC 8414 §2); this one answers at its root.
fn own_address(text: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("`{text}` {why}: write the gateway's address as clients know it, `https://api.example.test`");
    let uri: http::Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("has no host"))?;
    let loopback =
        host == "localhost" || host.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if loopback => {}
        Some("http") => return Err(wrong("is in plain text, in which secrets would be sent")),
        _ => return Err(wrong("is not an address of https")),
    }
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@'))
        || uri.path().len() > 1
        || uri.query().is_some()
        || text.contains('#')
        || text.ends_with('/')
    {
        return Err(wrong("is more than scheme, host and port"));
    }
    Ok(text.to_owned())
}
