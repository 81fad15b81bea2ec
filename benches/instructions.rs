//! How many instructions a decision takes, counted by valgrind and held to a bound: counts repeat where times do not.
//! `cargo bench --profile instructions --bench instructions`, which `scripts/test` does.
//!
//! This program runs itself under callgrind for each kind of decision; only what the decisions take is counted. Seeds of hash
//! maps and the processor that valgrind shows to the libraries move the counts by some percent from run to run and from machine
//! to machine; the bounds leave room for that.

#![allow(missing_docs, clippy::print_stdout, clippy::cast_possible_truncation, dead_code, reason = "a benchmark")]

#[path = "support/gate.rs"]
mod gate;

use std::hint::black_box;
use std::process::{Command, ExitCode};

use gate::{Size, request, world};
use sigmagate::credential::Secret;
use sigmagate::gate::{Gate, Request};

/// Decisions in a run.
const DECISIONS: u64 = 1000;

/// The kinds of decisions, each with the most instructions that one may take.
const BOUNDS: [(&str, u64); 5] = [("key 200", 13_700), ("token 200", 10_400), ("key 401", 13_100), ("key 403", 12_200), ("key 404", 1700)];

/// What is counted. Its name is how callgrind finds it.
#[inline(never)]
fn decisions_in_a_row(gate: &Gate, request: &Request<'_>) {
    for _ in 0..DECISIONS {
        black_box(gate.decide(black_box(request)).outcome.is_ok());
    }
}

/// Makes decisions of a kind.
fn decide(kind: &str) {
    sigmagate::tls::install_provider();
    let world = world(Size { routes: 100, clients: 100, practices: 10 });
    let target = world.target();
    let (authorization, target) = match kind {
        "token 200" => (world.token.clone(), target),
        "key 401" => (gate::basic(&format!("smd_{}", "z".repeat(20)), Secret::generate().reveal()), target),
        "key 403" => (world.basic(50), gate::forbidden(100)),
        "key 404" => (world.basic(50), "/nowhere/at/all".to_owned()),
        _ => (world.basic(50), target),
    };
    let request = request(&authorization, &target);
    let status = |outcome: Result<_, sigmagate::access::Denial>| outcome.map_or_else(|denial| denial.status(), |_| 200);
    assert!(kind.ends_with(&status(world.gate.decide(&request).outcome).to_string()), "{kind}");
    decisions_in_a_row(&world.gate, &request);
}

/// The instructions of one decision.
fn counted(kind: &str) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*decisions_in_a_row*"]);
    command.arg(program).args(["--one", kind]);
    let output =
        command.output().map_err(|error| format!("valgrind cannot be run: {error}; on Debian, `apt-get install valgrind` installs it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.split_once("Collected :")).filter(|_| output.status.success());
    let counted = line.and_then(|(_, count)| count.trim().parse::<u64>().ok()).filter(|count| *count > 0);
    counted.map(|count| count / DECISIONS).ok_or_else(|| format!("valgrind failed at `{kind}`: {said}"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, kind] = args.as_slice()
        && flag == "--one"
    {
        decide(kind);
        return ExitCode::SUCCESS;
    }
    let mut code = ExitCode::SUCCESS;
    println!("| a decision | instructions | at most |\n|---|---|---|");
    for (kind, bound) in BOUNDS {
        match counted(kind) {
            Ok(each) => {
                println!("| {kind} | {each} | {bound} |");
                if each > bound {
                    eprintln!(
                        "error: `{kind}` takes {each} instructions, more than {bound}: make it cheaper, or raise its bound in benches/instructions.rs and say why"
                    );
                    code = ExitCode::FAILURE;
                } else if each < bound / 2 {
                    eprintln!(
                        "error: `{kind}` takes {each} instructions, not half of {bound}: lower its bound in benches/instructions.rs, so that it stays so"
                    );
                    code = ExitCode::FAILURE;
                }
            }
            Err(why) => {
                eprintln!("error: {why}");
                return ExitCode::FAILURE;
            }
        }
    }
    code
}
