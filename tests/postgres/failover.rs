//! Gateways through a failover whose old primary goes on, and through one that loses what was acknowledged.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::task::AbortHandle;

use crate::fleet::Gateway;
use crate::link::Link;
use crate::load::Connection;
use crate::support::Postgres;
use crate::world::{World, answers_until, status};

/// A lease that is waited for, and one that is not.
const SHORT: &str = "lease_ms = 5000\nheartbeat_ms = 100";
const LONG: &str = "lease_ms = 60000\nheartbeat_ms = 100";
const WARNING: &str = "standbys follow this database without its waiting for them";
const REGRESSION: &str = "timeline_regression";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_knew_a_revocation_that_a_failover_lost_goes_on_denying_and_says_so() {
    let primary = Postgres::start(&[]);
    let url = primary.database();
    let mut world = World::new(&url).await;
    let (lost, other) = (world.client().await, world.client().await);
    let standby = primary.standby();
    let gateway = world.gateway(Link::to(primary.port()).await, LONG);

    primary.wait_for(&standby);
    gateway.start().await;
    assert!(!gateway.log().contains(WARNING), "somebody has each commit: {}", gateway.log());
    gateway.terminate();
    world.sql("ALTER SYSTEM RESET synchronous_standby_names").await;
    world.sql("SELECT pg_reload_conf()").await;
    world.until("SELECT EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'async')").await;
    gateway.start().await;
    assert!(gateway.log().contains(WARNING), "nobody has: {}", gateway.log());
    assert_eq!(status(&gateway, &lost.authorization).await, 200);

    world.until("SELECT EXISTS (SELECT FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_flush_lsn())").await;
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

/// Somebody who never stops asking: when each request began, and how it was answered.
struct Asking {
    answers: Arc<Mutex<Vec<(Instant, u16)>>>,
    task: AbortHandle,
}

impl Asking {
    fn start(gateway: &Gateway, authorization: &str) -> Self {
        let (address, authorization) = (gateway.address().unwrap(), authorization.to_owned());
        let answers = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&answers);
        let task = tokio::spawn(async move {
            let mut connection = Connection::default();
            loop {
                let begun = Instant::now();
                let status = connection.ask(address, &authorization).await;
                noted.lock().push((begun, status));
            }
        });
        Self { answers, task: task.abort_handle() }
    }

    /// The answers to what began in between.
    fn between(&self, from: Instant, to: Instant) -> Vec<u16> {
        self.answers.lock().iter().filter(|(begun, _)| from < *begun && *begun < to).map(|(_, status)| *status).collect()
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_admitted_after_the_receipt_of_the_new_primary_also_where_the_old_one_is_asked() {
    let primary = Postgres::start(&[]);
    let url = primary.database();
    let world = World::new(&url).await;
    let app = world.client().await;
    let standby = primary.standby();
    primary.wait_for(&standby);
    let (left, moved) = (world.gateway(Link::to(primary.port()).await, SHORT), world.gateway(Link::to(primary.port()).await, SHORT));
    left.start().await;
    moved.start().await;
    let (at_left, at_moved) = (Asking::start(&left, &app.authorization), Asking::start(&moved, &app.authorization));
    standby.promote();
    let mut successor = World::at(&url.replace(&primary.port().to_string(), &standby.port().to_string())).await;
    moved.link.lead_to(standby.port());
    moved.link.cut();
    successor.until("SELECT count(*) = 1 FROM gateway.nodes WHERE history = gateway.history() AND beat > 0").await;
    answers_until(&moved, &app.authorization, 200).await;

    let revoking = Instant::now();
    successor.revoke(&app).await;
    let receipt = Instant::now();
    // Its lease is over by then, and the old primary, though it answers, renews none.
    answers_until(&left, &app.authorization, 503).await;
    assert_eq!(status(&moved, &app.authorization).await, 401);
    left.link.lead_to(standby.port());
    left.link.cut();
    answers_until(&left, &app.authorization, 401).await;
    let end = Instant::now();

    assert!(at_left.between(revoking, receipt).contains(&200), "it was the lease that was waited for");
    for (asking, allowed) in [(&at_left, &[503, 401][..]), (&at_moved, &[401])] {
        let after = asking.between(receipt, end);
        assert!(!after.is_empty() && after.iter().all(|answer| allowed.contains(answer)), "{after:?}");
    }
}
