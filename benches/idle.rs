//! What connections and streams cost in memory while nothing moves: `cargo bench --bench idle`. Resident memory of the gateway
//! before and after, divided by how many there are; 10,000 connections are held, and answer still.

#![allow(missing_docs, clippy::print_stdout, clippy::cast_precision_loss, reason = "a benchmark")]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const CONNECTIONS: usize = 10_000;
const SECURE: usize = 2_000;
const STREAMS: usize = 2_000;
const REQUEST: &[u8] = b"GET /docs HTTP/1.1\r\nHost: gate.test\r\n\r\n";

/// Ends the child whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn resident_kib(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).expect("the gateway runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }
}

/// Answers at once, but under `/hold` never.
async fn upstream(listener: tokio::net::TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut read = Vec::new();
            loop {
                read.clear();
                while !read.ends_with(b"\r\n\r\n") {
                    if !matches!(stream.read_buf(&mut read).await, Ok(1..)) {
                        return;
                    }
                }
                if read.starts_with(b"GET /hold") {
                    std::future::pending::<()>().await;
                }
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                    return;
                }
            }
        });
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound")
}

fn gateway(dir: &Path, upstream: SocketAddr, plain: SocketAddr, secure: SocketAddr) -> Running {
    let route = |prefix: &str| format!("[[routes]]\nprefix = \"{prefix}\"\npublic = true\nupstream = \"core\"\n");
    let routes = format!(
        "scopes = [\"billing\"]\n[upstreams.core]\nservers = [\"http://{upstream}\"]\nresponse_timeout_ms = 600000\n{}{}",
        route("/docs"),
        route("/hold")
    );
    let settings = format!(
        "[[listeners]]\naddress = \"{plain}\"\n[[listeners]]\naddress = \"{secure}\"\ntls = {{ certificate = \"c.pem\", key = \"k.pem\" }}\n\
         [data_plane]\nthreads = 1\n[management]\naddress = \"127.0.0.1:0\"\n[store]\nurl = \"sqlite://{}\"\n[telemetry]\nlog = \"warn\"\naccess_log = false\n\
         [limits]\nconnections = 20000\nconnections_per_address = 20000\nrequests = 20000\nidle_timeout_ms = 3600000\nrequest_timeout_ms = 3600000\n",
        dir.join("gateway.db").display()
    );
    std::fs::write(dir.join("routes.toml"), routes).expect("the folder is writable");
    std::fs::write(dir.join("gateway.toml"), settings).expect("the folder is writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sigmagate"));
    let running = Running(command.arg("serve").arg("--config").arg(dir.join("gateway.toml")).spawn().expect("the gateway runs"));
    while std::net::TcpStream::connect(plain).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    running
}

async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    stream.write_all(REQUEST).await.expect("it is open");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nok") {
        assert!(stream.read_buf(&mut answer).await.expect("it is open") > 0, "closed");
    }
    assert!(answer.starts_with(b"HTTP/1.1 200 "));
}

/// What is in use once what was ended is gone.
async fn settled(gateway: &Running) -> f64 {
    tokio::time::sleep(Duration::from_secs(1)).await;
    gateway.resident_kib()
}

/// A gateway that has nothing left over from what was measured before.
async fn warm(dir: &Path, upstream: SocketAddr, plain: SocketAddr, secure: SocketAddr) -> (Running, f64) {
    let gateway = gateway(dir, upstream, plain, secure);
    let mut first = TcpStream::connect(plain).await.expect("the gateway listens");
    for _ in 0..1000 {
        ask(&mut first).await;
    }
    let before = settled(&gateway).await;
    (gateway, before)
}

fn print(what: &str, count: usize, before: f64, with: f64) {
    let each = (with - before) / count as f64;
    println!("{count} {what}: {before:.0} to {with:.0} KiB, {each:.2} KiB each, {:.1} MiB for 1,000", each * 1000.0 / 1024.0);
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    sigmagate::tls::install_provider();
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("what is allowed can be had");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let pair = rcgen::generate_simple_self_signed(["gate.test".to_owned()]).expect("a certificate");
    std::fs::write(dir.path().join("c.pem"), pair.cert.pem()).expect("the folder is writable");
    std::fs::write(dir.path().join("k.pem"), pair.signing_key.serialize_pem()).expect("the folder is writable");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let upstream_address = listener.local_addr().expect("it is bound");
    tokio::spawn(upstream(listener));
    let (plain, secure) = (free_port(), free_port());

    let (gateway, before) = warm(dir.path(), upstream_address, plain, secure).await;
    let mut held = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(plain).await.expect("the gateway listens");
        ask(&mut stream).await;
        held.push(stream);
    }
    print("idle connections of HTTP/1.1", CONNECTIONS, before, settled(&gateway).await);
    for stream in &mut held {
        ask(stream).await;
    }
    println!("each of them has answered once more");
    drop((held, gateway));

    let mut roots = RootCertStore::empty();
    roots.add(pair.cert.der().clone()).expect("a certificate");
    let client = Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    let (gateway, before) = warm(dir.path(), upstream_address, plain, secure).await;
    let mut held = Vec::new();
    for _ in 0..SECURE {
        let stream = TcpStream::connect(secure).await.expect("the gateway listens");
        let name = ServerName::try_from("gate.test").expect("a name");
        let mut stream = TlsConnector::from(Arc::clone(&client)).connect(name, stream).await.expect("a handshake");
        ask(&mut stream).await;
        held.push(stream);
    }
    print("idle connections of HTTP/1.1 with TLS", SECURE, before, settled(&gateway).await);
    drop((held, gateway));

    let (gateway, before) = warm(dir.path(), upstream_address, plain, secure).await;
    let mut streams = Vec::new();
    while streams.len() < STREAMS {
        let stream = TcpStream::connect(plain).await.expect("the gateway listens");
        let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        for _ in 0..100 {
            let mut client = client.clone().ready().await.expect("room for a stream");
            let request = http::Request::get("http://gate.test/hold").body(()).expect("a request");
            streams.push(client.send_request(request, true).expect("a stream"));
        }
    }
    print("streams of HTTP/2 that wait for an upstream, a connection to it for each", STREAMS, before, settled(&gateway).await);
}
