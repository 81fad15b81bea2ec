//! How much one client, one practice, one address and everybody together may have of the gateway.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::process::Process;
use crate::support::{Database, ROUTES, World};

/// A request whose content is still to come.
struct Held(TcpStream);

impl Held {
    /// Once it is admitted, so that its content is asked for.
    async fn new(world: &World, app: &str) -> Self {
        let authorization = world.authorization(app);
        let head = format!(
            "POST /billing HTTP/1.1\r\nhost: gate\r\nauthorization: {authorization}\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n"
        );
        loop {
            let mut stream = TcpStream::connect(world.address()).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut begin = [0; 25];
            stream.read_exact(&mut begin).await.unwrap();
            if begin == *b"HTTP/1.1 100 Continue\r\n\r\n" {
                return Self(stream);
            }
        }
    }

    /// Sends the rest; how the answer begins.
    async fn finish(mut self) -> String {
        self.0.write_all(b"rest").await.unwrap();
        let mut begin = [0; 12];
        self.0.read_exact(&mut begin).await.unwrap();
        String::from_utf8_lossy(&begin).into_owned()
    }
}

/// The first refusal: status, `Retry-After` and code. A request counts until a moment after its answer.
async fn refused(world: &World, app: &str) -> (u16, String, String) {
    loop {
        let answer = world.request("GET", "/billing", app).send().await.unwrap();
        let (status, retry) = (answer.status().as_u16(), answer.headers().get("retry-after").cloned());
        let content = answer.bytes().await.unwrap();
        if status != 200 {
            let problem: serde_json::Value = serde_json::from_slice(&content).unwrap();
            return (status, retry.unwrap().to_str().unwrap().to_owned(), problem["code"].as_str().unwrap().to_owned());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_so_many_requests_under_way_at_once() {
    let tiers =
        ROUTES.replace("[tiers.one]\nper_second = 1\nburst = 1", "[tiers.one]\nper_second = 100000\nburst = 100000\nconcurrent = 1");
    // Connections stay for ever: if one that is idle kept a place, nobody would get it.
    let world = World::with("[limits]\nidle_timeout_ms = 3600000\n", &tiers).await;
    let held = Held::new(&world, "limited").await;
    assert_eq!(refused(&world, "limited").await, (429, "1".into(), "rate_limited".into()));
    while world.metric("sigmagate_decisions_total{reason=\"too_many_at_once\"}").await < 1.0 {}
    assert_eq!(world.status("/billing", "billing").await, 200, "others are not touched");
    assert_eq!(held.finish().await, "HTTP/1.1 200");
    while world.status("/billing", "limited").await != 200 {}
    // A client that hangs up gives its place back as well.
    let held = Held::new(&world, "limited").await;
    drop(held);
    while world.status("/billing", "limited").await != 200 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clients_of_a_practice_have_a_limit_together() {
    let standard = "[tiers.standard]\nper_second = 1000\nburst = 1000\npractice = { per_second = 1, burst = 3 }\n";
    let world = World::with("", &format!("{ROUTES}{standard}")).await;
    for app in ["billing", "all", "personal"] {
        let answer = world.request("GET", "/billing", app).send().await.unwrap();
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["ratelimit-policy"]),
            (200, &"\"standard-practice\";q=3;w=3".parse().unwrap())
        );
    }
    let answer = world.request("GET", "/billing", "all").send().await.unwrap();
    assert_eq!(answer.status(), 429);
    assert!(answer.headers()["ratelimit"].to_str().unwrap().starts_with("\"standard-practice\";r=0;t="), "{:?}", answer.headers());
    assert_eq!(world.status("/billing", "limited").await, 200, "another tier");
    assert_eq!(world.http.get(world.url("/docs")).send().await.unwrap().status(), 200, "and nobody is asked there");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_for_the_gateway_is_refused_and_operators_are_answered() {
    let world = World::with("[limits]\nrequests = 1\n", ROUTES).await;
    let held = Held::new(&world, "billing").await;
    assert_eq!(refused(&world, "all").await, (503, "1".into(), "unavailable".into()));
    while world.metric("sigmagate_decisions_total{reason=\"overloaded\"}").await < 1.0 {}
    for path in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(world.http.get(world.management(path)).send().await.unwrap().status(), 200, "{path}");
    }
    assert_eq!(held.finish().await, "HTTP/1.1 200", "what was begun is finished");
    while world.status("/billing", "all").await != 200 {}
}

/// Whether it is served; one that is not is closed, or reset when it writes.
async fn served(stream: &mut TcpStream) -> bool {
    let mut begin = [0; 12];
    stream.write_all(b"HEAD /docs HTTP/1.1\r\nhost: gate\r\n\r\n").await.is_ok()
        && stream.read_exact(&mut begin).await.is_ok()
        && begin == *b"HTTP/1.1 200"
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_so_many_connections() {
    let world = World::with("[limits]\nconnections_per_address = 2\ntrusted_proxies = [\"127.0.0.3\"]\n", ROUTES).await;
    let connect = async |last: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0)).unwrap();
        socket.connect(world.address()).await.unwrap()
    };
    let mut one = connect(9).await;
    let mut two = connect(9).await;
    assert!(served(&mut one).await && served(&mut two).await);
    assert!(!served(&mut connect(9).await).await, "one too many");
    assert!(served(&mut connect(2).await).await, "another address");
    let mut proxied = Vec::new();
    for _ in 0..4 {
        proxied.push(connect(3).await);
        assert!(served(proxied.last_mut().unwrap()).await, "a proxy stands for many");
    }
    drop(two);
    while !served(&mut connect(9).await).await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateways_of_a_fleet_share_a_limit() {
    let tiers = ROUTES.replace("[tiers.one]\nper_second = 1\nburst = 1", "[tiers.one]\nper_second = 1000000\nburst = 12");
    let world = World::on(Database::Postgres, "", &tiers).await;
    let left = async || {
        let answer = world.request("GET", "/billing", "limited").send().await.unwrap();
        assert_eq!(answer.headers()["ratelimit-policy"], "\"one\";q=12;w=1");
        answer.headers()["ratelimit"].to_str().unwrap().to_owned()
    };
    assert_eq!(left().await, "\"one\";r=11;t=1");
    let other = Process::serve(&world, &[]).await;
    while left().await != "\"one\";r=5;t=1" {}
    assert!(other.end(Signal::TERM).await.0.success());
    while left().await != "\"one\";r=11;t=1" {}
}
