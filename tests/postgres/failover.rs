//! An asynchronous failover that loses a revocation which was acknowledged.

use crate::link::Link;
use crate::support::Postgres;
use crate::world::{World, answers_until, status};

/// Long enough that it outlives the failover.
const SETTINGS: &str = "lease_ms = 5000\nheartbeat_ms = 100";
const WARNING: &str = "standbys follow this database without its waiting for them";
const REGRESSION: &str = "timeline_regression";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knew_a_revocation_that_a_failover_lost_goes_on_denying_and_says_so() {
    let primary = Postgres::start(&[]);
    let url = primary.database();
    let mut world = World::new(&url).await;
    let (lost, other) = (world.client().await, world.client().await);
    let standby = primary.standby();
    let gateway = world.gateway(Link::to(primary.port()).await, SETTINGS);

    world.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'").await;
    world.sql("SELECT pg_reload_conf()").await;
    world.until("SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync')").await;
    gateway.start().await;
    assert!(!gateway.log().contains(WARNING), "somebody has each commit: {}", gateway.log());
    gateway.terminate();
    world.sql("ALTER SYSTEM RESET synchronous_standby_names").await;
    world.sql("SELECT pg_reload_conf()").await;
    world.until("SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'async')").await;
    gateway.start().await;
    assert!(gateway.log().contains(WARNING), "nobody has: {}", gateway.log());
    assert_eq!(status(&gateway, &lost.authorization).await, 200);

    world.until("SELECT pg_current_wal_flush_lsn() = (SELECT replay_lsn FROM pg_stat_replication)").await;
    standby.kill();
    world.revoke(&lost).await;
    assert_eq!(status(&gateway, &lost.authorization).await, 401);
    primary.freeze();
    standby.resume();
    standby.promote();
    let mut successor = World::at(&url.replace(&primary.port().to_string(), &standby.port().to_string())).await;
    successor.until("SELECT NOT EXISTS (SELECT FROM gateway.clients WHERE revoked_at IS NOT NULL)").await;
    gateway.link.lead_to(standby.port());
    gateway.link.cut();
    successor.until("SELECT count(*) = 1 FROM gateway.nodes WHERE history = gateway.history() AND beat > 0").await;
    answers_until(&gateway, &other.authorization, 200).await;
    assert_eq!(status(&gateway, &lost.authorization).await, 401);
    let log = gateway.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains(REGRESSION)).collect();
    assert!(said.len() == 1 && said[0].contains("\"clients\":1") && said[0].contains("\"ERROR\""), "{log}");

    // One that starts now cannot know of it: hence what the log says is to be done.
    gateway.terminate();
    gateway.start().await;
    assert_eq!(status(&gateway, &lost.authorization).await, 200);
    assert!(!gateway.log().contains(WARNING), "nobody follows the new primary: {}", gateway.log());
    successor.revoke(&lost).await;
    assert_eq!(status(&gateway, &lost.authorization).await, 401);
    primary.thaw();
}
