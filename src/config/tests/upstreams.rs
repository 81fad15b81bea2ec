//! What is said of upstreams, and what of it is wrong.

use super::*;
use crate::upstream::{Balance, HashBy, Protocol, Settings};

/// The routes with these lines about the upstream.
fn with(lines: &str) -> String {
    ROUTES.replace("[[routes]]", &format!("{lines}\n[[routes]]"))
}

fn settings(lines: &str) -> Settings {
    files("", &with(lines)).load(&[]).unwrap().routes.upstreams["core"].settings.clone()
}

#[test]
fn what_is_commented_out_of_upstreams_is_what_holds_without_it() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/routes.toml")).unwrap();
    let section = text.split_once("[upstreams.core]\n").unwrap().1.split_once("\n\n").unwrap().0;
    let setting = |line: &str| line.strip_prefix("# ").map(|line| line.split("   #").next().unwrap().to_owned());
    let lines: Vec<String> = section.lines().filter_map(setting).collect();
    // Without which nothing is bounded, asked or shown; what the gateway itself allows.
    let examples = ["max_requests", "health", "tls", "request_timeout_ms"];
    let (examples, usual): (Vec<_>, Vec<_>) = lines.into_iter().partition(|line| examples.contains(&line.split(' ').next().unwrap()));
    assert_eq!((examples.len(), usual.len()), (4, 8), "{usual:?}");
    assert_eq!(settings(&usual.join("\n")), settings(""));
    let health = examples.iter().find(|line| line.starts_with("health")).unwrap();
    assert_eq!(settings(health).health, settings("health = { path = \"/healthz\" }").health);
}

#[test]
fn what_is_said_of_an_upstream_is_what_holds() {
    let said = settings(
        "balance = \"consistent_hash\"\nhash_by = \"client\"\nprotocol = \"http2\"\nresolve_secs = 3\nconnect_timeout_ms = 7\n\
         response_timeout_ms = 8\nrequest_timeout_ms = 900\nretries = 2\nretry_percent = 0\nmax_requests = 5\n\
         ejection = { failures = 1, for_secs = 4 }\nhealth = { path = \"/up?x=1\", every_secs = 6 }",
    );
    assert_eq!((said.balance, said.protocol), (Balance::ConsistentHash(HashBy::Client), Protocol::Http2));
    let times = [said.resolve_every, said.connect_timeout, said.response_timeout, said.total_timeout.unwrap()];
    assert_eq!(times.map(|time| time.as_millis()), [3000, 7, 8, 900]);
    assert_eq!((said.retries, said.retry_percent, said.max_requests.map(std::num::NonZero::get)), (2, 0, Some(5)));
    assert_eq!((said.ejection.failures, said.ejection.time.as_secs()), (1, 4));
    let health = said.health.unwrap();
    assert_eq!((&*health.path, health.every.as_secs(), health.healthy_after, health.unhealthy_after), ("/up?x=1", 6, 2, 3));
}

#[test]
fn what_is_wrong_with_an_upstream_is_told_where_it_stands() {
    for (lines, key, says) in [
        ("hash_by = \"client\"", "upstreams.core.hash_by", "balance = \"consistent_hash\""),
        ("balance = \"fastest\"", "upstreams.core.balance", "round_robin"),
        ("retries = 11", "upstreams.core.retries", "10"),
        ("health = { path = \"healthz\" }", "upstreams.core.health.path", "is not a path"),
        ("health = { path = \"/a b\" }", "upstreams.core.health.path", "is not a path"),
        ("health = {}", "upstreams.core.health", "`path`"),
        ("tls = { ca = \"nowhere.pem\" }", "upstreams.core.tls", "plain HTTP"),
        ("tls = { ca = \"nowhere.pem\" }", "upstreams.core.tls.ca", "there is no file"),
        ("tls = { certificate = \"a.pem\" }", "upstreams.core.tls.certificate", "needs its `key`"),
        ("tls = { key = \"a.pem\" }", "upstreams.core.tls.key", "needs its `certificate`"),
        ("tls = { server_name = \"a b\" }", "upstreams.core.tls.server_name", "not the name of a host"),
    ] {
        let mistakes = files("", &with(lines)).mistakes(&[]);
        assert!(mistakes.iter().any(|mistake| mistake.contains(&format!("{key}: ")) && mistake.contains(says)), "{lines}: {mistakes:?}");
    }
}

#[test]
fn an_upstream_of_which_the_same_is_said_goes_on() {
    let files = files("", &with("retries = 2"));
    let before = files.load(&[]).unwrap();
    let again = |text: &str, before: &Upstreams| {
        fs::write(&files.sources.routes, text).unwrap();
        let gateway = files.load(&[]).unwrap().gateway;
        load_routes(&files.sources.routes, &gateway, &ScopeRegistry::default(), before).unwrap().upstreams
    };
    let same = again(&with("retries = 2").replace("/billing", "/bills"), &before.routes.upstreams);
    assert!(std::sync::Arc::ptr_eq(&same["core"], &before.routes.upstreams["core"]));
    let other = again(&with("retries = 3"), &same);
    assert!(!std::sync::Arc::ptr_eq(&other["core"], &same["core"]));
}
