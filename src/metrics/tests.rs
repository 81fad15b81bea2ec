use std::time::Duration;

use super::*;
use crate::access::Denial;
use crate::clock::Timestamp;
use crate::record::Record;
use crate::route::{Requirement, RouteTable};

fn table(prefixes: &[&str]) -> RouteTable {
    let routes = prefixes.iter().enumerate().map(|(at, prefix)| crate::route::Route {
        id: crate::id::RouteId(u32::try_from(at).unwrap()),
        ..crate::route::tests_support::route(prefix, Requirement::Public)
    });
    RouteTable::new(routes.collect(), false).unwrap()
}

fn record<'a>(route: Option<&'a crate::route::Route>, outcome: &'static str) -> Record<'a> {
    Record {
        at: Timestamp(0),
        request_id: "id",
        peer: [127, 0, 0, 1].into(),
        version: "HTTP/1.1",
        method: "GET",
        path: "/",
        route,
        practice: None,
        client: None,
        outcome,
        status: 200,
        latency: Duration::from_millis(3),
        request_bytes: 0,
        response_bytes: 0,
    }
}

#[test]
fn a_request_is_counted_under_its_route_and_its_reason() {
    let metrics = Metrics::new();
    let table = table(&["/a", "/b"]);
    let routes = metrics.for_routes(&table, None);
    routes.record(&record(Some(&table.routes()[1]), "permit"));
    routes.record(&record(None, "no_route"));
    let text = metrics.encode();
    for line in [
        "sigmagate_requests_total{method=\"safe\",outcome=\"permit\",route=\"/b\"} 1",
        "sigmagate_requests_total{method=\"safe\",outcome=\"no_route\",route=\"none\"} 1",
        "sigmagate_decisions_total{reason=\"permit\"} 1",
        "sigmagate_decisions_total{reason=\"no_route\"} 1",
        "sigmagate_request_duration_seconds_count{route=\"/b\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    for label in Denial::every_label() {
        assert!(text.contains(&format!("sigmagate_decisions_total{{reason=\"{label}\"}}")), "{label}");
    }
}

#[test]
fn a_route_that_is_gone_takes_its_series_along() {
    let metrics = Metrics::new();
    let (old, new) = (table(&["/a", "/b"]), table(&["/b"]));
    let before = metrics.for_routes(&old, None);
    old.routes().iter().for_each(|route| before.record(&record(Some(route), "permit")));
    let after = metrics.for_routes(&new, Some(&before));
    // A request that began under the old map.
    after.record(&record(Some(&old.routes()[0]), "permit"));
    let text = metrics.encode();
    assert!(text.contains("route=\"/b\"") && !text.contains("route=\"/a\""), "{text}");
}
