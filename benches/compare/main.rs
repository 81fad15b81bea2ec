//! What the same work costs, done by the gateway and by what people run today: `scripts/compare`, or
//! `cargo bench --bench compare -- [--rounds N] [--seconds N] [--envoy PROGRAM] [--keep DIR] [--json FILE] [WORD]`.
//!
//! Every contender is a process of its own with one worker, in front of the same upstream (1 KiB answers, kept connections), with
//! the same 10,000 clients and six prefixes, under the same load: 32 requests under way, on kept connections. What it costs is
//! its user and system time, from the kernel's account of it, divided by the requests it answered. Each round measures every
//! contender once, so that what else the machine does meets all of them; medians and ranges are printed. With a word, only the
//! measurements with that word in their name are made, beside the floors. `--keep` leaves every configuration to be read.

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark prints what it measured, as ratios of counts"
)]

mod floor;
mod load;
mod lua;
mod ours;
mod peers;
mod process;
mod report;
mod world;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use load::Work;
use peers::Peer;
use process::Running;
use report::{Measurement, Program, Report};
use world::World;

const WARM_UP: Duration = Duration::from_millis(300);
const PATH: &str = "/billing/invoices";

/// What is measured of a program: the column of the table.
pub const COLUMNS: [&str; 9] = [
    "forward",
    "key 200",
    "key 401",
    "key 403",
    "bearer ES256",
    "bearer RS256",
    "bearer EdDSA",
    "forward, TLS and HTTP/2",
    "key, TLS and HTTP/2",
];

struct Options {
    rounds: usize,
    during: Duration,
    envoy: Option<PathBuf>,
    keep: Option<PathBuf>,
    json: Option<PathBuf>,
    word: Option<String>,
}

impl Options {
    fn read() -> Self {
        let mut options = Self { rounds: 3, during: Duration::from_secs(2), envoy: None, keep: None, json: None, word: None };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
            match &*arg {
                "--bench" => {}
                "--rounds" => options.rounds = value().parse().expect("--rounds takes a number"),
                "--seconds" => options.during = Duration::from_secs_f64(value().parse().expect("--seconds takes a number")),
                "--envoy" => options.envoy = Some(value().into()),
                "--keep" => options.keep = Some(value().into()),
                "--json" => options.json = Some(value().into()),
                word if !word.starts_with('-') => options.word = Some(word.to_owned()),
                other => panic!("unknown option {other}: see the head of benches/compare/main.rs"),
            }
        }
        options
    }
}

/// What one program is asked to do.
struct Task {
    program: usize,
    column: usize,
    address: SocketAddr,
    work: Work,
}

fn unchecked(upstream: SocketAddr, world: &World) -> (Running, SocketAddr, SocketAddr) {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.arg("--unchecked").arg(upstream.to_string()).arg(&world.certificate).arg(&world.private_key);
    let mut running = Running::spawn(command.stdout(Stdio::piped())).expect("the floor runs");
    let mut line = String::new();
    BufReader::new(running.child.stdout.take().expect("it is piped")).read_line(&mut line).expect("the floor says where it listens");
    let mut addresses = line.split_whitespace().map(|address| address.parse().expect("an address"));
    let mut next = || addresses.next().expect("two addresses");
    (running, next(), next())
}

/// What there is to measure, in the order of the columns.
fn tasks(programs: &mut Vec<Program>, world: &World, upstream: SocketAddr, envoy: Option<&PathBuf>) -> Vec<Task> {
    let mut tasks = Vec::new();
    let work = |path, credentials: &Arc<Vec<String>>, status, secure: bool| Work {
        path,
        credentials: Arc::clone(credentials),
        status,
        tls: secure.then(|| Arc::clone(&world.tls)),
    };
    let mut add = |program: usize, column: &str, address, work| {
        let column = COLUMNS.iter().position(|name| *name == column).expect("a column");
        tasks.push(Task { program, column, address, work });
    };

    let (running, plain, secure) = unchecked(upstream, world);
    programs.push(Program::new("pingora, unchecked", "0.9.1", running, plain, &work(PATH, &world.keys, 200, false)));
    add(0, "forward", plain, work(PATH, &world.keys, 200, false));
    add(0, "forward, TLS and HTTP/2", secure, work(PATH, &world.keys, 200, true));

    let key = work(PATH, &world.keys, 200, false);
    let ours = ours::gateway(world, upstream, &key);
    programs.push(Program::new("sigmagate", env!("CARGO_PKG_VERSION"), ours.running, ours.plain, &key));
    add(1, "forward", ours.plain, work("/docs/x", &world.keys, 200, false));
    add(1, "key 200", ours.plain, work(PATH, &world.keys, 200, false));
    add(1, "key 401", ours.plain, work(PATH, &world.wrong_keys, 401, false));
    add(1, "key 403", ours.plain, work("/clinical/x", &world.keys, 403, false));
    for (signed, column) in world.signed.iter().zip(["bearer ES256", "bearer RS256", "bearer EdDSA"]) {
        add(1, column, ours.plain, work(PATH, &signed.tokens, 200, false));
    }
    add(1, "forward, TLS and HTTP/2", ours.secure, work("/docs/x", &world.keys, 200, true));
    add(1, "key, TLS and HTTP/2", ours.secure, work(PATH, &world.keys, 200, true));

    // Each is ready before the next one starts, so that none is slowed down by another.
    let (nginx, lua) = (|| peers::nginx(world, upstream), || lua::nginx_lua(world, upstream));
    let (haproxy, envoy) = (|| peers::haproxy(world, upstream), || envoy.and_then(|program| peers::envoy(program, world, upstream)));
    let starts: [&dyn Fn() -> Option<Peer>; 4] = [&nginx, &lua, &haproxy, &envoy];
    for peer in starts.into_iter().filter_map(|start| start()) {
        let at = programs.len();
        add(at, "forward", peer.forward, work(PATH, &world.keys, 200, false));
        add(at, "key 200", peer.key, work(PATH, &world.keys, 200, false));
        add(at, "key 401", peer.key, work(PATH, &world.wrong_keys, 401, false));
        add(at, "key 403", peer.key, work("/clinical/x", &world.keys, 403, false));
        for (name, address) in &peer.bearer {
            let signed = world.signed.iter().find(|signed| signed.name == *name).expect("it is one of them");
            add(at, &format!("bearer {name}"), *address, work(PATH, &signed.tokens, 200, false));
        }
        add(at, "key, TLS and HTTP/2", peer.secure, work(PATH, &world.keys, 200, true));
        programs.push(Program::new(peer.name, &peer.version, peer.running, peer.key, &work(PATH, &world.keys, 200, false)));
    }
    tasks
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, upstream, certificate, key] = args.as_slice()
        && flag == "--unchecked"
    {
        return floor::run_unchecked(upstream.parse().expect("an address"), certificate, key);
    }
    let options = Options::read();
    sigmagate::tls::install_provider();
    let temporary = tempfile::tempdir().expect("a temporary folder");
    let dir = options.keep.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir).expect("the folder can be made");
    let upstream = floor::upstream();
    println!("making {} clients", world::CLIENTS);
    let world = tokio::runtime::Runtime::new().expect("a runtime").block_on(World::new(&dir));
    let mut programs = Vec::new();
    let mut tasks = tasks(&mut programs, &world, upstream, options.envoy.as_ref());
    if let Some(word) = &options.word {
        tasks.retain(|task| {
            task.program == 0 || format!("{} {}", programs[task.program].name, COLUMNS[task.column]).contains(word.as_str())
        });
    }
    let expected = (WARM_UP + options.during) * u32::try_from(options.rounds * tasks.len()).expect("a few");
    println!("{} measurements, {} rounds: some {} s", tasks.len(), options.rounds, expected.as_secs());

    let mut measurements: Vec<_> = tasks.iter().map(|task| Measurement::new(task.program, task.column)).collect();
    for _ in 0..options.rounds {
        for (task, measurement) in tasks.iter().zip(&mut measurements) {
            let running = &programs[task.program].running;
            load::run(task.address, &task.work, WARM_UP);
            let before = running.cpu();
            let measured = load::run(task.address, &task.work, options.during);
            measurement.add(running.cpu().saturating_sub(before), measured);
        }
    }
    let report = Report { programs: &programs, measurements: &measurements, rounds: options.rounds, during: options.during };
    report.print();
    if let Some(file) = &options.json {
        std::fs::write(file, report.json()).expect("the file can be written");
    }
}
