use std::time::Duration;

use super::*;
use crate::access::Denial;
use crate::clock::{Timestamp, boot_time};
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
        user: None,
        owner: None,
        generation: None,
        ended: None,
        outcome,
        status: 200,
        latency: Duration::from_millis(3),
        upstream_latency: None,
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

/// The value of a series.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("{series} in {text}")).parse().unwrap()
}

#[test]
fn heartbeats_are_counted_and_the_lag_is_since_the_last_that_was_answered() {
    let metrics = Metrics::new();
    metrics.heartbeat_answered(BootTime(0), Duration::from_millis(3), 3);
    metrics.heartbeat_failed(false);
    metrics.heartbeat_failed(true);
    metrics.heartbeat_failed(true);
    let text = metrics.encode();
    for (series, count) in [
        ("sigmagate_heartbeats_total{outcome=\"ok\"}", 1.0),
        ("sigmagate_heartbeats_total{outcome=\"failed\"}", 1.0),
        ("sigmagate_heartbeats_total{outcome=\"deposed\"}", 2.0),
        ("sigmagate_heartbeat_seconds_count", 1.0),
        ("sigmagate_heartbeat_seconds_bucket{le=\"0.005\"}", 1.0),
        ("sigmagate_heartbeat_seconds_bucket{le=\"0.0025\"}", 0.0),
        ("sigmagate_nodes", 3.0),
    ] {
        assert!((value(&text, series) - count).abs() < 0.5, "{series} {text}");
    }
    let since_boot = value(&text, "sigmagate_feed_lag_seconds");
    assert!(since_boot > 0.0 && value(&metrics.encode(), "sigmagate_feed_lag_seconds") >= since_boot, "it grows by itself");
    metrics.heartbeat_answered(boot_time(), Duration::ZERO, 2);
    let text = metrics.encode();
    assert!(value(&text, "sigmagate_feed_lag_seconds") < since_boot);
    assert!((value(&text, "sigmagate_nodes") - 2.0).abs() < 0.5);
}

#[test]
fn mails_are_counted_by_what_became_of_them_and_the_oldest_that_waits_grows_older() {
    let metrics = Metrics::new();
    let mail = metrics.mail();
    for (outcome, result) in [(MailOutcome::Sent, "sent"), (MailOutcome::Retried, "retried"), (MailOutcome::GivenUp, "given_up")] {
        mail.tried("access_approved", outcome);
        let series = format!("sigmagate_mail_sent_total{{kind=\"access_approved\",result=\"{result}\"}}");
        assert!((value(&metrics.encode(), &series) - 1.0).abs() < 0.5, "{series}");
    }
    let age = || value(&metrics.encode(), "sigmagate_mail_oldest_age_seconds");
    assert!(age() < f64::EPSILON, "none waits");
    mail.waiting(3, Some(Timestamp(crate::clock::now().0 - 90_000)));
    let text = metrics.encode();
    assert!((value(&text, "sigmagate_mail_waiting") - 3.0).abs() < 0.5 && (89.0..600.0).contains(&age()), "{text}");
    mail.waiting(1, Some(Timestamp(crate::clock::now().0 + 90_000)));
    assert!(age() < f64::EPSILON, "from a clock that is ahead");
    mail.waiting(0, None);
    assert!(age() < f64::EPSILON);
}

#[test]
fn every_metric_says_what_it_is() {
    let metrics = Metrics::new();
    let table = table(&["/a"]);
    metrics.for_routes(&table, None).record(&record(Some(&table.routes()[0]), "permit"));
    metrics.mail().tried("access_approved", MailOutcome::Sent);
    let text = metrics.encode();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split(' ').next().unwrap();
        let help = text.lines().find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        assert!(help.is_some_and(|help| help.ends_with('.')), "{name}: {help:?}");
    }
}
