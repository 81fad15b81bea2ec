//! A failover between two real servers, the old primary left running: what it says renews nothing, what its successor
//! says is waited for, and no number of one counts in the other.

use super::faults::until;
use super::link::Link;
use super::*;
use crate::clock::boot_time;

/// A lease that is waited for, and patience with a machine that is busy.
const SHORT: Fleet = Fleet { timing: Timing { lease: Duration::from_secs(3), ..FLEET.timing }, durability_asserted: false };
/// A lease that nobody waits for: longer than a failover here ever takes.
const LONG: Fleet = Fleet { timing: Timing { lease: Duration::from_secs(60), ..FLEET.timing }, durability_asserted: false };

/// A primary and its standby.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    /// The database on the primary, and a connection there.
    url: String,
    conn: PgConnection,
    store: PgStore,
    app: Client,
}

impl Pair {
    async fn start() -> Self {
        let primary = Postgres::start(&[]);
        let url = primary.database();
        let (_, app) = world(&url).await;
        let store = PgStore::open(&url, &SHORT, false).await.unwrap();
        let (standby, conn) = (primary.standby(), by_hand(&url).await);
        Self { primary, standby, url, conn, store, app }
    }

    /// One whose commits wait for the standby.
    async fn synchronous() -> Self {
        let pair = Self::start().await;
        pair.primary.wait_for(&pair.standby);
        pair
    }

    /// The same database at another place.
    fn at(&self, place: impl std::fmt::Display) -> String {
        format!("postgres://postgres@{place}/{}", self.url.rsplit('/').next().unwrap())
    }

    fn successor(&self) -> String {
        self.at(format_args!("127.0.0.1:{}", self.standby.port()))
    }
}

async fn revision(conn: &mut PgConnection) -> Revision {
    let head: i64 = sqlx::query_scalar("SELECT gateway.head()").fetch_one(conn).await.unwrap();
    Revision(u64::try_from(head).unwrap())
}

async fn change(store: &PgStore) -> Revision {
    store.put_practice(&practice_id("p"), &uuid::Uuid::new_v4().to_string(), &operator()).await.unwrap().revision()
}

/// A node has joined this history, and had an answer there.
const JOINED: &str = "SELECT count(*) = 1 FROM gateway.nodes WHERE history = gateway.history() AND beat > 0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_was_left_behind_renews_no_lease_though_it_still_answers() {
    let pair = Pair::synchronous().await;
    let mut node = Node::start(&pair.store);
    node.live().await;
    let (mut feed, head) = follow(&pair.store).await;
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged), "the standby takes it");
    pair.standby.promote();
    let text = message(feed.poll(head).await);
    assert!(text.contains("did not answer within 1500 ms"), "by a limit of its own: {text}");
    node.stale().await;
    // Whoever only reads finds everything as it was: nothing new, and the client in good standing.
    let mut reader = by_hand(&pair.url).await;
    assert_eq!(revision(&mut reader).await, head);
    assert!(pair.store.client(pair.app.id).await.unwrap().revoked_at.is_none());
    let text = message(pair.store.feed().await.unwrap().register(None).await);
    assert!(text.contains("did not answer"), "{text}");
    assert!(!node.admits(&pair.app) && node.live.borrow().is_none(), "nor does a node join there anew");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_still_asks_the_old_primary_is_outwaited_by_the_new_one() {
    let pair = Pair::synchronous().await;
    let mut node = Node::start(&pair.store);
    node.live().await;
    pair.standby.promote();
    let successor = open(&pair.successor()).await;
    let committed = successor.revoke_client(pair.app.id, now(), &operator()).await.unwrap();
    let receipt = receipt(&successor, committed).await;
    assert_eq!((receipt.applied, receipt.expired), (0, 1), "its row came along, and what it says there is of another history");
    assert!(receipt.waited >= receipt.bound && receipt.bound > SHORT.timing.lease, "{receipt:?}");
    assert!(!node.admits(&pair.app) && node.replica.lease_until() <= boot_time(), "{:?}", node.replica.lease_until());
    // And not because it had heard of it.
    assert!(!node.replica.peek(pair.app.id).unwrap().facts([127, 0, 0, 1].into(), now()).revoked);
    assert!(pair.store.client(pair.app.id).await.unwrap().revoked_at.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_over_to_the_new_primary_joins_anew_and_knows_what_it_revoked() {
    let pair = Pair::synchronous().await;
    let other = client(None);
    let _ = pair.store.create_client(&other, &operator()).await.unwrap();
    let link = Link::to(pair.primary.port()).await;
    let mut node = Node::start(&PgStore::open(&pair.at(link.address), &LONG, false).await.unwrap());
    node.live().await;
    pair.standby.promote();
    let mut conn = by_hand(&pair.successor()).await;
    let before: String = sqlx::query_scalar("SELECT node_id FROM gateway.nodes").fetch_one(&mut conn).await.unwrap();
    let successor = PgStore::open(&pair.successor(), &LONG, false).await.unwrap();
    let committed = successor.revoke_client(pair.app.id, now(), &operator()).await.unwrap();
    let waiting = tokio::spawn({
        let successor = successor.clone();
        async move { receipt(&successor, committed).await }
    });
    link.lead_to(pair.standby.port());
    link.cut();
    let receipt = waiting.await.unwrap();
    // Its old row goes before its new one comes; in between there is nobody to wait for, and it admits nobody.
    assert!(receipt.expired == 0 && receipt.waited < LONG.timing.lease, "what it was before is waited for no more: {receipt:?}");
    assert!(!node.admits(&pair.app));
    until(&mut conn, JOINED).await;
    let after: String = sqlx::query_scalar("SELECT node_id FROM gateway.nodes").fetch_one(&mut conn).await.unwrap();
    assert_ne!(before, after, "another incarnation");
    node.live().await;
    assert!(!node.admits(&pair.app) && node.admits(&other.client));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_number_is_another_change_in_another_history() {
    let mut pair = Pair::start().await;
    let other = client(None);
    let _ = pair.store.create_client(&other, &operator()).await.unwrap();
    let link = Link::to(pair.primary.port()).await;
    let mut node = Node::start(&PgStore::open(&pair.at(link.address), &LONG, false).await.unwrap());
    node.live().await;
    let known = "SELECT EXISTS (SELECT FROM pg_stat_replication WHERE replay_lsn = pg_current_wal_flush_lsn())";
    until(&mut pair.conn, known).await;
    // From here on the standby misses everything: more than the numbers it has in reserve.
    pair.standby.kill();
    let committed = pair.store.revoke_client(pair.app.id, now(), &operator()).await.unwrap();
    let receipt = receipt(&pair.store, committed).await;
    assert_eq!((receipt.applied, receipt.expired), (1, 0));
    let mut cursor = receipt.revision;
    for _ in 0..60 {
        cursor = change(&pair.store).await;
    }
    node.live.wait_for(|live| live.is_some_and(|live| live >= cursor)).await.unwrap();
    pair.primary.freeze();
    pair.standby.resume();
    pair.standby.promote();
    let successor = PgStore::open(&pair.successor(), &LONG, false).await.unwrap();
    let lost = successor.client(pair.app.id).await.unwrap();
    assert!(lost.revoked_at.is_none(), "an acknowledged revocation is lost");
    let revoked = successor.revoke_client(other.client.id, now(), &operator()).await.unwrap().revision();
    assert!(revoked < cursor, "{revoked:?} {cursor:?}");
    while change(&successor).await < cursor {}
    let mut conn = by_hand(&pair.successor()).await;
    assert_eq!(revision(&mut conn).await, cursor, "as if nothing had happened since");
    link.lead_to(pair.standby.port());
    link.cut();
    until(&mut conn, JOINED).await;
    node.live().await;
    assert!(!node.admits(&other.client), "what the new primary revoked under a number that was behind it");
    assert!(!node.admits(&pair.app), "what the old one revoked, and the new one does not know of");
    // A node that never knew of it admits again: asynchronous replication is warned of for a reason.
    let mut stranger = Node::start(&successor);
    stranger.live().await;
    assert!(stranger.admits(&pair.app));
    pair.primary.thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_standby_is_refused_and_who_is_led_to_one_stops_until_it_is_promoted() {
    let pair = Pair::start().await;
    until(&mut by_hand(&pair.successor()).await, "SELECT EXISTS (SELECT FROM gateway.clients)").await;
    for migrate in [true, false] {
        assert!(message(PgStore::open(&pair.successor(), &FLEET, migrate).await).contains("name the primary in `store.url`"));
    }
    let link = Link::to(pair.primary.port()).await;
    let store = PgStore::open(&pair.at(link.address), &SHORT, false).await.unwrap();
    let mut node = Node::start(&store);
    node.live().await;
    let (mut feed, head) = follow(&store).await;
    link.lead_to(pair.standby.port());
    link.cut();
    // One attempt finds that the connection is gone, the next one where it leads to now.
    assert!(feed.poll(head).await.is_err());
    for refused in [
        feed.poll(head).await.map(drop),
        feed.register(None).await.map(drop),
        store.revoke_client(pair.app.id, now(), &operator()).await.map(drop),
    ] {
        let text = message(refused);
        assert!(text.contains("standby") && text.contains("name the primary in `store.url`"), "{text}");
    }
    node.stale().await;
    assert!(!node.admits(&pair.app));
    pair.standby.promote();
    node.live().await;
    assert!(node.admits(&pair.app));
    let committed = store.revoke_client(pair.app.id, now(), &operator()).await.unwrap();
    receipt(&store, committed).await;
    assert!(!node.admits(&pair.app));
}
