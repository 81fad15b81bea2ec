//! Revocation, proven on real processes: gateways, a PostgreSQL, clients in tight loops, changes by every way there is,
//! and faults. The rule: nothing is admitted that began after the receipt. (`scripts/chaos` runs it for longer.)
//!
//! The seed is printed, and chooses the changes and the faults: `SIGMAGATE_CHAOS_SEED` runs the same ones again.
//! `SIGMAGATE_CHAOS_SECONDS` says for how long, `SIGMAGATE_CHAOS_GATEWAYS` how many gateways.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[allow(dead_code, reason = "others need more of it")]
mod fleet;
mod history;
#[allow(dead_code, reason = "other tests need more of it")]
mod link;
mod load;
#[path = "../support/postgres.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod postgres;
mod run;

use run::{Plan, run};

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: `{text}`")))
}

fn seed() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    setting("SIGMAGATE_CHAOS_SEED", since.subsec_nanos().into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_admitted_after_the_receipt_whatever_fails() {
    let plan = Plan {
        seed: seed(),
        seconds: setting("SIGMAGATE_CHAOS_SECONDS", 15),
        gateways: usize::try_from(setting("SIGMAGATE_CHAOS_GATEWAYS", 3)).unwrap(),
        planted: false,
    };
    let report = run(plan).await;
    println!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    assert!(report.changes > 0 && report.admitted > 0, "{report}");
}

/// The same run on gateways whose lease never ends, while the register says that it does: a checker that finds nothing
/// wrong with them could find nothing at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_that_do_not_keep_their_lease_are_caught() {
    let report = run(Plan { seed: seed(), seconds: 120, gateways: 2, planted: true }).await;
    println!("{} violations by the planted fault; seed {}", report.violations.len(), report.seed);
    assert!(!report.violations.is_empty(), "the planted fault was not found: {report}");
}
