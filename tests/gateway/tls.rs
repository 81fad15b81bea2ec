//! TLS of listeners through real handshakes: certificates by name, versions, certificates of clients, and changes of all that.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};
use rustix::process::Signal;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::process::Process;
use crate::support::{ROUTES, World};

const BOTH: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// An authority, and whoever trusts it.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    pub fn write(&self, path: &Path) {
        std::fs::write(path, self.issuer.pem()).unwrap();
    }

    /// Writes a certificate for these names as `NAME.pem`, with its key as `NAME.key`.
    pub fn certify(&self, folder: &Path, name: &str, names: &[&str]) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        // Whole at once, as a careful operator does it.
        std::fs::write(folder.join("new"), certificate.pem()).unwrap();
        std::fs::rename(folder.join("new"), folder.join(format!("{name}.pem"))).unwrap();
        certificate.der().clone()
    }

    /// A client that trusts it, and shows this certificate if one is asked for.
    pub fn client(&self, versions: &[&'static SupportedProtocolVersion], own: Option<(&Path, &str)>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap().with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some((folder, name)) => {
                let chain = vec![CertificateDer::from_pem_file(folder.join(format!("{name}.pem"))).unwrap()];
                let key = PrivateKeyDer::from_pem_file(folder.join(format!("{name}.key"))).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        Arc::new(config)
    }
}

/// A connection, once the handshake is done.
struct Connection(TlsStream<TcpStream>);

impl Connection {
    async fn new(address: SocketAddr, name: &str, client: &Arc<ClientConfig>) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        Ok(Self(TlsConnector::from(Arc::clone(client)).connect(name, stream).await?))
    }

    fn certificate(&self) -> CertificateDer<'static> {
        self.0.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Whether a request is answered: with TLS 1.3 a server tells only now what it thinks of a client's certificate.
    async fn is_answered(&mut self, path: &str) -> bool {
        let request = format!("HEAD {path} HTTP/1.1\r\nhost: gate.test\r\n\r\n");
        if self.0.write_all(request.as_bytes()).await.is_err() {
            return false;
        }
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = self.0.read_u8().await else { return false };
            head.push(byte);
        }
        head.starts_with(b"HTTP/1.1 200 ")
    }
}

async fn certificate(address: SocketAddr, name: &str, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
    Connection::new(address, name, client).await.unwrap().certificate()
}

/// A world whose gateway is yet to be started, with these settings of TLS on a listener, and on that of operators.
async fn world(tls: &str, management: &str) -> World {
    let world = World::without_gateway("", ROUTES).await;
    let rest = std::fs::read_to_string(world.path("gateway.toml")).unwrap();
    let rest = rest.replacen("[management]\n", &format!("[management]\n{management}\n"), 1);
    let text =
        format!("[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = {{ certificate = \"first.pem\", key = \"first.key\"{tls} }}\n{rest}");
    std::fs::write(world.path("gateway.toml"), text).unwrap();
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_chosen_by_name_and_a_new_one_is_taken_up_without_a_restart() {
    let world = world(", certificates = [{ certificate = \"second.pem\", key = \"second.key\" }]", "").await;
    let (dir, authority) = (world.dir.path().to_owned(), Authority::new());
    let first = authority.certify(&dir, "first", &["gate.test", "127.0.0.1"]);
    let second = authority.certify(&dir, "second", &["other.test", "*.wild.test"]);
    let gateway = Process::serve(&world, &[]).await;
    let (address, client) = (gateway.addresses[0], authority.client(BOTH, None));
    for (name, expected) in
        [("gate.test", &first), ("GATE.test", &first), ("other.test", &second), ("a.wild.test", &second), ("127.0.0.1", &first)]
    {
        assert_eq!(certificate(address, name, &client).await, *expected, "{name}");
    }
    // Of no certificate, and one label too many: the first is shown, which the client then does not take.
    for name in ["nobody.test", "a.b.wild.test", "wild.test"] {
        let error = Connection::new(address, name, &client).await.err().unwrap().to_string();
        assert!(error.contains("not valid for name"), "{name}: {error}");
    }

    let mut open = Connection::new(address, "other.test", &client).await.unwrap();
    assert!(open.is_answered("/docs").await);
    let renewed = authority.certify(&dir, "second", &["other.test"]);
    while certificate(address, "other.test", &client).await != renewed {}
    assert_eq!(certificate(address, "gate.test", &client).await, first);
    assert!(open.is_answered("/docs").await, "what is open goes on");

    // The wrong key: what was there stays, and it is told.
    std::fs::copy(dir.join("first.key"), dir.join("second.key")).unwrap();
    let refused = "sigmagate_certificate_reloads_total{result=\"refused\"} ";
    let told = async || gateway.metrics(&world).await.lines().any(|line| line.starts_with(refused) && !line.ends_with(" 0"));
    while !told().await {}
    assert_eq!(certificate(address, "other.test", &client).await, renewed);
    let metrics = gateway.metrics(&world).await;
    let ends = metrics.lines().find(|line| line.starts_with("sigmagate_certificate_expiry_timestamp_seconds{listener=")).unwrap();
    assert!(ends.split(' ').next_back().unwrap().parse::<u64>().unwrap() > 1_700_000_000, "{ends}");
    assert!(gateway.end(Signal::TERM).await.0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_in_a_mounted_volume_is_taken_up_when_the_volume_turns() {
    use std::os::unix::fs::symlink;
    let world = world("", "").await;
    let (dir, authority) = (world.dir.path().to_owned(), Authority::new());
    // As orchestrators mount a secret: what changes is where `..data` leads, and no file by its name.
    let turn = |version: &str| {
        std::fs::create_dir(dir.join(version)).unwrap();
        let certificate = authority.certify(&dir.join(version), "first", &["gate.test"]);
        symlink(version, dir.join("..next")).unwrap();
        std::fs::rename(dir.join("..next"), dir.join("..data")).unwrap();
        certificate
    };
    let before = turn("..1");
    for file in ["first.pem", "first.key"] {
        symlink(format!("..data/{file}"), dir.join(file)).unwrap();
    }
    let gateway = Process::serve(&world, &[]).await;
    let (address, client) = (gateway.addresses[0], authority.client(BOTH, None));
    assert_eq!(certificate(address, "gate.test", &client).await, before);
    let after = turn("..2");
    while certificate(address, "gate.test", &client).await != after {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_wants_tls_1_3_speaks_no_other() {
    let world = world(", min_version = \"1.3\"", "").await;
    let authority = Authority::new();
    authority.certify(world.dir.path(), "first", &["gate.test"]);
    let gateway = Process::serve(&world, &[]).await;
    let old = authority.client(&[&rustls::version::TLS12], None);
    let error = Connection::new(gateway.addresses[0], "gate.test", &old).await.err().unwrap().to_string();
    assert!(error.contains("ProtocolVersion"), "{error}");
    let new = authority.client(BOTH, None);
    assert!(Connection::new(gateway.addresses[0], "gate.test", &new).await.unwrap().is_answered("/docs").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_wants_certificates_of_clients_serves_nobody_without() {
    let tls = ", client_ca = \"clients.pem\"";
    let management = format!("tls = {{ certificate = \"first.pem\", key = \"first.key\"{tls} }}");
    let world = world(tls, &management).await;
    let (dir, ours, theirs) = (world.dir.path().to_owned(), Authority::new(), Authority::new());
    ours.certify(&dir, "first", &["gate.test", "127.0.0.1"]);
    ours.certify(&dir, "app", &["app.test"]);
    theirs.certify(&dir, "stranger", &["app.test"]);
    ours.write(&dir.join("clients.pem"));
    let gateway = Process::serve(&world, &[]).await;
    let none = ours.client(BOTH, None);
    let app = ours.client(BOTH, Some((&dir, "app")));
    let stranger = ours.client(BOTH, Some((&dir, "stranger")));
    let old = |client: &Arc<ClientConfig>| {
        // What is known of the session must not stand for the certificate.
        let mut client = ClientConfig::clone(client);
        client.resumption = rustls::client::Resumption::disabled();
        Arc::new(client)
    };
    let answered = async |address, path: &str, client: &Arc<ClientConfig>| match Connection::new(address, "gate.test", client).await {
        Ok(mut connection) => connection.is_answered(path).await,
        Err(_) => false,
    };
    for (address, path) in [(gateway.addresses[0], "/docs"), (gateway.management, "/healthz")] {
        assert!(answered(address, path, &app).await, "{path}");
        assert!(!answered(address, path, &none).await, "{path}");
        assert!(!answered(address, path, &stranger).await, "{path}");
    }
    // With other authorities, whoever was let in is a stranger; a session of before stands for nothing.
    theirs.write(&dir.join("clients.new"));
    std::fs::rename(dir.join("clients.new"), dir.join("clients.pem")).unwrap();
    for (address, path) in [(gateway.addresses[0], "/docs"), (gateway.management, "/healthz")] {
        while !answered(address, path, &old(&stranger)).await {}
        assert!(!answered(address, path, &app).await, "{path}");
    }

    // The command line shows its own, and is vouched for.
    theirs.certify(&dir, "operator", &["ops.test"]);
    let api = format!("https://127.0.0.1:{}", gateway.management.port());
    let (folder, ca) = (dir.to_str().unwrap(), dir.join("ca.pem"));
    ours.write(&ca);
    let (certificate, key) = (format!("{folder}/operator.pem"), format!("{folder}/operator.key"));
    std::fs::write(dir.join("token"), "wrong").unwrap();
    let token = format!("{folder}/token");
    let ask = ["--api", &api, "--token-file", &token, "--api-ca", ca.to_str().unwrap()];
    let shown = ["--api-certificate", &certificate, "--api-key", &key, "practice", "list"];
    let output = world.cli(&[&ask[..], &shown].concat()).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("this needs a management token"), "{output:?}");
    let output = world.cli(&[&ask[..], &["practice", "list"]].concat()).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("no answer from https://127.0.0.1"), "{output:?}");
}
