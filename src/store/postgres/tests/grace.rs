//! Grace after the end of a lease: never longer than barriers know of.

use super::*;
use crate::clock::boot_time;

const HOUR: Duration = Duration::from_hours(1);

/// Looks at a node until it is as wanted.
async fn until(node: &Node, wanted: impl Fn(&Replica) -> bool) {
    while !wanted(&node.replica) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// By what the client is admitted, if it is: by the lease, or in the grace after it.
fn admitted(node: &Node, app: &Client, grace: Duration) -> Option<bool> {
    let read = node.replica.read(app.id, grace, |client| client.is_some_and(|client| !client.facts([127, 0, 0, 1].into(), now()).revoked));
    read.ok().filter(|(yes, _)| *yes).map(|(_, epoch)| epoch.in_grace())
}

#[tokio::test]
async fn a_grace_is_in_the_register_before_and_after_it_is_used_and_every_receipt_states_it() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, app) = world(&url).await;
    let mut node = Node::start(&store);
    node.live().await;
    let mut conn = by_hand(&url).await;
    let stated =
        async |conn: &mut PgConnection| -> i64 { sqlx::query_scalar("SELECT bound_ms FROM gateway.nodes").fetch_one(conn).await.unwrap() };
    let (short, long) = (FLEET.timing.bound(), FLEET.timing.bound_with(HOUR));
    assert_eq!((stated(&mut conn).await, node.replica.grace()), (i64::try_from(short.as_millis()).unwrap(), Duration::ZERO));

    node.replica.want_grace(HOUR);
    assert_eq!(node.replica.grace(), Duration::ZERO, "wanting it is not enough");
    until(&node, |replica| replica.grace() == HOUR).await;
    assert_eq!(stated(&mut conn).await, i64::try_from(long.as_millis()).unwrap());
    let renamed = store.put_practice(&practice_id("p"), "renamed", &operator()).await.unwrap();
    assert_eq!(receipt(&store, renamed).await.bound.as_millis(), long.as_millis());
    assert_eq!(admitted(&node, &app, HOUR), Some(false), "by the lease, while there is one");

    // Held up at the register, the grace is given up before the register says less.
    sql(&mut conn, "BEGIN; LOCK TABLE gateway.nodes IN EXCLUSIVE MODE").await.unwrap();
    node.replica.want_grace(Duration::ZERO);
    until(&node, |replica| replica.grace() == Duration::ZERO).await;
    assert_eq!(stated(&mut conn).await, i64::try_from(long.as_millis()).unwrap());
    sql(&mut conn, "COMMIT").await.unwrap();
    while stated(&mut conn).await != i64::try_from(short.as_millis()).unwrap() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn in_the_grace_only_those_go_on_who_have_one_and_it_ends_with_the_next_proof() {
    let server = Postgres::start(&[]);
    let (store, app) = world(&server.database()).await;
    let mut node = Node::start(&store);
    node.live().await;
    node.replica.want_grace(HOUR);
    until(&node, |replica| replica.grace() == HOUR).await;
    let (cut, mut cuts) = watch::channel(0);
    node.replica.on_change(Box::new(move |_| cut.send_modify(|cuts| *cuts += 1)));

    server.kill();
    node.stale().await;
    assert!(boot_time() >= node.replica.lease_until());
    assert_eq!(admitted(&node, &app, Duration::ZERO), None);
    assert_eq!(admitted(&node, &app, HOUR), Some(true));
    assert_eq!(admitted(&node, &app, Duration::from_nanos(1)), None, "no route has more than its own");
    cuts.wait_for(|cuts| *cuts == 1).await.unwrap();

    server.resume();
    node.live().await;
    assert_eq!(admitted(&node, &app, HOUR), Some(false));
}
