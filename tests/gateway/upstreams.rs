//! Servers that fail, come back, speak TLS or HTTP/2, and what the gateway makes of that.

mod http2;
mod server;
mod trust;

use std::collections::BTreeSet;

use crate::support::{MANY_FAILURES, ROUTES, World};
pub use server::{Manner, Server};

/// A world whose upstream `core` has these servers, and these lines.
pub async fn world(servers: &[&Server], lines: &str) -> World {
    world_of(&servers.iter().map(|server| format!("http://{}", server.address)).collect::<Vec<_>>(), lines).await
}

pub async fn world_of(origins: &[String], lines: &str) -> World {
    let routes = ROUTES.replacen("servers = [\"http://CORE\"]", &format!("servers = {origins:?}\n{lines}"), 1);
    World::with(MANY_FAILURES, &routes).await
}

/// The value of a series, a whole number.
pub async fn count(world: &World, series: &str) -> String {
    format!("{:.0}", world.metric(series).await)
}

async fn post(world: &World) -> u16 {
    world.request("POST", "/billing", "billing").body("once").send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_server_has_its_turn() {
    let servers = [Server::start(Manner::Answers).await, Server::start(Manner::Answers).await, Server::start(Manner::Answers).await];
    let world = world(&servers.each_ref(), "").await;
    for _ in 0..30 {
        assert_eq!(world.status("/billing", "billing").await, 200);
    }
    assert_eq!(servers.each_ref().map(Server::requests), [10, 10, 10]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_practice_stays_with_its_server() {
    let servers = [Server::start(Manner::Answers).await, Server::start(Manner::Answers).await];
    let world = world(&servers.each_ref(), "balance = \"consistent_hash\"").await;
    for app in ["billing", "personal", "all"] {
        for _ in 0..5 {
            assert_eq!(world.status("/billing", app).await, 200);
        }
    }
    let requests: BTreeSet<usize> = servers.iter().map(Server::requests).collect();
    assert_eq!(requests, BTreeSet::from([0, 15]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_with_the_fewest_requests_is_next() {
    let (busy, free) = (Server::start(Manner::Waits).await, Server::start(Manner::Answers).await);
    let world = world(&[&busy, &free], "balance = \"least_connections\"").await;
    let mut held = Vec::new();
    // Until one has landed at the server that does not answer.
    while busy.requests() == 0 {
        let request = tokio::spawn(world.request("GET", "/billing", "billing").send());
        while busy.requests() == 0 && !request.is_finished() {
            tokio::task::yield_now().await;
        }
        held.push(request);
    }
    for _ in 0..10 {
        // A request counts until a moment after its answer.
        while world.metric("sigmagate_upstream_requests_in_flight{upstream=\"core\"}").await > 1.0 {}
        assert_eq!(world.status("/billing", "billing").await, 200);
    }
    assert_eq!(busy.requests(), 1);
    held.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_sent_is_sent_to_another_server_whatever_its_method() {
    let (gone, well) = (Server::start(Manner::Answers).await, Server::start(Manner::Answers).await);
    let world = world(&[&gone, &well], "").await;
    gone.stop().await;
    for _ in 0..20 {
        assert_eq!(post(&world).await, 200);
    }
    assert_eq!((gone.requests(), well.requests()), (0, 20));
    assert_eq!(count(&world, "sigmagate_upstream_servers{state=\"unreachable\",upstream=\"core\"}").await, "1");
    assert_eq!(
        count(&world, "sigmagate_upstream_retries_total{result=\"retried\",upstream=\"core\"}").await,
        "5",
        "then it was passed over"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_and_not_answered_is_sent_again_only_if_that_makes_no_difference() {
    let (mute, well) = (Server::start(Manner::Closes).await, Server::start(Manner::Answers).await);
    let world = world(&[&mute, &well], "ejection = { failures = 1000000 }").await;
    for _ in 0..20 {
        assert_eq!(world.status("/billing", "billing").await, 200);
    }
    assert_eq!((mute.requests(), well.requests()), (10, 20));
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(post(&world).await);
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 502, 502, 502, 502, 502]);
    assert_eq!((mute.requests(), well.requests()), (15, 25), "each was sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_of_an_error_is_handed_on_and_never_tried_again() {
    let (failing, well) = (Server::start(Manner::Fails).await, Server::start(Manner::Answers).await);
    let world = world(&[&failing, &well], "ejection = { failures = 3, for_secs = 3600 }").await;
    let mut failed = 0;
    for _ in 0..20 {
        failed += u32::from(world.status("/billing", "billing").await == 503);
    }
    assert_eq!((failed, failing.requests(), well.requests()), (3, 3, 17), "after three it is passed over");
    assert_eq!(count(&world, "sigmagate_upstream_servers{state=\"ejected\",upstream=\"core\"}").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn retries_have_a_budget() {
    let (mute, other) = (Server::start(Manner::Closes).await, Server::start(Manner::Closes).await);
    let world = world(&[&mute, &other], "retry_percent = 0").await;
    for _ in 0..5 {
        assert_eq!(world.status("/billing", "billing").await, 502);
    }
    assert_eq!(mute.requests() + other.requests(), 5);
    assert_eq!(count(&world, "sigmagate_upstream_retries_total{result=\"withheld\",upstream=\"core\"}").await, "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_take_a_server_out_and_in_again() {
    let (ill, well) = (Server::start(Manner::Answers).await, Server::start(Manner::Answers).await);
    ill.be_ill(true);
    let health = "health = { path = \"/healthz\", every_secs = 1, unhealthy_after = 1, healthy_after = 1 }";
    let world = world(&[&ill, &well], health).await;
    let down = "sigmagate_upstream_servers{state=\"down\",upstream=\"core\"}";
    while world.metric(down).await < 1.0 {}
    let before = ill.requests();
    for _ in 0..10 {
        assert_eq!(world.status("/billing", "billing").await, 200);
    }
    assert_eq!(ill.requests(), before);
    well.be_ill(true);
    while world.metric(down).await < 2.0 {}
    let answer = world.request("GET", "/billing", "billing").send().await.unwrap();
    assert_eq!(answer.status(), 502);
    let problem: serde_json::Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(problem["code"], "upstream_unreachable");
    while world.metric("sigmagate_decisions_total{reason=\"no_server\"}").await < 1.0 {}
    ill.be_ill(false);
    while world.metric(down).await > 1.0 {}
    assert_eq!(world.status("/billing", "billing").await, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_has_so_many_requests_under_way_and_its_own_time() {
    let slow = Server::start(Manner::Dribbles).await;
    let world = world(&[&slow], "max_requests = 1\nrequest_timeout_ms = 1500").await;
    let held = tokio::spawn(world.request("GET", "/billing", "billing").send());
    while slow.requests() == 0 {
        tokio::task::yield_now().await;
    }
    let refused = world.request("GET", "/billing", "all").send().await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (503, "1"));
    let problem: serde_json::Value = serde_json::from_str(&refused.text().await.unwrap()).unwrap();
    assert_eq!(problem["code"], "unavailable");
    while world.metric("sigmagate_decisions_total{reason=\"upstream_busy\"}").await < 1.0 {}
    // It says a byte of its header now and then, so that it is never silent for long.
    assert_eq!(held.await.unwrap().unwrap().status(), 504);
    while world.metric("sigmagate_upstream_requests_in_flight{upstream=\"core\"}").await > 0.0 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_map_that_says_the_same_of_an_upstream_leaves_it_as_it_is() {
    let (gone, well) = (Server::start(Manner::Answers).await, Server::start(Manner::Answers).await);
    let world = world(&[&gone, &well], "ejection = { failures = 1, for_secs = 3600 }").await;
    gone.stop().await;
    let unreachable = "sigmagate_upstream_servers{state=\"unreachable\",upstream=\"core\"}";
    while world.metric(unreachable).await < 1.0 {
        assert_eq!(world.status("/billing", "billing").await, 200);
    }
    let routes = std::fs::read_to_string(world.path("routes.toml")).unwrap();
    std::fs::write(world.path("routes.toml"), routes.replace("/small", "/tiny")).unwrap();
    while world.metric("sigmagate_config_generation").await < 2.0 {}
    assert_eq!(count(&world, unreachable).await, "1");
}
