//! What was measured, as tables and as JSON.

use std::net::SocketAddr;
use std::time::Duration;

use super::COLUMNS;
use super::load::{self, CONNECTIONS, Measured, Work};
use super::process::Running;
use super::world::CLIENTS;

pub struct Program {
    pub name: String,
    version: String,
    pub running: Running,
    /// From its start to its first answer.
    first_answer: Duration,
    resident_at_rest_kib: u64,
}

impl Program {
    /// A program that has just been started: waits for its first answer.
    pub fn new(name: &str, version: &str, running: Running, address: SocketAddr, work: &Work) -> Self {
        load::first(address, work);
        let first_answer = running.age();
        // What it does beside is done, and what it has freed is given back.
        std::thread::sleep(Duration::from_secs(2));
        let resident_at_rest_kib = running.resident_kib();
        Self { name: name.to_owned(), version: version.to_owned(), running, first_answer, resident_at_rest_kib }
    }
}

/// One program at one kind of work, a value for each round.
pub struct Measurement {
    program: usize,
    column: usize,
    cpu_micros: Vec<f64>,
    per_second: Vec<f64>,
    p50_micros: Vec<f64>,
    p99_micros: Vec<f64>,
}

/// The least, the middle and the most.
fn spread(values: &[f64]) -> [f64; 3] {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    [sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1]]
}

impl Measurement {
    pub fn new(program: usize, column: usize) -> Self {
        Self { program, column, cpu_micros: vec![], per_second: vec![], p50_micros: vec![], p99_micros: vec![] }
    }

    pub fn add(&mut self, cpu: Duration, measured: Measured) {
        let Measured { mut nanos, elapsed } = measured;
        nanos.sort_unstable();
        let count = nanos.len() as f64;
        let at = |part: f64| nanos[((count - 1.0) * part) as usize] as f64 / 1000.0;
        self.cpu_micros.push(cpu.as_secs_f64() * 1e6 / count);
        self.per_second.push(count / elapsed.as_secs_f64());
        self.p50_micros.push(at(0.5));
        self.p99_micros.push(at(0.99));
    }
}

pub struct Report<'a> {
    pub programs: &'a [Program],
    pub measurements: &'a [Measurement],
    pub rounds: usize,
    pub during: Duration,
}

impl Report<'_> {
    fn find(&self, program: usize, column: usize) -> Option<&Measurement> {
        self.measurements.iter().find(|m| (m.program, m.column) == (program, column))
    }

    fn table(&self, title: &str, cell: impl Fn(&Measurement) -> String) {
        println!("\n| {title} | {} |\n|{}", COLUMNS.join(" | "), "---|".repeat(COLUMNS.len() + 1));
        for (at, program) in self.programs.iter().enumerate() {
            let cells: Vec<_> = (0..COLUMNS.len()).map(|column| self.find(at, column).map_or_else(|| "-".to_owned(), &cell)).collect();
            println!("| {} | {} |", program.name, cells.join(" | "));
        }
    }

    pub fn print(&self) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!(
            "\n{cores} cores; one worker each; {CONNECTIONS} requests under way; {CLIENTS} clients; 1 KiB answers; {} rounds of {} s, in turn",
            self.rounds,
            self.during.as_secs_f64()
        );
        self.table("CPU µs a request, median (range)", |m| {
            let [low, middle, high] = spread(&m.cpu_micros);
            format!("{middle:.1} ({low:.1}-{high:.1})")
        });
        self.table("requests/s; p50 and p99 in µs", |m| {
            format!("{:.0}; {:.0}, {:.0}", spread(&m.per_second)[1], spread(&m.p50_micros)[1], spread(&m.p99_micros)[1])
        });
        println!("\n| | version | first answer after ms | resident KiB, at rest | after all of it |\n|---|---|---|---|---|");
        for Program { name, version, running, first_answer, resident_at_rest_kib } in self.programs {
            let (ready, after) = (first_answer.as_millis(), running.resident_kib());
            println!("| {name} | {version} | {ready} | {resident_at_rest_kib} | {after} |");
        }
    }

    pub fn json(&self) -> String {
        let programs = self.programs.iter().enumerate().map(|(at, program)| {
            let measured = self.measurements.iter().filter(|m| m.program == at).map(|m| {
                serde_json::json!({
                    "work": COLUMNS[m.column], "cpu_micros": m.cpu_micros, "requests_per_second": m.per_second,
                    "p50_micros": m.p50_micros, "p99_micros": m.p99_micros,
                })
            });
            serde_json::json!({
                "name": program.name, "version": program.version, "first_answer_millis": program.first_answer.as_millis() as u64,
                "resident_at_rest_kib": program.resident_at_rest_kib, "resident_kib": program.running.resident_kib(),
                "measured": measured.collect::<Vec<_>>(),
            })
        });
        serde_json::json!({
            "rounds": self.rounds, "seconds": self.during.as_secs_f64(), "requests_under_way": CONNECTIONS, "clients": CLIENTS,
            "programs": programs.collect::<Vec<_>>(),
        })
        .to_string()
    }
}
