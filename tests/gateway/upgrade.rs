//! Changes under load: route maps, certificates, and the program itself. Nothing that a client asks may fail for them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::process::Process;
use crate::support::{Database, ROUTES, World};
use crate::tls::Authority;

const TIERS: &str = "[tiers.standard]\nper_second = 1000000\nburst = 1000000\n";

/// The gateway that serves now, whichever process it is.
struct Serving(Pid);

impl Drop for Serving {
    fn drop(&mut self) {
        // The harness ends only the one that it started; an error means that this one is gone.
        let _ = kill_process(self.0, Signal::KILL);
    }
}

/// Clients that ask again and again, each in its own way, and take no excuse.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    pub fn start() -> Self {
        Self { stop: Arc::default(), answered: Arc::default(), clients: Vec::new() }
    }

    pub fn add<F: Future<Output = ()> + Send + 'static>(&mut self, client: impl FnOnce(Arc<AtomicBool>, Arc<AtomicUsize>) -> F) {
        self.clients.push(tokio::spawn(client(Arc::clone(&self.stop), Arc::clone(&self.answered))));
    }

    /// Waits for so many more answers.
    pub async fn more(&self, count: usize) {
        let want = self.answered.load(Ordering::SeqCst) + count;
        while self.answered.load(Ordering::SeqCst) < want {
            assert!(self.clients.iter().all(|client| !client.is_finished()), "a client has failed");
            tokio::task::yield_now().await;
        }
    }

    /// How many answers there were, all of them good.
    pub async fn end(self) -> usize {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        self.answered.load(Ordering::SeqCst)
    }
}

/// One request and its answer; whether the connection may be used again.
pub async fn ask(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), authorization: &str) -> bool {
    let request = format!("GET /billing HTTP/1.1\r\nhost: gate\r\nauthorization: {authorization}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let end = loop {
        if let Some(at) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break at + 4;
        }
        let read = stream.read_buf(&mut answer).await.unwrap();
        assert!(read > 0, "no answer, but `{}`", String::from_utf8_lossy(&answer));
    };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    let length: usize = head.split_once("content-length: ").unwrap().1.split("\r\n").next().unwrap().parse().unwrap();
    while answer.len() < end + length {
        assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "broken off");
    }
    !head.contains("connection: close")
}

/// Keeps its connection as long as it is told that it may.
pub async fn keeping(address: SocketAddr, authorization: String, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !stop.load(Ordering::SeqCst) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        loop {
            let again = ask(&mut stream, &authorization).await;
            answered.fetch_add(1, Ordering::SeqCst);
            if !again || stop.load(Ordering::SeqCst) {
                break;
            }
        }
    }
}

/// A connection for each request.
pub async fn connecting(address: SocketAddr, authorization: String, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !stop.load(Ordering::SeqCst) {
        ask(&mut TcpStream::connect(address).await.unwrap(), &authorization).await;
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

pub async fn handshaking(address: SocketAddr, authorization: String, tls: TlsConnector, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    while !stop.load(Ordering::SeqCst) {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut stream = tls.connect(ServerName::try_from("gate.test").unwrap(), stream).await.unwrap();
        ask(&mut stream, &authorization).await;
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

pub async fn streaming(address: SocketAddr, authorization: String, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) {
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    while !stop.load(Ordering::SeqCst) {
        let request = http2.get(format!("http://{address}/billing")).header("authorization", &authorization);
        assert_eq!(request.send().await.unwrap().status(), 200);
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

pub async fn metric(world: &World, gateway: &Process, series: &str) -> Option<f64> {
    let text = world.http.get(format!("http://{}/metrics", gateway.management)).send().await.ok()?.text().await.ok()?;
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?.parse().ok()
}

async fn until(world: &World, gateway: &Process, series: &str, value: usize) {
    while metric(world, gateway, series).await.is_none_or(|found| format!("{found:.0}") != value.to_string()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_for_a_reload_a_certificate_or_another_program() {
    // One after the other on one store would work too, with a pause each time: see below.
    let world = World::without_gateway_on(Database::Postgres, "", &format!("{ROUTES}{TIERS}")).await;
    let authority = Authority::new();
    authority.certify(world.dir.path(), "gate", &["gate.test"]);
    let rest = std::fs::read_to_string(world.path("gateway.toml")).unwrap();
    let tls = "[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = { certificate = \"gate.pem\", key = \"gate.key\" }\n";
    std::fs::write(world.path("gateway.toml"), format!("{rest}{tls}")).unwrap();
    let mut gateway = Process::serve(&world, &[]).await;
    let mut serving = Serving(Pid::from_raw(i32::try_from(gateway.child.id().unwrap()).unwrap()).unwrap());
    let (plain, secure) = (gateway.addresses[0], gateway.addresses[1]);
    let authorization = world.authorization("billing");
    let mut load = Load::start();
    for _ in 0..2 {
        load.add(|stop, answered| keeping(plain, authorization.clone(), stop, answered));
        load.add(|stop, answered| connecting(plain, authorization.clone(), stop, answered));
    }
    load.add(|stop, answered| streaming(plain, authorization.clone(), stop, answered));
    let trusting = TlsConnector::from(authority.client(&[&rustls::version::TLS13, &rustls::version::TLS12], None));
    load.add(|stop, answered| handshaking(secure, authorization.clone(), trusting, stop, answered));
    load.more(100).await;
    let routes = std::fs::read_to_string(world.path("routes.toml")).unwrap();
    for n in 0..10 {
        for generation in 2..12 {
            std::fs::write(world.path("new"), format!("{routes}# {n} {generation}\n")).unwrap();
            std::fs::rename(world.path("new"), world.path("routes.toml")).unwrap();
            until(&world, &gateway, "sigmagate_config_generation", generation).await;
        }
        authority.certify(world.dir.path(), "gate", &["gate.test"]);
        until(&world, &gateway, "sigmagate_certificate_reloads_total{result=\"ok\"}", 1).await;
        load.more(20).await;
        kill_process(serving.0, Signal::USR2).unwrap();
        let line = gateway.logged_again("another process has taken over").await;
        let pid = Pid::from_raw(i32::try_from(line["pid"].as_i64().unwrap()).unwrap()).unwrap();
        assert_ne!(pid, serving.0);
        serving.0 = pid;
        until(&world, &gateway, "sigmagate_config_generation", 1).await;
        load.more(20).await;
    }
    let answered = load.end().await;
    assert!(gateway.child.wait().await.unwrap().success(), "the first one has ended by itself");
    println!("{answered} requests, none failed, in 100 reloads, 10 certificates and 10 programs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_cannot_start_takes_nothing_over() {
    let world = World::without_gateway("", ROUTES).await;
    let mut gateway = Process::serve(&world, &[]).await;
    let settings = std::fs::read_to_string(world.path("gateway.toml")).unwrap();
    std::fs::write(world.path("gateway.toml"), "nonsense").unwrap();
    gateway.signal(Signal::USR2);
    gateway.logged("no other process has taken over").await;
    assert_eq!(gateway.status(&world, "/billing", "billing").await, 200);
    std::fs::write(world.path("gateway.toml"), settings).unwrap();
    gateway.signal(Signal::USR2);
    let pid = gateway.logged("another process has taken over").await["pid"].as_i64().unwrap();
    let serving = Serving(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap());
    assert_eq!(gateway.status(&world, "/billing", "billing").await, 200);
    assert!(gateway.child.wait().await.unwrap().success());
    assert_eq!(gateway.status(&world, "/billing", "billing").await, 200);
    drop(serving);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_wait_while_the_embedded_store_changes_hands() {
    let world = World::without_gateway("", &format!("{ROUTES}{TIERS}")).await;
    let mut gateway = Process::serve(&world, &[]).await;
    let mut serving = Serving(Pid::from_raw(i32::try_from(gateway.child.id().unwrap()).unwrap()).unwrap());
    let (address, authorization) = (gateway.addresses[0], world.authorization("billing"));
    let mut load = Load::start();
    load.add(|stop, answered| keeping(address, authorization.clone(), stop, answered));
    load.add(|stop, answered| connecting(address, authorization.clone(), stop, answered));
    for _ in 0..2 {
        load.more(50).await;
        kill_process(serving.0, Signal::USR2).unwrap();
        let line = gateway.logged_again("another process has taken over").await;
        serving.0 = Pid::from_raw(i32::try_from(line["pid"].as_i64().unwrap()).unwrap()).unwrap();
        gateway.logged_again("listening for operators").await;
    }
    load.more(50).await;
    load.end().await;
    assert!(gateway.child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_to_stop_says_so_first_and_ends_when_the_last_request_has() {
    let world = World::without_gateway("[shutdown]\ndelay_ms = 1500\n", ROUTES).await;
    let gateway = Process::serve(&world, &[]).await;
    let readyz = format!("http://{}/readyz", gateway.management);
    assert_eq!(world.http.get(&readyz).send().await.unwrap().status(), 200);
    gateway.signal(Signal::TERM);
    let state = loop {
        let answer = world.http.get(&readyz).send().await.unwrap();
        if answer.status() == 503 {
            let said: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
            break said["state"].as_str().unwrap().to_owned();
        }
    };
    assert_eq!(state, "stopping");
    // Who has not noticed yet is served.
    let address = gateway.addresses[0];
    let mut stream = TcpStream::connect(address).await.unwrap();
    let authorization = world.authorization("billing");
    while ask(&mut stream, &authorization).await {}
    let mut gateway = gateway;
    assert!(gateway.child.wait().await.unwrap().success());
    assert!(TcpStream::connect(address).await.is_err());
}
