//! A route that may be answered for a while without the store.

use std::time::Duration;

use crate::support::{ROUTES, World};

#[tokio::test(flavor = "multi_thread")]
async fn without_the_store_a_route_goes_on_as_long_as_every_receipt_said() {
    let routes = ROUTES.replacen("scopes = [\"clinical\"]\n", "scopes = [\"clinical\"]\nstale_grace_ms = 3600000\n", 1);
    let world = World::with("", &routes).await;
    let hour = Duration::from_hours(1);
    // Until the register has it, receipts do not say it and nobody has it.
    while world.lifecycle.put_practice(&world.practice, "Clinic", &world.by).await.unwrap().bound < hour {}

    std::fs::remove_file(world.path("gateway.db")).unwrap();
    while world.status("/billing", "billing").await == 200 {}
    assert_eq!(world.status("/billing", "billing").await, 503);
    assert_eq!(world.status("/patients", "clinical").await, 200);
    assert_eq!(world.status("/patients", "billing").await, 403, "the checks are the same");
    assert_eq!(world.status("/patients", "revoked").await, 401);
    let metrics = world.http.get(world.management("/metrics")).send().await.unwrap().text().await.unwrap();
    let counted = "sigmagate_requests_total{method=\"safe\",outcome=\"permit_in_grace\",route=\"/patients\"} 1";
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
}
