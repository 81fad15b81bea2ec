//! A gateway that issues tokens over TLS, with an API behind it and clients to walk with.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::{Value, json};
use sigmagate::config::{self, Sources};
use sigmagate::entity::ClientKeys;
use sigmagate::lifecycle::{Issued, Lifecycle, NewClientRequest};
use sigmagate::scope::ScopeRegistry;
use sigmagate::server::Server;
use sigmagate::store::{Actor, SqliteStore, Store};
use tempfile::TempDir;

/// What a resource server proves itself with at the introspection endpoint. `_` is one that some libraries percent-encode.
const CORE_SECRET: &str = "core_secret_that_is_long_enough_0";

pub struct World {
    pub dir: TempDir,
    pub server: Server,
    /// The JSON file that tells a walk where everything is.
    pub settings: PathBuf,
    /// The certificate authority, PEM.
    pub authority: PathBuf,
}

impl World {
    pub async fn new() -> Self {
        sigmagate::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let (authority, certificate, key) = certificates();
        fs::write(path("ca.pem"), authority).unwrap();
        fs::write(path("c.pem"), certificate).unwrap();
        fs::write(path("k.pem"), key).unwrap();
        // The routes of the demo, which are those of the API.
        let servers = format!("servers = [\"http://{}\"]", upstream().await);
        fs::write(path("routes.toml"), include_str!("../../src/demo/routes.toml").replace("servers = []", &servers)).unwrap();

        let database = format!("sqlite://{}", path("gateway.db").display());
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&database, true).await.unwrap());
        let clients = clients(&Lifecycle::new(Arc::clone(&store), None)).await;
        let sources = Sources { gateway: Some(path("gateway.toml")), routes: path("routes.toml") };
        let mut tries = 0..5;
        let (issuer, server) = loop {
            let address = free_address();
            let issuer = format!("https://{address}");
            fs::write(path("gateway.toml"), gateway(address, &issuer, &database)).unwrap();
            let registry = Arc::new(ScopeRegistry::default());
            let config = config::load(&sources, std::iter::empty(), &registry).unwrap();
            match Server::start(config, &sources, registry, Arc::clone(&store)).await {
                Ok(server) => break (issuer, server),
                // Somebody else was given the port in the meantime.
                Err(error) => assert!(tries.next().is_some(), "{error:#}"),
            }
        };

        let mut settings = json!({
            "issuer": issuer,
            "api": format!("{issuer}/api/public/v1"),
            "audience": issuer,
            "ca_file": path("ca.pem"),
            "resource_server": { "name": "core", "secret": CORE_SECRET },
        });
        settings.as_object_mut().unwrap().extend(clients);
        fs::write(path("settings.json"), settings.to_string()).unwrap();
        Self { settings: path("settings.json"), authority: path("ca.pem"), server, dir }
    }
}

/// Where nobody listened a moment ago: the address of the issuer has to be known before the gateway listens there.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn gateway(address: SocketAddr, issuer: &str, database: &str) -> String {
    let master_key = STANDARD.encode([7_u8; 32]);
    format!(
        r#"
[[listeners]]
address = "{address}"
tls = {{ certificate = "c.pem", key = "k.pem" }}

[management]
address = "127.0.0.1:0"

[store]
url = "{database}"

[telemetry]
access_log = false

[oauth]
issuer = "{issuer}"
master_key = "{master_key}"

[[oauth.resource_servers]]
name = "core"
secret = "{CORE_SECRET}"
"#
    )
}

/// The service behind the gateway, which has an answer for everything.
async fn upstream() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().fallback(|| async { axum::Json(json!({ "data": [] })) });
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// The certificate of an authority; that of a server here, by it; the server's key.
fn certificates() -> (String, String, String) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(rcgen::DnType::CommonName, "sigmagate's tests");
    let key = KeyPair::generate().unwrap();
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);

    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // Newer versions of Python insist on it.
    params.use_authority_key_identifier_extension = true;
    (authority, params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
}

/// Two clients with the scopes `billing` and `tasks`: one has a secret, the other signs with keys of its own.
async fn clients(lifecycle: &Lifecycle) -> [(String, Value); 2] {
    let by = Actor { name: "operator".into(), origin: "test".into() };
    let practice = "practice-1".parse().unwrap();
    lifecycle.put_practice(&practice, "Clinic", &by).await.unwrap();
    lifecycle.approve(&practice, &by).await.unwrap();
    let scopes = || ["billing", "tasks"].map(|scope| scope.parse().unwrap()).to_vec();

    let new = NewClientRequest::new(practice.clone(), "Ledger export", scopes());
    let Issued { client, secret, .. } = lifecycle.create_client(new, &by).await.unwrap();
    let billing = json!({ "client_id": client.id.to_string(), "client_secret": secret.reveal() });

    let p384 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let rsa = KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA384, rcgen::RsaKeySize::_2048).unwrap();
    let keys = json!({ "keys": [p384_jwk(&p384), rsa_jwk(&rsa)] });
    let mut new = NewClientRequest::new(practice, "Nightly job", scopes());
    new.keys = ClientKeys::Jwks(keys.to_string().into());
    let Issued { client, .. } = lifecycle.create_client(new, &by).await.unwrap();
    let jwt_client = json!({
        "client_id": client.id.to_string(),
        "private_key_pem": p384.serialize_pem(),
        "kid": "p384",
        "rsa_private_key_pem": rsa.serialize_pem(),
        "rsa_kid": "rsa",
    });
    [("billing".to_owned(), billing), ("jwt_client".to_owned(), jwt_client)]
}

fn p384_jwk(key: &KeyPair) -> Value {
    // 4 for "not compressed", then both coordinates (SEC 1 §2.3.3).
    let (x, y) = key.public_key_raw()[1..].split_at(48);
    let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
    json!({ "kty": "EC", "crv": "P-384", "x": x, "y": y, "kid": "p384", "use": "sig", "alg": "ES384" })
}

fn rsa_jwk(key: &KeyPair) -> Value {
    // A DER sequence that ends with the modulus of 256 bytes and the exponent, 65537 (RFC 8017 §A.1.1).
    let rest = key.public_key_raw().strip_suffix(&[2, 3, 1, 0, 1]).unwrap();
    let modulus = &rest[rest.len() - 256..];
    json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode(modulus), "e": "AQAB", "kid": "rsa", "use": "sig", "alg": "RS384" })
}
