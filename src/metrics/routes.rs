//! What is counted of requests, found by index: no text is compared and no lock is taken for a request.

use std::collections::HashSet;
use std::sync::OnceLock;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec};

use crate::access::Denial;
use crate::record::{ANSWERED, OAUTH_ERRORS, PERMIT, PERMIT_IN_GRACE, Record};
use crate::route::{Method, RouteTable};

/// The route of a request that found none.
const NO_ROUTE: &str = "none";
const CLASSES: [&str; 2] = ["safe", "unsafe"];

/// Handles for the requests of one route map.
pub struct RouteMetrics {
    outcomes: Vec<&'static str>,
    decisions: Vec<IntCounter>,
    /// By the place in the route file; the last is for requests without a route.
    routes: Vec<PerRoute>,
    requests: IntCounterVec,
    latency: HistogramVec,
    upstream_latency: HistogramVec,
}

struct PerRoute {
    label: Box<str>,
    /// By class and outcome. Made at the first use: most never occur.
    counters: Box<[OnceLock<IntCounter>]>,
    latency: OnceLock<Histogram>,
    upstream_latency: OnceLock<Histogram>,
}

impl RouteMetrics {
    pub(super) fn new(
        table: &RouteTable,
        before: Option<&Self>,
        [latency, upstream_latency]: [&HistogramVec; 2],
        requests: &IntCounterVec,
        decisions: &IntCounterVec,
    ) -> Self {
        let mut outcomes = vec![PERMIT, PERMIT_IN_GRACE, ANSWERED];
        outcomes.extend(OAUTH_ERRORS);
        outcomes.extend(Denial::every_label());
        let labels = table.routes().iter().map(|route| route.prefix.as_str()).chain([NO_ROUTE]);
        let per_route = |label: &str| PerRoute {
            label: label.into(),
            counters: (0..CLASSES.len() * outcomes.len()).map(|_| OnceLock::new()).collect(),
            latency: OnceLock::new(),
            upstream_latency: OnceLock::new(),
        };
        let routes: Vec<_> = labels.map(per_route).collect();
        if let Some(before) = before {
            let kept: HashSet<&str> = routes.iter().map(|route| &*route.label).collect();
            before.routes.iter().filter(|route| !kept.contains(&*route.label)).for_each(|route| before.remove(route));
        }
        let decisions = outcomes.iter().map(|outcome| decisions.with_label_values(&[outcome])).collect();
        let (latency, upstream_latency) = (latency.clone(), upstream_latency.clone());
        Self { outcomes, decisions, routes, requests: requests.clone(), latency, upstream_latency }
    }

    /// Counts a request.
    pub fn record(&self, record: &Record<'_>) {
        // Labels are constants: the same text is nearly always the same address.
        let at = self.outcomes.iter().position(|known| std::ptr::eq(*known, record.outcome));
        let Some(outcome) = at.or_else(|| self.outcomes.iter().position(|known| *known == record.outcome)) else { return };
        self.decisions[outcome].inc();
        let last = self.routes.len() - 1;
        // A request that began under another route map counts under the place that its route had, if that is still its.
        let of = |at: usize| self.routes.get(at).filter(|known| record.route.is_some_and(|route| route.prefix.as_str() == &*known.label));
        let route = record.route.and_then(|route| of(route.id.0 as usize)).unwrap_or(&self.routes[last]);
        let safe = matches!(Method::parse(record.method.as_bytes()), Some(Method::Get | Method::Head | Method::Options));
        let class = usize::from(!safe);
        let counter = route.counters[class * self.outcomes.len() + outcome]
            .get_or_init(|| self.requests.with_label_values(&[&*route.label, CLASSES[class], self.outcomes[outcome]]));
        counter.inc();
        route.latency.get_or_init(|| self.latency.with_label_values(&[&*route.label])).observe(record.latency.as_secs_f64());
        if let (Some(waited), Some(of)) = (record.upstream_latency, record.route) {
            let histogram = || self.upstream_latency.with_label_values(&[&*of.upstream.name]);
            route.upstream_latency.get_or_init(histogram).observe(waited.as_secs_f64());
        }
    }

    /// An error means that the series was never there.
    fn remove(&self, route: &PerRoute) {
        for class in CLASSES {
            for outcome in &self.outcomes {
                let _ = self.requests.remove_label_values(&[&*route.label, class, outcome]);
            }
        }
        let _ = self.latency.remove_label_values(&[&*route.label]);
    }
}
