//! The canary, through the real gate and the real store.

use sigmagate::credential::usable_at;
use sigmagate::entity::Client;

use crate::support::{ROUTES, World};

const ON: &str = "[canary]\nenabled = true\nevery_secs = 1\n";

async fn clients(world: &World) -> Vec<Client> {
    world.lifecycle.store().clients(Some(&"sigmagate-canary".parse().unwrap()), None).await.unwrap()
}

async fn until_ok(world: &World, runs: f64) {
    while world.metric("sigmagate_canary_runs_total{outcome=\"ok\"}").await < runs {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_seen_to_be_admitted_and_after_its_receipt_refused_again_and_again() {
    let mut world = World::with(ON, ROUTES).await;
    until_ok(&world, 2.0).await;
    for outcome in ["failed", "admitted_after_receipt"] {
        assert!(world.metric(&format!("sigmagate_canary_runs_total{{outcome=\"{outcome}\"}}")).await < 0.5, "{outcome}");
    }
    assert!(world.metric("sigmagate_canary_revocation_seconds_count").await >= 2.0);
    assert!(world.metric("sigmagate_canary_last_success_timestamp_seconds").await > 1e9);
    assert_eq!(world.status("/billing", "billing").await, 200, "nobody else is touched");
    world.server.take().unwrap().stop().await;
    let left = clients(&world).await;
    let in_use = left[0].secrets.iter().filter(|secret| usable_at(secret.expires_at, sigmagate::clock::now())).count();
    // A run may have been under way.
    assert!(left.len() == 1 && left[0].secrets.len() >= 2 && in_use <= 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_gone_is_a_failure_that_holds_up_nothing() {
    let mut world = World::with(ON, ROUTES).await;
    until_ok(&world, 1.0).await;
    std::fs::remove_file(world.path("gateway.db")).unwrap();
    while world.metric("sigmagate_canary_runs_total{outcome=\"failed\"}").await < 1.0 {}
    assert!(world.metric("sigmagate_canary_runs_total{outcome=\"admitted_after_receipt\"}").await < 0.5);
    world.server.take().unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_there_is_none() {
    let world = World::new().await;
    let text = world.http.get(world.management("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(!text.contains("sigmagate_canary"), "a time of last success that is never set would alarm somebody");
    assert!(clients(&world).await.is_empty());
}
