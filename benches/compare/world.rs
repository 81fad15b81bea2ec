//! Whom all contenders serve: the practices' clients, their keys and tokens, and the certificate of the listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256, SignatureAlgorithm};
use sigmagate::credential::Secret;
use sigmagate::id::ClientId;
use sigmagate::lifecycle::{Issued, Lifecycle, NewClientRequest};
use sigmagate::store::{Actor, SqliteStore, Store};

pub const CLIENTS: usize = 10_000;
/// So many of them take turns with a token.
const TOKENS: usize = 256;
pub const ISSUER: &str = "https://login.example.test";
pub const AUDIENCE: &str = "https://api.example.test";
pub const PREFIXES: [&str; 6] = ["billing", "appointments", "tasks", "clinical", "forms", "communication"];
/// What every client may.
pub const SCOPE: &str = "billing";

pub struct Client {
    pub id: ClientId,
    pub secret: String,
}

impl Client {
    /// The value of `Authorization`.
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.id, self.secret)))
    }
}

/// An issuer's key of one algorithm, and tokens signed with it.
pub struct Signed {
    pub name: &'static str,
    pub public_pem: PathBuf,
    pub tokens: Arc<Vec<String>>,
}

pub struct World {
    pub dir: PathBuf,
    pub clients: Vec<Client>,
    pub keys: Arc<Vec<String>>,
    pub wrong_keys: Arc<Vec<String>>,
    pub signed: Vec<Signed>,
    pub jwks: String,
    pub certificate: PathBuf,
    pub private_key: PathBuf,
    /// Trusts that certificate, and asks for HTTP/2.
    pub tls: Arc<rustls::ClientConfig>,
}

impl World {
    pub fn database(&self) -> String {
        format!("sqlite://{}", self.dir.join("gateway.db").display())
    }

    /// Makes everything, in this folder.
    pub async fn new(dir: &Path) -> Self {
        let database = format!("sqlite://{}", dir.join("gateway.db").display());
        let clients = provision(&database).await;
        let keys = clients.iter().map(Client::basic).collect();
        let wrong = |client: &Client| Client { id: client.id, secret: Secret::generate().reveal().to_owned() }.basic();
        let wrong_keys = clients.iter().take(TOKENS).map(wrong).collect();
        let pair = rcgen::generate_simple_self_signed(["api.example.test".to_owned()]).expect("a certificate");
        let (certificate, private_key) = (dir.join("certificate.pem"), dir.join("key.pem"));
        std::fs::write(&certificate, pair.cert.pem()).expect("the folder is writable");
        std::fs::write(&private_key, pair.signing_key.serialize_pem()).expect("the folder is writable");
        std::fs::write(dir.join("both.pem"), pair.cert.pem() + &pair.signing_key.serialize_pem()).expect("the folder is writable");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(pair.cert.der().clone()).expect("a certificate");
        let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let algorithms: [(_, _, &'static SignatureAlgorithm); 3] = [
            ("ES256", Algorithm::ES256, &PKCS_ECDSA_P256_SHA256),
            ("RS256", Algorithm::RS256, &PKCS_RSA_SHA256),
            ("EdDSA", Algorithm::EdDSA, &PKCS_ED25519),
        ];
        let (mut signed, mut jwks) = (Vec::new(), JwkSet { keys: Vec::new() });
        for (name, algorithm, kind) in algorithms {
            let (one, jwk) = sign(dir, name, algorithm, kind, &clients);
            signed.push(one);
            jwks.keys.push(jwk);
        }
        let jwks = serde_json::to_string(&jwks).expect("JSON");
        std::fs::write(dir.join("jwks.json"), &jwks).expect("the folder is writable");
        Self {
            dir: dir.to_owned(),
            keys: Arc::new(keys),
            wrong_keys: Arc::new(wrong_keys),
            clients,
            signed,
            jwks,
            certificate,
            private_key,
            tls: Arc::new(tls),
        }
    }
}

async fn provision(database: &str) -> Vec<Client> {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(database, true).await.expect("a new database"));
    let lifecycle = Lifecycle::new(store, None);
    let by = Actor { name: "operator".into(), origin: "bench".into() };
    let practice = "practice-1".parse().expect("an id");
    lifecycle.put_practice(&practice, "Clinic", &by).await.expect("a practice");
    lifecycle.approve(&practice, &by).await.expect("approved");
    let mut clients = Vec::new();
    for n in 0..CLIENTS {
        let new = NewClientRequest::new(practice.clone(), &format!("app {n}"), vec![SCOPE.parse().expect("a scope")]);
        let Issued { client, secret, .. } = lifecycle.create_client(new, &by).await.expect("a client");
        clients.push(Client { id: client.id, secret: secret.reveal().to_owned() });
    }
    clients
}

fn sign(dir: &Path, name: &'static str, algorithm: Algorithm, kind: &'static SignatureAlgorithm, clients: &[Client]) -> (Signed, Jwk) {
    let pair = KeyPair::generate_for(kind).expect("a key");
    let pem = pair.serialize_pem();
    let key = match algorithm {
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::RS256 => EncodingKey::from_rsa_pem(pem.as_bytes()),
        _ => EncodingKey::from_ed_pem(pem.as_bytes()),
    };
    let key = key.expect("a key of its kind");
    let jwk = if algorithm == Algorithm::EdDSA {
        let x = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(pair.public_key_raw());
        serde_json::from_value(serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "x": x, "alg": name }))
    } else {
        Ok(Jwk::from_encoding_key(&key, algorithm).expect("a public key"))
    };
    let mut jwk: Jwk = jwk.expect("a key of the set");
    jwk.common.key_id = Some(name.to_owned());
    jwk.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
    let public_pem = dir.join(format!("{name}.pem"));
    std::fs::write(&public_pem, pair.public_key_pem()).expect("the folder is writable");
    let now = time::OffsetDateTime::now_utc().unix_timestamp();
    let mut header = Header::new(algorithm);
    header.kid = Some(name.to_owned());
    let token = |client: &Client| {
        let claims = serde_json::json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": client.id, "azp": client.id, "scope": SCOPE, "iat": now - 10, "exp": now + 3600, "jti": client.id,
        });
        format!("Bearer {}", jsonwebtoken::encode(&header, &claims, &key).expect("a token"))
    };
    let tokens = clients.iter().take(TOKENS).map(token).collect();
    (Signed { name, public_pem, tokens: Arc::new(tokens) }, jwk)
}
