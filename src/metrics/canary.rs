//! What the canary finds. In a fleet one node at a time has one, so these are to be looked at over all nodes.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{LATENCY_SECONDS, add};

/// The metrics of a canary.
pub struct CanaryMetrics {
    revocation: Histogram,
    runs: [IntCounter; 3],
    last_success: IntGauge,
}

/// What a run of the canary came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryOutcome {
    /// The key was admitted, then revoked, and refused since.
    Ok = 0,
    /// That could not be shown.
    Failed = 1,
    /// It was admitted after the receipt for its revocation.
    AdmittedAfterReceipt = 2,
}

impl CanaryMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        // A node that does not answer is waited for until its lease is over, which may be long.
        let buckets = LATENCY_SECONDS.into_iter().chain([30.0, 60.0, 300.0]).collect();
        let revocation = HistogramOpts::new(
            "sigmagate_canary_revocation_seconds",
            "From the commit of the canary's revocation to its receipt: in force on the whole fleet.",
        );
        let runs = Opts::new(
            "sigmagate_canary_runs_total",
            "Runs of the canary on this node: ok, failed, or admitted_after_receipt, which must never be. Nodes that stand by count none.",
        );
        let runs = add(registry, IntCounterVec::new(runs, &["outcome"]));
        let last_success =
            IntGauge::new("sigmagate_canary_last_success_timestamp_seconds", "When a run on this node was last ok; 0: never.");
        Self {
            revocation: add(registry, Histogram::with_opts(revocation.buckets(buckets))),
            runs: ["ok", "failed", "admitted_after_receipt"].map(|outcome| runs.with_label_values(&[outcome])),
            last_success: add(registry, last_success),
        }
    }

    /// The receipt for a revocation came so long after its commit.
    pub fn revoked(&self, waited: Duration) {
        self.revocation.observe(waited.as_secs_f64());
    }

    /// A run has ended.
    pub fn ran(&self, outcome: CanaryOutcome) {
        self.runs[outcome as usize].inc();
        if outcome == CanaryOutcome::Ok {
            self.last_success.set(crate::clock::now().0 / 1000);
        }
    }
}
