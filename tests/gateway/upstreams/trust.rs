//! Upstreams that speak TLS, and want to know who is calling.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::server::{Manner, Server};
use super::{count, world_of};
use crate::support::World;
use crate::tls::Authority;

/// A server with the certificate `server` in `folder`, which lets in whom `clients` vouches for.
async fn server(folder: &Path, clients: Option<&Authority>) -> Server {
    sigmagate::tls::install_provider();
    let chain = vec![CertificateDer::from_pem_file(folder.join("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join("server.key")).unwrap();
    let builder = ServerConfig::builder();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.der()).unwrap();
            builder.with_client_cert_verifier(WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap())
        }
    };
    let config = builder.with_single_cert(chain, key).unwrap();
    Server::start_with(Manner::Answers, Some(TlsAcceptor::from(Arc::new(config)))).await
}

fn origin(server: &Server) -> [String; 1] {
    [format!("https://localhost:{}", server.address.port())]
}

async fn status(world: &World) -> u16 {
    world.status("/billing", "billing").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_believed_if_the_authority_of_its_upstream_vouches_for_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let (theirs, other) = (Authority::new(), Authority::new());
    theirs.write(&folder.path().join("theirs.pem"));
    other.write(&folder.path().join("other.pem"));
    theirs.certify(folder.path(), "server", &["core.internal"]);
    let server = server(folder.path(), None).await;
    let ca = |name: &str| folder.path().join(name).display().to_string();
    for (tls, want) in [
        (format!("{{ ca = \"{}\", server_name = \"core.internal\" }}", ca("theirs.pem")), 200),
        (format!("{{ ca = \"{}\", server_name = \"core.internal\" }}", ca("other.pem")), 502),
        // Another name than the certificate has.
        (format!("{{ ca = \"{}\" }}", ca("theirs.pem")), 502),
        // Nobody that the system knows.
        ("{ server_name = \"core.internal\" }".to_owned(), 502),
    ] {
        let world = world_of(&origin(&server), &format!("tls = {tls}")).await;
        assert_eq!(status(&world).await, want, "{tls}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_not_used_any_more_once_the_server_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let (theirs, other) = (Authority::new(), Authority::new());
    let ca = folder.path().join("ca.pem");
    theirs.write(&ca);
    theirs.certify(folder.path(), "server", &["localhost"]);
    let server = server(folder.path(), None).await;
    let world = world_of(&origin(&server), &format!("tls = {{ ca = \"{}\" }}", ca.display())).await;
    // Until one has gone over the connection of another.
    loop {
        let before = server.connections();
        assert_eq!(status(&world).await, 200);
        if server.connections() == before {
            break;
        }
    }
    // The file lies in another folder than the route file, which says the same as before.
    other.write(&ca);
    while world.metric("sigmagate_config_generation").await < 2.0 {}
    assert_eq!(status(&world).await, 502);
    theirs.write(&ca);
    while world.metric("sigmagate_config_generation").await < 3.0 {}
    assert_eq!(status(&world).await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_shown_the_certificate_that_it_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let (theirs, ours, other) = (Authority::new(), Authority::new(), Authority::new());
    theirs.write(&folder.path().join("ca.pem"));
    theirs.certify(folder.path(), "server", &["localhost"]);
    ours.certify(folder.path(), "gateway", &["gateway"]);
    let server = server(folder.path(), Some(&ours)).await;
    let path = |name: &str| folder.path().join(name).display().to_string();
    let health = "health = { path = \"/healthz\", every_secs = 1, unhealthy_after = 1, healthy_after = 1 }";
    let lines = format!(
        "{health}\ntls = {{ ca = \"{}\", certificate = \"{}\", key = \"{}\" }}",
        path("ca.pem"),
        path("gateway.pem"),
        path("gateway.key")
    );
    let world = world_of(&origin(&server), &lines).await;
    assert_eq!(status(&world).await, 200);
    let connections = server.connections();
    while server.connections() < connections + 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&world, "sigmagate_upstream_servers{state=\"down\",upstream=\"core\"}").await, "0", "the checks show it too");
    other.certify(folder.path(), "gateway", &["gateway"]);
    // A key that does not fit the certificate is refused while the two are exchanged; then both are taken up.
    while status(&world).await == 200 {}
    let without = world_of(&origin(&server), &format!("tls = {{ ca = \"{}\" }}", path("ca.pem"))).await;
    assert_eq!(status(&without).await, 502);
}
