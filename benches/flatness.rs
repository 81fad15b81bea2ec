//! What a decision costs as everything around it grows: `cargo bench --bench flatness`. Clients from 100 to 1,000,000, routes from
//! 10 to 10,000, practices with one client or 100,000, connections from 10 to 10,000.
//!
//! Callers are drawn at random over all of them, so that what does not fit into the processor's caches is fetched each time: that
//! is the price of growth, and it is in the figures.

#![allow(
    missing_docs,
    dead_code,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark, which shares what it needs with others"
)]

#[path = "compare/floor.rs"]
mod floor;
#[path = "support/gate.rs"]
mod gate;
#[path = "compare/load.rs"]
mod load;
#[path = "compare/ours.rs"]
mod ours;
#[path = "compare/process.rs"]
mod process;
#[path = "compare/world.rs"]
mod world;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gate::{Size, request};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const ROUNDS: usize = 5;
const DECISIONS: usize = 200_000;
const CALLERS: u32 = 65_536;

/// The least, the middle and the most.
fn spread(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    [values[0], values[values.len() / 2], values[values.len() - 1]]
}

fn resident_kib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux says it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
}

/// Nanoseconds of a decision by a key and of a refusal of a wrong one, and the KiB that the world takes.
fn decisions(size: Size) -> ([f64; 3], f64) {
    let before = resident_kib();
    let world = gate::world(size);
    let grown = resident_kib() - before;
    let target = world.target();
    // A multiplier without a factor in common with any of the counts visits clients in no order.
    let callers = (0..CALLERS.min(size.clients)).map(|n| (u64::from(n) * 2_654_435_761 % u64::from(size.clients)) as u32);
    let requests: Vec<_> = callers.map(|client| request(&world.basic(client), &target)).collect();
    for request in &requests {
        assert!(world.gate.decide(request).outcome.is_ok());
    }
    let rounds = (0..ROUNDS).map(|_| {
        let begun = Instant::now();
        for request in requests.iter().cycle().take(DECISIONS) {
            black_box(world.gate.decide(black_box(request)).outcome.is_ok());
        }
        begun.elapsed().as_nanos() as f64 / DECISIONS as f64
    });
    (spread(rounds.collect()), grown)
}

fn table(title: &str, rows: &[(&str, Size)]) {
    println!("\n| {title} | ns a decision, median (range) | to the first | MiB in memory |\n|---|---|---|---|");
    let mut first = None;
    for (name, size) in rows {
        let ([low, middle, high], kib) = decisions(*size);
        let to = middle / *first.get_or_insert(middle);
        println!("| {name} | {middle:.0} ({low:.0}-{high:.0}) | {to:.2} | {:.1} |", kib / 1024.0);
    }
}

/// Answered once each, and then silent.
fn idle(address: std::net::SocketAddr, count: usize) -> Vec<TcpStream> {
    let one = |_| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(b"GET /docs/x HTTP/1.1\r\nHost: api.example.test\r\n\r\n").expect("it reads");
        let mut answer = [0; 1024];
        assert!(stream.read(&mut answer).expect("it answers") > 0);
        stream
    };
    (0..count).map(one).collect()
}

fn connections() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("what is allowed can be had");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let world = tokio::runtime::Runtime::new().expect("a runtime").block_on(world::World::new(dir.path()));
    let work = load::Work { path: "/billing/invoices", credentials: Arc::clone(&world.keys), status: 200, tls: None };
    let ours = ours::gateway(&world, floor::upstream(), &work);
    println!("\n| connections that are idle beside 32 that are not | CPU µs a request, median (range) | to the first |\n|---|---|---|");
    let mut first = None;
    let mut held = Vec::new();
    for count in [10, 1000, 9900] {
        held.extend(idle(ours.plain, count - held.len()));
        load::run(ours.plain, &work, Duration::from_millis(500));
        let rounds = (0..ROUNDS).map(|_| {
            let before = ours.running.cpu();
            let measured = load::run(ours.plain, &work, Duration::from_secs(2));
            ours.running.cpu().saturating_sub(before).as_secs_f64() * 1e6 / measured.nanos.len() as f64
        });
        let [low, middle, high] = spread(rounds.collect());
        println!("| {count} | {middle:.1} ({low:.1}-{high:.1}) | {:.2} |", middle / *first.get_or_insert(middle));
    }
}

fn main() {
    sigmagate::tls::install_provider();
    let size = |routes, clients, practices| Size { routes, clients, practices };
    table(
        "clients, in 50 practices",
        &[("100", size(10, 100, 50)), ("10,000", size(10, 10_000, 50)), ("1,000,000", size(10, 1_000_000, 50))],
    );
    table("routes", &[("10", size(10, 1000, 50)), ("1,000", size(1000, 1000, 50)), ("10,000", size(10_000, 1000, 50))]);
    table("100,000 clients, in practices of", &[("one client", size(10, 100_000, 100_000)), ("100,000 clients", size(10, 100_000, 1))]);
    connections();
}
