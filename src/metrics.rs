//! Every metric, its help text and its labels.
//!
//! Labels are bounded: `route` by the prefixes of the route map and `none`, `upstream` by the names in it, `reason` and `outcome` by the labels of the denials
//! and `permit`, `method` by `safe` and `unsafe`, the rest by the few words that stand here.

mod canary;
mod certificates;
mod heartbeats;
mod mail;
mod process;
mod routes;
mod tokens;
mod upstreams;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::cache::Entries;
use crate::clock::BootTime;
use crate::id::Revision;
use crate::jwks::Fetched;
use crate::route::RouteTable;
use crate::upstream::Upstream;

pub use canary::{CanaryMetrics, CanaryOutcome};
pub use certificates::CertificateMetrics;
pub use mail::{MailMetrics, MailOutcome};
pub use routes::RouteMetrics;
pub use tokens::TokenFigures;

/// From half a millisecond to ten seconds.
const LATENCY_SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// The metrics of one gateway, in a registry of their own.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    latency: HistogramVec,
    decisions: IntCounterVec,
    entries: [IntGauge; 3],
    connections: IntGauge,
    in_flight: IntGauge,
    tasks: IntGauge,
    feed_state: IntGauge,
    feed_revision: IntGauge,
    polls: [IntCounter; 2],
    apply: Histogram,
    propagation: Histogram,
    heartbeats: heartbeats::Heartbeats,
    lease: Gauge,
    lease_source: Mutex<Option<Source<f64>>>,
    active_source: Mutex<Option<Source<(usize, usize)>>>,
    tasks_source: Mutex<Option<Source<usize>>>,
    untold: IntCounter,
    untold_source: Mutex<Option<Source<u64>>>,
    generation: IntGauge,
    last_reload: IntGauge,
    reloads: [IntCounter; 2],
    dropped: IntCounter,
    process: process::Process,
    tokens: tokens::Tokens,
    mail: Arc<MailMetrics>,
    certificates: CertificateMetrics,
    upstreams: upstreams::Upstreams,
}

type Source<T> = Box<dyn Fn() -> T + Send + Sync>;

impl Metrics {
    /// The metrics, all at zero.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let counters = |name: &str, help: &str, labels: &[&str]| add(&registry, IntCounterVec::new(Opts::new(name, help), labels));
        let counter = |name: &str, help: &str| add(&registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| add(&registry, IntGauge::new(name, help));
        let latency = HistogramOpts::new(
            "sigmagate_request_duration_seconds",
            "From the complete request header to the end of the answer, by route.",
        )
        .buckets(LATENCY_SECONDS.to_vec());
        let apply = HistogramOpts::new(
            "sigmagate_feed_apply_seconds",
            "From asking the store to having its answer in force, for answers with changes.",
        )
        .buckets(LATENCY_SECONDS.to_vec());
        let propagation = HistogramOpts::new(
            "sigmagate_revocation_propagation_seconds",
            "From the commit of a change, by the database's clock, to its being in force on this node.",
        )
        .buckets(LATENCY_SECONDS.to_vec());
        let entries = add(&registry, IntGaugeVec::new(Opts::new("sigmagate_cache_entries", "Entities in the replica."), &["kind"]));
        let polls = counters("sigmagate_feed_polls_total", "Questions to the store.", &["result"]);
        let reloads = counters("sigmagate_config_reloads_total", "Route maps taken up or refused.", &["result"]);
        let build = add(&registry, IntGaugeVec::new(Opts::new("sigmagate_build_info", "Always 1; the version is a label."), &["version"]));
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let metrics = Self {
            requests: counters(
                "sigmagate_requests_total",
                "Requests, by route, class of method and outcome.",
                &["route", "method", "outcome"],
            ),
            latency: add(&registry, HistogramVec::new(latency, &["route"])),
            decisions: counters("sigmagate_decisions_total", "Requests, by the exact reason of the answer.", &["reason"]),
            entries: ["practice", "user", "client"].map(|kind| entries.with_label_values(&[kind])),
            connections: gauge("sigmagate_connections", "Open connections of applications."),
            in_flight: gauge("sigmagate_requests_in_flight", "Requests that are being answered."),
            tasks: gauge(
                "sigmagate_tasks",
                "Tasks of the runtimes: a few, and one for each connection of an application or to an upstream.",
            ),
            feed_state: gauge("sigmagate_feed_state", "0 joining, 1 live, 2 stale: nobody is admitted."),
            feed_revision: gauge("sigmagate_feed_revision", "The newest change in force."),
            polls: ["ok", "failed"].map(|result| polls.with_label_values(&[result])),
            apply: add(&registry, Histogram::with_opts(apply)),
            propagation: add(&registry, Histogram::with_opts(propagation)),
            heartbeats: heartbeats::Heartbeats::new(&registry),
            lease: add(
                &registry,
                Gauge::new(
                    "sigmagate_lease_remaining_seconds",
                    "For how long the replica may still be believed without hearing from the store.",
                ),
            ),
            lease_source: Mutex::new(None),
            active_source: Mutex::new(None),
            tasks_source: Mutex::new(None),
            untold: counter(
                "sigmagate_denials_untold_total",
                "Refusals that are counted but not told of one by one, since there were more than 2000 within 5 seconds.",
            ),
            untold_source: Mutex::new(None),
            generation: gauge("sigmagate_config_generation", "How many route maps have been taken up."),
            last_reload: gauge("sigmagate_config_last_reload_timestamp_seconds", "When the route map in force was taken up."),
            reloads: ["ok", "refused"].map(|result| reloads.with_label_values(&[result])),
            dropped: counter(
                "sigmagate_access_log_dropped_total",
                "Requests that the access log has no line of, since its reader was too slow.",
            ),
            process: process::Process::new(&registry),
            tokens: tokens::Tokens::new(&registry),
            mail: Arc::new(MailMetrics::new(&registry)),
            certificates: CertificateMetrics::new(&registry),
            upstreams: upstreams::Upstreams::new(&registry),
            registry: registry.clone(),
        };
        Arc::new(metrics)
    }

    /// Handles for the routes of a table, resolved as they are first used. Series of routes that are gone are removed.
    #[must_use]
    pub fn for_routes(&self, table: &RouteTable, before: Option<&RouteMetrics>) -> RouteMetrics {
        RouteMetrics::new(table, before, [&self.latency, &self.upstreams.latency], &self.requests, &self.decisions)
    }

    /// The metrics of the canary, which are shown from now on. To be called once.
    #[must_use]
    pub fn canary(&self) -> CanaryMetrics {
        CanaryMetrics::new(&self.registry)
    }

    /// The metrics of mails.
    #[must_use]
    pub fn mail(&self) -> Arc<MailMetrics> {
        Arc::clone(&self.mail)
    }

    /// The upstreams of the route map, which are read when the metrics are.
    pub fn watch_upstreams<'a>(&self, upstreams: impl Iterator<Item = &'a Arc<Upstream>>) {
        self.upstreams.watch(upstreams);
    }

    /// The metrics of certificates.
    #[must_use]
    pub const fn certificates(&self) -> &CertificateMetrics {
        &self.certificates
    }

    /// The store has answered.
    pub fn feed_live(&self, revision: Revision, entries: Option<Entries>) {
        self.polls[0].inc();
        self.feed_state.set(1);
        self.feed_revision.set(i64::try_from(revision.0).unwrap_or(i64::MAX));
        if let Some(entries) = entries {
            self.hold(entries);
        }
    }

    /// Changes are in force, by the line that does not vouch.
    pub fn feed_applied(&self, revision: Revision, entries: Entries) {
        self.feed_revision.set(i64::try_from(revision.0).unwrap_or(i64::MAX));
        self.hold(entries);
    }

    /// Changes are in force, so long after they were asked for, and after the oldest of them was committed.
    pub fn feed_took(&self, asked: Duration, committed: Option<Duration>) {
        self.apply.observe(asked.as_secs_f64());
        if let Some(committed) = committed {
            self.propagation.observe(committed.as_secs_f64());
        }
    }

    fn hold(&self, entries: Entries) {
        for (gauge, count) in self.entries.iter().zip([entries.practices, entries.users, entries.clients]) {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// The store has not answered.
    pub fn feed_failed(&self) {
        self.polls[1].inc();
    }

    /// The store has answered a heartbeat after `took`: what was committed until `asked` is in force, and the fleet has so
    /// many nodes.
    pub fn heartbeat_answered(&self, asked: BootTime, took: Duration, nodes: usize) {
        self.heartbeats.answered(asked, took, nodes);
    }

    /// A heartbeat has failed; or has found, `deposed`, that the node was out of the register.
    pub fn heartbeat_failed(&self, deposed: bool) {
        self.heartbeats.failed(deposed);
    }

    /// The lease has run out.
    pub fn feed_stale(&self) {
        self.feed_state.set(2);
    }

    /// A route map was taken up, or refused while `generation` stays in force.
    pub fn reload(&self, taken: bool, generation: u64) {
        self.reloads[usize::from(!taken)].inc();
        if taken {
            self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
            self.last_reload.set(crate::clock::now().0 / 1000);
        }
    }

    /// A request that the access log has no line of.
    pub fn access_log_dropped(&self) {
        self.dropped.inc();
    }

    /// Where the time left of the lease, in seconds, is read when the metrics are.
    pub fn set_lease_source(&self, source: impl Fn() -> f64 + Send + Sync + 'static) {
        *self.lease_source.lock() = Some(Box::new(source));
    }

    /// Where the open connections and the requests under way are read when the metrics are.
    pub fn set_active_source(&self, source: impl Fn() -> (usize, usize) + Send + Sync + 'static) {
        *self.active_source.lock() = Some(Box::new(source));
    }

    /// Where the tasks are counted when the metrics are read.
    pub fn set_tasks_source(&self, source: impl Fn() -> usize + Send + Sync + 'static) {
        *self.tasks_source.lock() = Some(Box::new(source));
    }

    /// Where the refusals that are not told of are read when the metrics are. Their number must not become less.
    pub fn set_untold_source(&self, source: impl Fn() -> u64 + Send + Sync + 'static) {
        *self.untold_source.lock() = Some(Box::new(source));
    }

    /// The keys of a trusted issuer were fetched, or were to be.
    pub fn keys_fetched(&self, issuer: &str, fetched: Fetched) {
        self.tokens.fetched(issuer, fetched);
    }

    /// Where the figures about tokens are read when the metrics are.
    pub fn set_tokens_source(&self, source: impl Fn() -> TokenFigures + Send + Sync + 'static) {
        *self.tokens.source.lock() = Some(Box::new(source));
    }

    /// Everything in Prometheus' text format, version 0.0.4.
    #[must_use]
    pub fn encode(&self) -> String {
        if let Some(lease) = &*self.lease_source.lock() {
            self.lease.set(lease());
        }
        if let Some(active) = &*self.active_source.lock() {
            let (connections, requests) = active();
            self.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
            self.in_flight.set(i64::try_from(requests).unwrap_or(i64::MAX));
        }
        if let Some(tasks) = &*self.tasks_source.lock() {
            self.tasks.set(i64::try_from(tasks()).unwrap_or(i64::MAX));
        }
        if let Some(untold) = &*self.untold_source.lock() {
            self.untold.inc_by(untold().saturating_sub(self.untold.get()));
        }
        self.heartbeats.read();
        self.process.read();
        self.tokens.read();
        self.mail.read();
        self.upstreams.read();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("metrics with valid names encode");
        String::from_utf8(text).expect("the text format is UTF-8")
    }
}

/// Registers a metric. Names and labels are constants, so what could be wrong with them would be wrong always.
fn add<C: prometheus::core::Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<C>) -> C {
    let metric = metric.expect("the name and the labels of a metric are valid");
    registry.register(Box::new(metric.clone())).expect("no two metrics have one name");
    metric
}

#[cfg(test)]
mod tests;
