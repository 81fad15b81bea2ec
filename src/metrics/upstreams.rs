//! Upstreams: how their servers are, what is under way, and how connections and retries went.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use super::{LATENCY_SECONDS, add};
use crate::clock;
use crate::upstream::{State, Upstream};

/// How many things are counted of an upstream: see [`counts`].
const COUNTS: usize = 5;

/// The metrics of upstreams. `upstream` is bounded by the names in the route map.
pub(super) struct Upstreams {
    servers: IntGaugeVec,
    in_flight: IntGaugeVec,
    connections: IntCounterVec,
    retries: IntCounterVec,
    refused: IntCounterVec,
    pub(super) latency: HistogramVec,
    known: Mutex<HashMap<Arc<str>, Known>>,
}

struct Known {
    upstream: Arc<Upstream>,
    /// What of its counts is in the metrics.
    told: [u64; COUNTS],
}

fn counts(upstream: &Upstream) -> [u64; COUNTS] {
    let counts = upstream.counts();
    [&counts.connected, &counts.reused, &counts.retried, &counts.withheld, &counts.refused].map(|count| count.load(Ordering::Relaxed))
}

impl Upstreams {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauges = |name: &str, help: &str, labels: &[&str]| add(registry, IntGaugeVec::new(Opts::new(name, help), labels));
        let counters = |name: &str, help: &str, labels: &[&str]| add(registry, IntCounterVec::new(Opts::new(name, help), labels));
        let latency = HistogramOpts::new(
            "sigmagate_upstream_latency_seconds",
            "From asking an upstream to the header of its answer; of a request that was tried again, the last time.",
        );
        Self {
            servers: gauges("sigmagate_upstream_servers", "Servers of an upstream, by how they are.", &["upstream", "state"]),
            in_flight: gauges("sigmagate_upstream_requests_in_flight", "Requests under way to an upstream.", &["upstream"]),
            connections: counters(
                "sigmagate_upstream_connections_total",
                "Requests to an upstream, by whether a connection was made for it or one was there.",
                &["upstream", "connection"],
            ),
            retries: counters(
                "sigmagate_upstream_retries_total",
                "Requests that were tried again, or would have been if retry_percent allowed it.",
                &["upstream", "result"],
            ),
            refused: counters(
                "sigmagate_upstream_refused_total",
                "Requests refused since max_requests of the upstream were under way.",
                &["upstream"],
            ),
            latency: add(registry, HistogramVec::new(latency.buckets(LATENCY_SECONDS.to_vec()), &["upstream"])),
            known: Mutex::default(),
        }
    }

    /// From now on these are read. Series of those that are gone are removed.
    pub(super) fn watch<'a>(&self, upstreams: impl Iterator<Item = &'a Arc<Upstream>>) {
        self.read();
        let mut known = self.known.lock();
        let mut before = std::mem::take(&mut *known);
        for upstream in upstreams {
            let told = before.remove(&upstream.name).filter(|known| Arc::ptr_eq(&known.upstream, upstream)).map_or([0; COUNTS], |k| k.told);
            known.insert(Arc::clone(&upstream.name), Known { upstream: Arc::clone(upstream), told });
        }
        for name in before.keys() {
            let name = &**name;
            let servers = State::EVERY.map(|state| self.servers.remove_label_values(&[name, state.label()]));
            let connections = ["made", "reused"].map(|how| self.connections.remove_label_values(&[name, how]));
            let retries = ["retried", "withheld"].map(|how| self.retries.remove_label_values(&[name, how]));
            let rest = [
                self.in_flight.remove_label_values(&[name]),
                self.refused.remove_label_values(&[name]),
                self.latency.remove_label_values(&[name]),
            ];
            // An error means that the series was never there.
            let _ = (servers, connections, retries, rest);
        }
    }

    pub(super) fn read(&self) {
        let now = clock::boot_time();
        for (name, known) in self.known.lock().iter_mut() {
            let servers = known.upstream.servers();
            for state in State::EVERY {
                let count = servers.iter().filter(|server| server.state(now) == state).count();
                self.servers.with_label_values(&[&**name, state.label()]).set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            let in_flight = i64::try_from(known.upstream.under_way()).unwrap_or(i64::MAX);
            self.in_flight.with_label_values(&[&**name]).set(in_flight);
            let counts = counts(&known.upstream);
            let counters = [
                self.connections.with_label_values(&[&**name, "made"]),
                self.connections.with_label_values(&[&**name, "reused"]),
                self.retries.with_label_values(&[&**name, "retried"]),
                self.retries.with_label_values(&[&**name, "withheld"]),
                self.refused.with_label_values(&[&**name]),
            ];
            for ((counter, count), told) in counters.iter().zip(counts).zip(known.told) {
                counter.inc_by(count.saturating_sub(told));
            }
            known.told = counts;
        }
    }
}
