//! A node that has read everything and has no lease yet.

use super::*;

/// A lease that outlasts a test, however long it takes.
const LASTING: Fleet = Fleet { timing: Timing { lease: Duration::from_secs(3600), ..FLEET.timing }, durability_asserted: false };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_admits_nobody_before_a_heartbeat_was_answered() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (_, app) = world(&url).await;
    let store = PgStore::open(&url, &LASTING, false).await.unwrap();
    let (mut clients, mut nodes) = (by_hand(&url).await, by_hand(&url).await);
    sql(&mut clients, "BEGIN; LOCK TABLE gateway.clients").await.unwrap();
    let mut node = Node::start(&store);
    // Registered by now, or it would not read.
    let reading = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%gateway.clients%')";
    faults::until(&mut nodes, reading).await;
    // Readers pass, heartbeats do not; nor would a new registration.
    sql(&mut nodes, "BEGIN; LOCK TABLE gateway.nodes IN EXCLUSIVE MODE").await.unwrap();
    sql(&mut clients, "ROLLBACK").await.unwrap();
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%gateway.nodes SET beat%')";
    faults::until(&mut clients, waits).await;
    assert_eq!(node.replica.entries().clients, 1, "it has everything");
    assert!(!node.admits(&app) && node.live.borrow().is_none());
    sql(&mut nodes, "ROLLBACK").await.unwrap();
    node.live().await;
    assert!(node.admits(&app));
}

#[tokio::test]
async fn who_is_not_in_the_replica_leaves_nothing_there() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (_, app) = world(&url).await;
    let mut node = Node::start(&PgStore::open(&url, &LASTING, false).await.unwrap());
    node.live().await;
    let before = node.replica.entries();
    for _ in 0..10_000 {
        let Client { id, .. } = client(None).client;
        assert!(!node.admits(&Client { id, ..app.clone() }));
    }
    assert_eq!(node.replica.entries(), before);
    // The heartbeats had to wait meanwhile.
    while !node.admits(&app) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
