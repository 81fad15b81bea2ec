//! Everything at once, for as long as is asked for: load, reloads, certificates, upstreams that die and come back, revocations.
//! Every request is accounted for, and nothing is left over. `scripts/soak` runs it for long, the tests for some seconds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sigmagate::lifecycle::{Issued, NewClientRequest};
use tokio_rustls::TlsConnector;

use crate::process::Process;
use crate::support::{Database, ROUTES, World};
use crate::tls::Authority;
use crate::upgrade::{Load, connecting, handshaking, keeping, metric, streaming};
use crate::upstreams::{Manner, Server};

/// How long it goes on.
const SECONDS: &str = "SIGMAGATE_SOAK_SECONDS";

/// What the gateway says of itself.
#[derive(Debug)]
struct Sample {
    resident: f64,
    files: f64,
    tasks: f64,
}

impl Sample {
    async fn take(world: &World, gateway: &Process) -> Self {
        let read = async |series: &str| metric(world, gateway, series).await.unwrap();
        Self {
            resident: read("process_resident_memory_bytes").await,
            files: read("process_open_fds").await,
            tasks: read("sigmagate_tasks").await,
        }
    }

    #[expect(clippy::print_stdout, reason = "who runs it for long wants to see how it goes")]
    fn show(&self, when: &str) {
        println!("{when}: {:.1} MiB, {} files, {} tasks", self.resident / 1_048_576.0, self.files, self.tasks);
    }
}

/// Waits until no application is connected and nothing is asked of upstreams.
async fn quiet(world: &World, gateway: &Process) {
    for series in ["sigmagate_connections", "sigmagate_requests_in_flight", "sigmagate_upstream_requests_in_flight{upstream=\"core\"}"] {
        while metric(world, gateway, series).await.is_none_or(|count| count > 0.5) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Creates a client, uses it, revokes it; how many requests that took. After the receipt it is refused, and before that
/// it is not.
async fn revoke_one(world: &World, gateway: &Process, n: usize) -> (usize, usize) {
    let new = NewClientRequest::new(world.practice.clone(), &format!("short-lived {n}"), vec!["billing".parse().unwrap()]);
    let Issued { client, secret, .. } = world.lifecycle.create_client(new, &world.by).await.unwrap();
    let ask = async || {
        let request = world.http.get(gateway.url("/billing")).basic_auth(client.id, Some(secret.reveal()));
        // Not kept: what is counted at the end of a round is what others left.
        let request = request.header("connection", "close");
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask().await, 200, "in force when it was made");
    world.lifecycle.revoke(client.id, &world.by).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ask().await, 401, "no request after the receipt");
    }
    (1, 3)
}

async fn total(world: &World, gateway: &Process) -> usize {
    let text = world.http.get(format!("http://{}/metrics", gateway.management)).send().await.unwrap().text().await.unwrap();
    let counts = text.lines().filter(|line| line.starts_with("sigmagate_requests_total{"));
    counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<usize>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_fails_and_nothing_is_left_over() {
    let seconds: u64 = std::env::var(SECONDS).map_or(8, |text| text.parse().expect("SIGMAGATE_SOAK_SECONDS is a number of seconds"));
    let mut servers = [Server::start(Manner::Answers).await, Server::start(Manner::Answers).await, Server::start(Manner::Answers).await];
    let origins: Vec<String> = servers.iter().map(|server| format!("http://{}", server.address)).collect();
    let lines =
        "health = { path = \"/healthz\", every_secs = 1 }\nejection = { failures = 5, for_secs = 1 }\nretries = 2\nretry_percent = 100";
    let routes = ROUTES.replacen("servers = [\"http://CORE\"]", &format!("servers = {origins:?}\n{lines}"), 1);
    let routes = format!("{routes}[tiers.standard]\nper_second = 1000000\nburst = 1000000\n");
    let settings = "[limits.failed_authentications]\nper_minute = 1000000\nburst = 1000000\n";
    let world = Arc::new(World::without_gateway_on(Database::Postgres, settings, &routes).await);
    let authority = Authority::new();
    authority.certify(world.dir.path(), "gate", &["gate.test"]);
    let rest = std::fs::read_to_string(world.path("gateway.toml")).unwrap();
    let tls = "[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = { certificate = \"gate.pem\", key = \"gate.key\" }\n";
    std::fs::write(world.path("gateway.toml"), format!("{rest}{tls}")).unwrap();
    let gateway = Process::serve(&world, &[]).await;
    let (plain, secure) = (gateway.addresses[0], gateway.addresses[1]);
    let authorization = world.authorization("billing");
    let routes = std::fs::read_to_string(world.path("routes.toml")).unwrap();

    let (mut answered, mut admitted, mut refused) = (0, 0, 0);
    let (mut reloads, mut certificates, mut deaths) = (0, 0, 0);
    let mut samples = Vec::new();
    // In rounds: the load pauses in between, so that what is left over can be told from what is in use.
    let rounds = (seconds / 30).clamp(2, 40);
    for round in 0..rounds {
        let mut load = Load::start();
        for _ in 0..2 {
            load.add(|stop, answered| keeping(plain, authorization.clone(), stop, answered));
        }
        load.add(|stop, answered| connecting(plain, authorization.clone(), stop, answered));
        load.add(|stop, answered| streaming(plain, authorization.clone(), stop, answered));
        let trusting = TlsConnector::from(authority.client(&[&rustls::version::TLS13], None));
        load.add(|stop, answered| handshaking(secure, authorization.clone(), trusting, stop, answered));
        let over = tokio::time::Instant::now() + Duration::from_millis(seconds * 1000 / rounds);
        let step = AtomicUsize::new(0);
        while tokio::time::Instant::now() < over {
            let n = step.fetch_add(1, Ordering::Relaxed);
            load.more(50).await;
            std::fs::write(world.path("new"), format!("{routes}# {round} {n}\n")).unwrap();
            std::fs::rename(world.path("new"), world.path("routes.toml")).unwrap();
            reloads += 1;
            if n.is_multiple_of(3) {
                authority.certify(world.dir.path(), "gate", &["gate.test"]);
                certificates += 1;
            }
            if n.is_multiple_of(2) {
                let at = n / 2 % servers.len();
                servers[at].stop().await;
                load.more(50).await;
                servers[at] = Server::start_at(servers[at].address, Manner::Answers, None).await;
                deaths += 1;
            }
            let (yes, no) = revoke_one(&world, &gateway, n).await;
            admitted += yes;
            refused += no;
        }
        answered += load.end().await;
        quiet(&world, &gateway).await;
        let sample = Sample::take(&world, &gateway).await;
        sample.show(&format!("round {} of {rounds}", round + 1));
        samples.push(sample);
    }
    let asked = answered + admitted + refused;
    println!("{asked} requests in {seconds} s: {} admitted, {refused} refused after a revocation", answered + admitted);
    println!("{reloads} reloads, {certificates} certificates, {deaths} deaths of a server, {admitted} revocations");
    // A request is recorded a moment after its answer.
    while total(&world, &gateway).await < asked {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(total(&world, &gateway).await, asked, "the gateway has a record of each, and of no other");
    // Caches fill up at first; then there is nothing that could grow.
    let (settled, last) = (&samples[samples.len() / 4], samples.last().unwrap());
    assert!(last.files <= settled.files + 20.0, "{samples:?}");
    assert!(last.tasks <= settled.tasks + 20.0, "{samples:?}");
    assert!(last.resident <= settled.resident * 1.2 + 16.0 * 1_048_576.0, "{samples:?}");
    assert!(gateway.end(rustix::process::Signal::TERM).await.0.success());
}
