//! How the node keeps up with the store, and with how many others.

use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{LATENCY_SECONDS, add};
use crate::clock::{BootTime, boot_time};

pub(super) struct Heartbeats {
    counts: [IntCounter; 3],
    seconds: Histogram,
    nodes: IntGauge,
    lag: Gauge,
    /// When the newest question that was answered was asked; at first, when there was nothing to ask yet.
    asked: Mutex<BootTime>,
}

impl Heartbeats {
    pub(super) fn new(registry: &Registry) -> Self {
        let counts = Opts::new(
            "sigmagate_heartbeats_total",
            "Proofs of being current: ok, failed, or deposed, which is to have been taken out of the register.",
        );
        let counts = add(registry, IntCounterVec::new(counts, &["outcome"]));
        let seconds = HistogramOpts::new("sigmagate_heartbeat_seconds", "From asking the store to its answer, for answers that came.")
            .buckets(LATENCY_SECONDS.to_vec());
        Self {
            counts: ["ok", "failed", "deposed"].map(|outcome| counts.with_label_values(&[outcome])),
            seconds: add(registry, Histogram::with_opts(seconds)),
            nodes: add(registry, IntGauge::new("sigmagate_nodes", "Gateways in the register, as this one last saw it; 1 for SQLite.")),
            // Not a number of changes: a node learns of the head and of the changes up to it in one answer, so that number
            // is 0 whenever it can be told, and when the node is cut off it cannot be.
            lag: add(
                registry,
                Gauge::new(
                    "sigmagate_feed_lag_seconds",
                    "Every change that was committed longer ago than this is in force on this node. Grows while the store does not answer.",
                ),
            ),
            asked: Mutex::new(boot_time()),
        }
    }

    pub(super) fn answered(&self, asked: BootTime, took: Duration, nodes: usize) {
        self.counts[0].inc();
        self.seconds.observe(took.as_secs_f64());
        self.nodes.set(i64::try_from(nodes).unwrap_or(i64::MAX));
        *self.asked.lock() = asked;
    }

    pub(super) fn failed(&self, deposed: bool) {
        self.counts[if deposed { 2 } else { 1 }].inc();
    }

    /// Works out what depends on the moment at which it is read.
    pub(super) fn read(&self) {
        self.lag.set(boot_time().since(*self.asked.lock()).as_secs_f64());
    }
}
