//! A gateway that starts: nothing is answered before its first lease, and who is not in its replica is nobody.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use sigmagate::credential::Secret;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::fleet::Gateway;
use crate::link::Link;
use crate::load::Connection;
use crate::support::Postgres;
use crate::world::{App, World, answers_until, basic, status};

const CLIENTS: usize = 20_000;
const LOADED: &str = "WITH made AS (
        INSERT INTO gateway.clients (client_id, practice_id, name, scopes)
        SELECT 'smd_' || lpad(n::text, 20, '0'), 'p', 'app ' || n, ARRAY['billing'] FROM generate_series(1, 20000) AS n RETURNING client_id)
    INSERT INTO gateway.client_secrets (client_id, generation, digest_kind, digest) SELECT client_id, 1, 'sha256', sha256(client_id::bytea) FROM made";
/// The gateway is reading the clients, and cannot.
const READING: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'sigmagate' AND wait_event_type = 'Lock' AND query LIKE '%gateway.clients%')";

/// A server, a world with 20001 clients in it, and the one that asks.
async fn full() -> (Postgres, World, String, App) {
    let server = Postgres::start(&[]);
    let url = server.database();
    let mut world = World::new(&url).await;
    world.sql(LOADED).await;
    let app = world.client().await;
    (server, world, url, app)
}

/// Keeps everybody from reading the clients, for as long as it is there.
async fn withheld(url: &str) -> PgConnection {
    let mut conn = url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    sqlx::raw_sql("BEGIN; LOCK TABLE gateway.clients").execute(&mut conn).await.unwrap();
    conn
}

/// Every port on which a process listens, whether or not it has said so.
fn listening(process: u32) -> Vec<SocketAddr> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    let sockets: Vec<String> = files
        .filter_map(|file| Some(fs::read_link(file.path()).ok()?.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (state, inode) = (*fields.get(3)?, *fields.get(9)?);
        let listens = state == "0A" && sockets.iter().any(|socket| socket == inode);
        listens.then(|| u16::from_str_radix(fields[1].rsplit(':').next()?, 16).ok())?
    };
    table.lines().filter_map(port).map(|port| ([127, 0, 0, 1], port).into()).collect()
}

async fn operators(gateway: &Gateway, path: &str) -> (u16, String) {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(format!("http://{}{path}", gateway.management().unwrap())).send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

async fn readiness(gateway: &Gateway) -> u16 {
    operators(gateway, "/readyz").await.0
}

/// How many clients the replica holds, as the gateway last counted.
async fn held(gateway: &Gateway) -> usize {
    let (_, metrics) = operators(gateway, "/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix("sigmagate_cache_entries{kind=\"client\"} ")).unwrap();
    line.parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_answered_before_the_first_lease() {
    let (server, mut world, url, app) = full().await;
    let gateway = world.gateway(Link::to(server.port()).await, "lease_ms = 60000\nheartbeat_ms = 100");
    let lock = withheld(&url).await;
    let starting = tokio::spawn({
        let gateway = Arc::clone(&gateway);
        async move { gateway.start().await }
    });
    world.until(READING).await;
    let request = format!("GET /billing/x HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\nConnection: close\r\n\r\n", app.authorization);
    let mut asked = Vec::new();
    for address in listening(gateway.id()) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        asked.push((address, stream));
    }
    assert_eq!(asked.len(), 2, "for applications and for operators");
    world.until(READING).await;
    for (_, stream) in &asked {
        let answer = stream.try_read(&mut [0; 1]);
        assert!(answer.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "answered without having read anything");
    }
    assert!(!starting.is_finished());
    drop(lock);
    starting.await.unwrap();
    assert!(sqlx::query_scalar::<_, bool>("SELECT beat > 0 FROM gateway.nodes").fetch_one(&mut world.conn).await.unwrap());
    for (address, mut stream) in asked {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let wanted = if Some(address) == gateway.address() { "HTTP/1.1 200" } else { "HTTP/1.1 404" };
        assert!(answer.starts_with(wanted), "{answer}");
    }
    assert_eq!((readiness(&gateway).await, held(&gateway).await), (200, CLIENTS + 1));

    // One that has to start again while it runs says so, instead of admitting by what it had.
    let lock = withheld(&url).await;
    sqlx::query("DELETE FROM gateway.nodes").execute(&mut world.conn).await.unwrap();
    answers_until(&gateway, &app.authorization, 503).await;
    world.until(READING).await;
    assert_eq!((status(&gateway, &app.authorization).await, readiness(&gateway).await), (503, 503));
    drop(lock);
    let before = answers_until(&gateway, &app.authorization, 200).await;
    assert!(before.iter().all(|answer| *answer == 503), "{before:?}");
    assert_eq!((readiness(&gateway).await, held(&gateway).await), (200, CLIENTS + 1));
}

/// Questions that wait for a lock, but for those of the tally, which writes down every few seconds what was refused.
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sigmagate' AND wait_event_type = 'Lock'
    AND query NOT LIKE '%INTO gateway.usage_daily%' AND query NOT LIKE '%INTO gateway.secret_uses%' AND query NOT LIKE '%INTO gateway.denials%'";

/// Both lines of the gateway have acknowledged what they found, and have nothing more to do.
const AT_REST: &str = "SELECT count(*) = 2 FROM pg_stat_activity WHERE application_name = 'sigmagate' AND state = 'idle' AND query LIKE 'UPDATE gateway.nodes SET applied%'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_there_are_not_cost_no_question_and_no_place() {
    let (server, mut world, url, app) = full().await;
    // No heartbeat comes in between.
    let gateway = world.gateway(Link::to(server.port()).await, "lease_ms = 3600000\nheartbeat_ms = 1200000");
    gateway.start().await;
    assert_eq!((status(&gateway, &app.authorization).await, held(&gateway).await), (200, CLIENTS + 1));
    world.until(AT_REST).await;
    // Who asks the database now waits for its answer until the lock goes.
    let lock = withheld(&url).await;
    let address = gateway.address().unwrap();
    let mut asking = JoinSet::new();
    for part in 0..4 {
        asking.spawn(async move {
            let mut connection = Connection::default();
            let secret = Secret::generate();
            for n in 0..2500 {
                let unknown = basic(format_args!("smd_{:020}", 1_000_000 + part * 2500 + n), secret.reveal());
                assert_eq!(connection.ask(address, &unknown).await, 401);
            }
        });
    }
    asking.join_all().await;
    assert_eq!(sqlx::query_scalar::<_, i64>(WAITING).fetch_one(&mut world.conn).await.unwrap(), 0, "the database was asked");
    drop(lock);
    // It counts anew with the next change.
    let applied = world.client().await;
    answers_until(&gateway, &applied.authorization, 200).await;
    assert_eq!(held(&gateway).await, CLIENTS + 2);
}
