//! How many instructions a decision takes, counted by valgrind and held to a bound: counts repeat where times do not.
//! `cargo bench --profile instructions --bench instructions`, which `scripts/test` does.
//!
//! This program runs itself under callgrind, twice for each kind of decision, and divides the difference by that of the
//! numbers of decisions: what it costs to start is in neither. Seeds of hash maps and the processor that valgrind shows to the
//! libraries move the counts by some percent from run to run and from machine to machine; the bounds leave room for that.

#![allow(missing_docs, clippy::print_stdout, clippy::cast_possible_truncation, dead_code, reason = "a benchmark")]

#[path = "support/gate.rs"]
mod gate;

use std::hint::black_box;
use std::process::{Command, ExitCode};

use gate::{Size, request, world};
use sigmagate::credential::Secret;

/// Decisions in the first run, and in the second.
const RUNS: [u64; 2] = [1000, 3000];

/// The kinds of decisions, each with the most instructions that one may take.
const BOUNDS: [(&str, u64); 5] = [("key 200", 9000), ("token 200", 9000), ("key 401", 9000), ("key 403", 9000), ("key 404", 3000)];

/// Makes so many decisions of a kind.
fn decide(kind: &str, count: u64) {
    sigmagate::tls::install_provider();
    let world = world(Size { routes: 100, clients: 100, practices: 10 });
    let target = world.target();
    let (authorization, target) = match kind {
        "token 200" => (world.token.clone(), target),
        "key 401" => (gate::basic(&format!("smd_{}", "z".repeat(20)), Secret::generate().reveal()), target),
        "key 403" => (world.basic(50), "/api/clinical/patients/17".to_owned()),
        "key 404" => (world.basic(50), "/nowhere/at/all".to_owned()),
        _ => (world.basic(50), target),
    };
    let request = request(&authorization, &target);
    let status = |outcome: Result<_, sigmagate::access::Denial>| outcome.map_or_else(|denial| denial.status(), |_| 200);
    assert!(kind.ends_with(&status(world.gate.decide(&request).outcome).to_string()), "{kind}");
    for _ in 0..count {
        black_box(world.gate.decide(black_box(&request)).outcome.is_ok());
    }
}

/// The instructions of one run.
fn counted(kind: &str, count: u64) -> Result<u64, String> {
    let program = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).args(["--one", kind, &count.to_string()]);
    let output =
        command.output().map_err(|error| format!("valgrind cannot be run: {error}; on Debian, `apt-get install valgrind` installs it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find_map(|line| line.split_once("Collected :")).filter(|_| output.status.success());
    line.and_then(|(_, count)| count.trim().parse().ok()).ok_or_else(|| format!("valgrind failed at `{kind}`: {said}"))
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, kind, count] = args.as_slice()
        && flag == "--one"
    {
        decide(kind, count.parse().expect("a number"));
        return ExitCode::SUCCESS;
    }
    let mut code = ExitCode::SUCCESS;
    println!("| a decision | instructions | at most |\n|---|---|---|");
    for (kind, bound) in BOUNDS {
        match counted(kind, RUNS[0]).and_then(|few| Ok((few, counted(kind, RUNS[1])?))) {
            Ok((few, many)) => {
                let each = many.saturating_sub(few) / (RUNS[1] - RUNS[0]);
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
