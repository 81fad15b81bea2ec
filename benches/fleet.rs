//! What a fleet costs and how long it takes, on gateways that are processes and a PostgreSQL of the benchmark's own.
//! `cargo bench --bench fleet` (receipts, a dead database, cost at rest), `cargo bench --bench fleet -- million` (a million clients)

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and ends where it cannot go on"
)]

#[path = "../tests/chaos/fleet.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod fleet;
#[path = "../tests/chaos/history.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod history;
#[path = "../tests/chaos/link.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod link;
#[path = "../tests/chaos/load.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod load;
#[path = "../tests/support/postgres.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod postgres;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use sigmagate::credential::Secret;
use sigmagate::lifecycle::{Lifecycle, NewClientRequest};
use sigmagate::store::{Actor, Fleet, PgStore};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions};
use tokio::runtime::Builder;
use tokio::time::sleep;

use fleet::Gateway;
use link::Link;
use load::{Clock, Connection};
use postgres::Postgres;

const RECEIPTS: usize = 500;

struct World {
    server: Postgres,
    url: String,
    lifecycle: Lifecycle,
    upstream: SocketAddr,
    dir: tempfile::TempDir,
    by: Actor,
}

impl World {
    async fn new() -> Self {
        let server = tokio::task::spawn_blocking(|| Postgres::start(&["shared_buffers = '256MB'", "max_wal_size = '4GB'"])).await.unwrap();
        let url = server.database();
        let store = PgStore::open(&url, &Fleet::default(), true).await.unwrap();
        let lifecycle = Lifecycle::new(Arc::new(store), None);
        let by = Actor { name: "operator".into(), origin: "bench".into() };
        lifecycle.put_practice(&"p".parse().unwrap(), "Practice", &by).await.unwrap();
        lifecycle.approve(&"p".parse().unwrap(), &by).await.unwrap();
        let upstream = load::upstream(Clock(Instant::now())).await;
        Self { server, url, lifecycle, upstream, dir: tempfile::tempdir().unwrap(), by }
    }

    async fn client(&self) -> (sigmagate::id::ClientId, String) {
        let new = NewClientRequest::new("p".parse().unwrap(), "app", vec!["billing".parse().unwrap()]);
        let issued = self.lifecycle.create_client(new, &self.by).await.unwrap();
        (issued.client.id, basic(&issued.client.id.to_string(), issued.secret.reveal()))
    }

    async fn gateways(&self, n: usize) -> Vec<Gateway> {
        let (_, database) = self.url.rsplit_once('/').unwrap();
        let mut gateways = Vec::new();
        for at in 0..n {
            let link = Link::to(self.server.port()).await;
            let gateway = Gateway::new(&self.dir.path().join(at.to_string()), link, database, "", self.upstream);
            gateway.start().await;
            gateways.push(gateway);
        }
        gateways
    }
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}")))
}

/// Ends them as an operator would: they leave the register.
async fn end(gateways: Vec<Gateway>) {
    for gateway in &gateways {
        gateway.terminate();
    }
    tokio::task::spawn_blocking(move || drop(gateways)).await.unwrap();
}

async fn receipts(world: &World, n: usize, loaded: bool) {
    let gateways = world.gateways(n).await;
    let (_, authorization) = world.client().await;
    // On a thread of its own, so that the coordinator does not stand in line behind the requests it is measured beside.
    let (asked, load) = (Arc::new(AtomicU64::new(0)), Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    for gateway in gateways.iter().filter(|_| loaded) {
        for _ in 0..2 {
            let (address, authorization, asked) = (gateway.address().unwrap(), authorization.clone(), Arc::clone(&asked));
            load.spawn(async move {
                let mut connection = Connection::default();
                loop {
                    assert_eq!(connection.ask(address, &authorization).await, 200);
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    }
    let mut victims = Vec::new();
    for _ in 0..RECEIPTS {
        victims.push(world.client().await.0);
    }
    let (mut whole, mut waited) = (Vec::new(), Vec::new());
    let (measured, before) = (Instant::now(), asked.load(Ordering::Relaxed));
    for victim in victims {
        let begun = Instant::now();
        let receipt = world.lifecycle.revoke(victim, &world.by).await.unwrap();
        whole.push(begun.elapsed());
        waited.push(receipt.waited);
        assert_eq!((receipt.applied as usize, receipt.expired), (n, 0));
    }
    let rate = (asked.load(Ordering::Relaxed) - before) as f64 / measured.elapsed().as_secs_f64();
    load.shutdown_background();
    end(gateways).await;
    let at = |times: &mut Vec<Duration>, percent: usize| {
        times.sort();
        times[times.len() * percent / 100].as_secs_f64() * 1000.0
    };
    println!(
        "| {n} | {} | {:.1} | {:.1} | {:.1} | {:.1} |",
        if loaded { format!("{rate:.0} requests/s, all that two cores can do") } else { "idle".to_owned() },
        at(&mut whole, 50),
        at(&mut whole, 99),
        at(&mut waited, 50),
        at(&mut waited, 99)
    );
}

/// A revocation in psql, as it is and in strict mode, with three gateways that have nothing else to do.
async fn by_hand(world: &World) {
    let gateways = world.gateways(3).await;
    let mut conn = world.url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    for strict in [false, true] {
        if strict {
            world.server.strict(&world.url);
        }
        let mut times = Vec::new();
        for _ in 0..RECEIPTS {
            let (id, _) = world.client().await;
            let begun = Instant::now();
            let revoke = sqlx::query("UPDATE gateway.clients SET revoked_at = now() WHERE client_id = $1").bind(id.to_string());
            revoke.execute(&mut conn).await.unwrap();
            times.push(begun.elapsed());
        }
        times.sort();
        let at = |percent: usize| times[times.len() * percent / 100].as_secs_f64() * 1000.0;
        let mode = if strict { "in strict mode" } else { "without it" };
        println!("a revocation by plain SQL, 3 gateways, {mode}: p50 {:.1} ms, p99 {:.1} ms", at(50), at(99));
    }
    end(gateways).await;
}

async fn until(gateway: &Gateway, authorization: &str, status: u16) -> Instant {
    let mut connection = Connection::default();
    while connection.ask(gateway.address().unwrap(), authorization).await != status {
        sleep(Duration::from_millis(1)).await;
    }
    Instant::now()
}

async fn dead_database(world: &World) {
    let gateways = world.gateways(1).await;
    let (_, authorization) = world.client().await;
    until(&gateways[0], &authorization, 200).await;
    world.server.crash();
    let dead = Instant::now();
    let refused = until(&gateways[0], &authorization, 503).await;
    world.server.resume();
    let alive = Instant::now();
    let admitted = until(&gateways[0], &authorization, 200).await;
    println!(
        "a database that dies: 503 after {:.2?}; alive again: 200 after {:.2?} (lease 5 s, heartbeat 1 s)",
        refused - dead,
        admitted - alive
    );
    end(gateways).await;
}

async fn at_rest(world: &World) {
    const MEASURED: Duration = Duration::from_secs(20);
    let gateways = world.gateways(1).await;
    sleep(Duration::from_secs(2)).await;
    let before = cpu(gateways[0].id());
    sleep(MEASURED).await;
    let spent = cpu(gateways[0].id()).saturating_sub(before);
    println!(
        "at rest: {:.2} % of one core for feed, lease and everything else, over {MEASURED:?}",
        spent.as_secs_f64() / MEASURED.as_secs_f64() * 100.0
    );
    end(gateways).await;
}

async fn million(world: &World) {
    let mut conn = world.url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    let (_, authorization) = world.client().await;
    for clients in [10_000_u32, 1_000_000] {
        let sql = format!(
            "WITH made AS (
                INSERT INTO gateway.clients (client_id, practice_id, name, scopes)
                SELECT 'smd_' || lpad(n::text, 20, '0'), 'p', 'app ' || n, ARRAY['billing'] FROM generate_series(1, {clients}) AS n
                ON CONFLICT DO NOTHING RETURNING client_id)
             INSERT INTO gateway.client_secrets (client_id, generation, digest_kind, digest) SELECT client_id, 1, 'sha256', sha256(client_id::bytea) FROM made"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.unwrap();
        sqlx::raw_sql("ANALYZE gateway.clients").execute(&mut conn).await.unwrap();
        let begun = Instant::now();
        let gateways = world.gateways(1).await;
        let ready = begun.elapsed();
        until(&gateways[0], &authorization, 200).await;
        let resident = memory_kib(gateways[0].id());
        let (before, mut connection) = (cpu(gateways[0].id()), Connection::default());
        let unknown = basic("smd_zzzzzzzzzzzzzzzzzzzz", Secret::generate().reveal());
        let (mut asked, begun) = (0_u32, Instant::now());
        while begun.elapsed() < Duration::from_secs(4) {
            assert_eq!(connection.ask(gateways[0].address().unwrap(), &authorization).await, 200);
            asked += 1;
        }
        let each = cpu(gateways[0].id()).saturating_sub(before).as_secs_f64() * 1e6 / f64::from(asked);
        for _ in 0..10_000 {
            assert_eq!(connection.ask(gateways[0].address().unwrap(), &unknown).await, 401);
        }
        let after = memory_kib(gateways[0].id());
        println!(
            "{clients} clients: ready {ready:.2?} after its start, {resident} KiB resident ({:.0} bytes a client), {each:.1} us of CPU a request on one connection; after 10000 requests of unknown clients {after} KiB",
            resident as f64 * 1024.0 / f64::from(clients)
        );
        end(gateways).await;
    }
}

/// User and system time of a process so far, in ticks of 10 ms.
fn cpu(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    Duration::from_millis((fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()) * 10)
}

fn memory_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().trim_end_matches(" kB").parse().ok()).unwrap()
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let world = World::new().await;
    if std::env::args().any(|word| word == "million") {
        return million(&world).await;
    }
    println!("| gateways | | whole call p50 (ms) | p99 | of that waiting for gateways p50 | p99 |\n|---|---|---|---|---|---|");
    for n in [1, 2, 3, 8] {
        receipts(&world, n, false).await;
        receipts(&world, n, true).await;
    }
    dead_database(&world).await;
    at_rest(&world).await;
    by_hand(&world).await;
}
