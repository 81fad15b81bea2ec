//! The suite of every store on a PostgreSQL of the test's own, and what only a fleet has.

mod clocks;
mod cold;
mod faults;
mod grace;
#[path = "../../../tests/chaos/link.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod link;
mod opening;
mod records;
mod standby;
mod strict;
#[path = "../../../tests/support/postgres.rs"]
mod support;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use support::Postgres;
use tokio::sync::{oneshot, watch};

use super::{Fleet, PgStore, Timing};
use crate::cache::{Entries, Replica};
use crate::clock::now;
use crate::entity::Client;
use crate::feed::{self, Took};
use crate::id::Revision;
use crate::limit::TierNames;
use crate::scope::ScopeRegistry;
use crate::store::suite::{self, client, follow, furnish, operator, practice_id};
use crate::store::{Changes, Committed, Error, Feed, Receipt, Store, audit};

/// A lease short enough to be outwaited in a test.
const FLEET: Fleet = Fleet {
    timing: Timing { lease: Duration::from_secs(1), heartbeat: Duration::from_millis(200), freeze_allowance: Duration::ZERO },
    durability_asserted: false,
};

async fn open(url: &str) -> PgStore {
    PgStore::open(url, &FLEET, true).await.unwrap()
}

async fn by_hand(url: &str) -> PgConnection {
    url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
}

async fn sql(conn: &mut PgConnection, text: &str) -> Result<(), String> {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(conn).await.map(drop).map_err(|error| error.to_string())
}

fn message<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Unusable { message, .. } | Error::Deposed(message)) => message,
        Err(other) => panic!("{other:?} does not say what to do"),
        Ok(_) => panic!("it worked"),
    }
}

async fn batch(feed: &mut dyn Feed, after: Revision) -> (Revision, usize) {
    match feed.poll(after).await.unwrap() {
        Changes::Batch { head, changes, .. } => (head, changes.len()),
        other => panic!("{other:?} is no batch"),
    }
}

/// A practice with a client.
async fn world(url: &str) -> (PgStore, Client) {
    let store = open(url).await;
    furnish(&store).await;
    let new = client(None);
    let _ = store.create_client(&new, &operator()).await.unwrap();
    (store, new.client)
}

#[tokio::test]
async fn it_does_what_every_store_must() {
    let server = Postgres::start(&[]);
    suite::run(async || -> Arc<dyn Store> { Arc::new(open(&server.database()).await) as Arc<dyn Store> }).await;
}

#[tokio::test]
async fn changes_are_numbered_in_the_order_of_their_commits_whoever_makes_them() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, _) = world(&url).await;
    let (mut feed, head) = follow(&store).await;
    // Begun first, committed last: a number taken when the row is written would hide this one.
    let (mut first, mut second) = (by_hand(&url).await, by_hand(&url).await);
    sql(&mut first, "BEGIN; UPDATE gateway.practices SET name = 'first'").await.unwrap();
    sql(&mut second, "BEGIN; UPDATE gateway.users SET role = 'admin'; COMMIT").await.unwrap();
    let (after_second, changed) = batch(&mut *feed, head).await;
    assert_eq!(changed, 1);
    sql(&mut first, "COMMIT").await.unwrap();
    let (after_first, changed) = batch(&mut *feed, after_second).await;
    assert!(changed == 1 && after_first > after_second);
    // What is rolled back leaves at most a hole.
    sql(&mut first, "BEGIN; UPDATE gateway.practices SET name = 'never'; ROLLBACK").await.unwrap();
    assert!(matches!(feed.poll(after_first).await.unwrap(), Changes::Unchanged));
    sql(&mut first, "SET session_replication_role = replica; UPDATE gateway.practices SET name = 'silent'").await.unwrap();
    let (head, changed) = batch(&mut *feed, after_first).await;
    assert_eq!(changed, 1, "triggers that replication would skip");
    sql(&mut first, "SET session_replication_role = DEFAULT; BEGIN; SET CONSTRAINTS ALL IMMEDIATE; UPDATE gateway.practices SET name = 'early'; UPDATE gateway.users SET role = 'member'; COMMIT").await.unwrap();
    let (head, changed) = batch(&mut *feed, head).await;
    assert_eq!(changed, 2);
    sql(&mut first, "INSERT INTO gateway.practices SELECT 'bulk-' || n, 'x' FROM generate_series(1, 5001) AS n").await.unwrap();
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Gap), "too many to name");
    assert_eq!(suite::everything(&mut *feed).await.practices.len(), 5002);
    feed.leave().await.unwrap();
}

#[tokio::test]
async fn what_another_database_replicates_here_is_a_change_like_any_other() {
    let server = Postgres::start(&["wal_level = logical"]);
    let (from, to) = (server.database(), server.database());
    let (store, app) = world(&from).await;
    let copy = open(&to).await;
    let (mut feed, mut head) = follow(&copy).await;
    let (mut source, mut here) = (by_hand(&from).await, by_hand(&to).await);
    sql(&mut source, "CREATE PUBLICATION p FOR TABLE gateway.practices, gateway.users, gateway.clients, gateway.client_secrets, gateway.signing_keys, gateway.revoked_tokens")
        .await
        .unwrap();
    sql(&mut source, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')").await.unwrap();
    // Not made by the subscription, which would wait for itself on its own server.
    let subscribe = format!("CREATE SUBSCRIPTION s CONNECTION '{from}' PUBLICATION p WITH (create_slot = false, slot_name = 's')");
    sql(&mut here, &subscribe).await.unwrap();
    while copy.client(app.id).await.map_or(true, |client| client.secrets.is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    faults::until(&mut here, "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel").await;
    while !matches!(feed.poll(head).await.unwrap(), Changes::Unchanged) {
        head = suite::everything(&mut *feed).await.head;
    }
    for (statement, arrived) in [
        (
            "UPDATE gateway.practices SET api_access = 'disabled'",
            "SELECT EXISTS (SELECT FROM gateway.practices WHERE api_access = 'disabled')",
        ),
        ("UPDATE gateway.users SET left_at = now()", "SELECT EXISTS (SELECT FROM gateway.users WHERE left_at IS NOT NULL)"),
        (
            "UPDATE gateway.client_secrets SET expires_at = now(), ended = true",
            "SELECT EXISTS (SELECT FROM gateway.client_secrets WHERE ended)",
        ),
        ("UPDATE gateway.clients SET revoked_at = now()", "SELECT EXISTS (SELECT FROM gateway.clients WHERE revoked_at IS NOT NULL)"),
        (
            "INSERT INTO gateway.signing_keys (key_id, algorithm, sealed) VALUES (repeat('a', 43), 'EdDSA', '\\x00')",
            "SELECT EXISTS (SELECT FROM gateway.signing_keys)",
        ),
        (
            "UPDATE gateway.signing_keys SET revoked_at = now()",
            "SELECT EXISTS (SELECT FROM gateway.signing_keys WHERE revoked_at IS NOT NULL)",
        ),
        (
            "INSERT INTO gateway.revoked_tokens SELECT gen_random_uuid()::text, client_id, now() - interval '25 hours' FROM gateway.clients",
            "SELECT EXISTS (SELECT FROM gateway.revoked_tokens)",
        ),
        ("SELECT gateway.prune_tokens()", "SELECT NOT EXISTS (SELECT FROM gateway.revoked_tokens)"),
    ] {
        sql(&mut source, statement).await.unwrap();
        faults::until(&mut here, arrived).await;
        let (next, changed) = batch(&mut *feed, head).await;
        assert_eq!(changed, 1, "{statement}");
        head = next;
    }
    sql(&mut here, "ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s").await.unwrap();
    drop(store);
}

#[tokio::test]
async fn what_is_final_is_final_for_plain_sql_too() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, app) = world(&url).await;
    let mut conn = by_hand(&url).await;
    sql(&mut conn, "UPDATE gateway.clients SET revoked_at = now()").await.unwrap();
    assert!(store.client(app.id).await.unwrap().revoked_at.is_some());
    for (statement, part) in [
        ("UPDATE gateway.clients SET revoked_at = NULL", "revocation is final"),
        ("DELETE FROM gateway.clients", "cannot be deleted"),
        ("TRUNCATE gateway.practices CASCADE", "not truncated"),
        ("TRUNCATE gateway.audit_events", "not truncated"),
        ("UPDATE gateway.client_secrets SET digest = decode(repeat('00', 32), 'hex')", "cannot be altered"),
        (
            "UPDATE gateway.client_secrets SET expires_at = now(), ended = true; UPDATE gateway.client_secrets SET ended = false",
            "stays ended",
        ),
        ("DELETE FROM gateway.client_secrets", "cannot be deleted"),
        (
            "INSERT INTO gateway.client_secrets VALUES ((SELECT client_id FROM gateway.clients), 2, 'sha256', decode(repeat('00', 32), 'hex'))",
            "no new secret",
        ),
        ("UPDATE gateway.practices SET practice_id = 'other'", "keeps its id"),
        ("UPDATE gateway.users SET practice_id = 'other'", "keeps their id"),
        ("UPDATE gateway.audit_events SET actor = 'nobody'", "cannot be altered"),
        ("DELETE FROM gateway.audit_events", "cannot be altered or deleted"),
        (
            "INSERT INTO gateway.audit_events SELECT id + 100, at, practice_id, actor, origin, action, target, before, after, prev_hash, hash FROM gateway.audit_events LIMIT 1",
            "must follow the last",
        ),
        ("UPDATE gateway.users SET left_at = 'infinity'", "violates check"),
        (
            "INSERT INTO gateway.clients (client_id, practice_id, name, scopes, jwks, jwks_url)
             VALUES ('smd_00000000000000000000', 'p', 'n', '{all}', '{}', 'https://app.example/keys')",
            "violates check",
        ),
        (
            "INSERT INTO gateway.clients (client_id, practice_id, name, scopes, jwks) VALUES ('smd_00000000000000000000', 'p', 'n', '{all}', '{')",
            "invalid input syntax for type json",
        ),
    ] {
        let error = sql(&mut conn, statement).await.unwrap_err();
        assert!(error.contains(part), "{statement}: {error}");
    }
}

#[tokio::test]
async fn plain_sql_can_wait_until_it_is_in_force() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, _) = world(&url).await;
    let (mut feed, head) = follow(&store).await;
    let mut conn = by_hand(&url).await;
    sql(&mut conn, "BEGIN; UPDATE gateway.practices SET name = 'x'").await.unwrap();
    assert!(sql(&mut conn, "SELECT gateway.await()").await.unwrap_err().contains("COMMIT"), "not before the commit");
    sql(&mut conn, "ROLLBACK").await.unwrap();
    sql(&mut conn, "UPDATE gateway.practices SET name = 'x'").await.unwrap();
    assert!(sql(&mut conn, "SELECT gateway.await(NULL, '20 ms')").await.unwrap_err().contains("1 gateway(s) have not applied"));
    let waiting = tokio::spawn(async move { sql(&mut conn, "SELECT gateway.await()").await });
    let (head, _) = batch(&mut *feed, head).await;
    assert!(!waiting.is_finished(), "read is not yet in force");
    feed.acknowledge(head).await.unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn writers_of_one_practice_keep_its_ledger_whole() {
    let server = Postgres::start(&[]);
    let (store, _) = world(&server.database()).await;
    let mut writers = Vec::new();
    for n in 0..8 {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            for step in 0..5 {
                let _ = store.create_client(&client((n % 2 == 0).then_some("u")), &operator()).await.unwrap();
                let _ = store.put_practice(&practice_id("p"), &format!("{n} {step}"), &operator()).await.unwrap();
                let _ = store.set_user_access(&suite::user_id("u"), true, &operator()).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let events = store.audit(Some(&practice_id("p"))).await.unwrap();
    assert!(events.len() >= 45 && audit::verify(&events).is_ok());
}

#[tokio::test]
async fn a_log_that_cannot_be_relied_on_is_not_followed() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, _) = world(&url).await;
    let mut conn = by_hand(&url).await;
    for (wrong, right) in [
        ("ALTER TABLE gateway.clients DISABLE TRIGGER log_update", "ALTER TABLE gateway.clients ENABLE ALWAYS TRIGGER log_update"),
        ("ALTER TABLE gateway.clients ENABLE TRIGGER log_update", "ALTER TABLE gateway.clients ENABLE ALWAYS TRIGGER log_update"),
        ("CREATE FUNCTION gateway.mine() RETURNS void LANGUAGE sql AS ''", "DROP FUNCTION gateway.mine"),
    ] {
        sql(&mut conn, wrong).await.unwrap();
        assert!(message(store.feed().await.unwrap().register(None).await).contains("disabled, dropped or altered"), "{wrong}");
        sql(&mut conn, right).await.unwrap();
        store.feed().await.unwrap().register(None).await.unwrap();
    }
}

#[tokio::test]
async fn each_role_can_do_its_work_and_no_more() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, app) = world(&url).await;
    let mut owner = by_hand(&url).await;
    sql(&mut owner, "CREATE ROLE serves LOGIN IN ROLE gateway_node; CREATE ROLE manages LOGIN IN ROLE gateway_management").await.unwrap();
    let serves = url.replace("postgres@", "serves@");
    let manages = url.replace("postgres@", "manages@");
    let serving = PgStore::open(&serves, &FLEET, false).await.unwrap();
    let managing = PgStore::open(&manages, &FLEET, false).await.unwrap();
    let (mut feed, head) = follow(&serving).await;
    let committed = managing.revoke_client(app.id, now(), &operator()).await.unwrap();
    let (reached, _) = batch(&mut *feed, head).await;
    assert_eq!(reached, committed.revision());
    feed.acknowledge(reached).await.unwrap();
    assert_eq!(managing.barrier(committed).await.unwrap().applied, 1);
    for refused in [
        serving.put_practice(&practice_id("q"), "x", &operator()).await.map(drop),
        serving.create_client(&client(None), &operator()).await.map(drop),
        managing.feed().await.unwrap().register(None).await.map(drop),
    ] {
        assert!(message(refused).contains("permission denied"));
    }
    for url in [serves, manages] {
        let mut conn = by_hand(&url).await;
        for statement in [
            "DELETE FROM gateway.clients",
            "DELETE FROM gateway.change_txns",
            "INSERT INTO gateway.change_txns (xid) VALUES ('1')",
            "UPDATE gateway.change_floor SET seq = 0",
            "UPDATE gateway.audit_events SET actor = ''",
            "ALTER TABLE gateway.clients DISABLE TRIGGER ALL",
            "SELECT nextval('gateway.change_seq')",
            "SET session_replication_role = replica",
            "CREATE TABLE gateway.mine ()",
        ] {
            let error = sql(&mut conn, statement).await.unwrap_err();
            assert!(error.contains("permission denied") || error.contains("must be owner"), "{statement}: {error}");
        }
    }
    drop(store);
}

#[tokio::test]
async fn what_keeps_it_from_opening_is_said() {
    let server = Postgres::start(&[]);
    let url = server.database();
    assert!(message(PgStore::open(&url, &FLEET, false).await).contains("run `sigmagate migrate`"));
    assert!(message(PgStore::open(&server.url("nowhere"), &FLEET, true).await).contains("createdb"));
    let closed = format!("postgres://u:hidden-word@127.0.0.1:{}/x", server.port() ^ 1);
    let text = message(PgStore::open(&closed, &FLEET, true).await);
    assert!(text.contains("cannot be reached") && !text.contains("hidden-word"), "{text}");
    // Several at once: one makes the schema, the others find it.
    let (a, b, c) = tokio::join!(open(&url), open(&url), open(&url));
    drop((a, b, c));
    let mut conn = by_hand(&url).await;
    sql(&mut conn, "INSERT INTO gateway.schema_version (version) VALUES (99)").await.unwrap();
    assert!(message(PgStore::open(&url, &FLEET, true).await).contains("run a newer sigmagate"));
    sql(&mut conn, &format!("ALTER DATABASE {} SET synchronous_commit = off", url.rsplit('/').next().unwrap())).await.unwrap();
    sql(&mut conn, "DELETE FROM gateway.schema_version WHERE version = 99").await.unwrap();
    assert!(message(PgStore::open(&url, &FLEET, true).await).contains("could lose a revocation"));
    PgStore::open(&url, &Fleet { durability_asserted: true, ..FLEET }, true).await.unwrap();
}

#[tokio::test]
async fn the_database_is_reached_over_tls_that_is_verified() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let server = Postgres::start_tls(&cert, &key);
    let url = server.database();
    let (_, database) = url.rsplit_once('/').unwrap();
    let verified = format!("postgres://postgres@localhost:{}/{database}?sslmode=verify-full&sslrootcert={}", server.port(), cert.display());
    let (store, _) = world(&verified).await;
    let mut conn = by_hand(&verified).await;
    let encrypted: bool =
        sqlx::query_scalar("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").fetch_one(&mut conn).await.unwrap();
    assert!(encrypted);
    let other = folder.path().join("other.pem");
    std::fs::write(&other, rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()).unwrap();
    let unverified = verified.replace(&cert.display().to_string(), &other.display().to_string());
    assert!(message(PgStore::open(&unverified, &FLEET, true).await).contains("no TLS"));
    store.close().await;
}

/// A node as a gateway runs it.
struct Node {
    replica: Arc<Replica>,
    live: watch::Receiver<Option<Revision>>,
    _stop: oneshot::Sender<()>,
}

struct Watch(watch::Sender<Option<Revision>>);

impl feed::Observer for Watch {
    fn live(&self, revision: Revision, _took: Option<Took>, _entries: Option<Entries>) {
        self.0.send_replace(Some(revision));
    }

    fn hurried(&self, revision: Revision, _took: Took, _entries: Entries) {
        self.0.send_if_modified(|live| live.is_some_and(|live| live < revision) && live.replace(revision).is_some());
    }

    fn failed(&self, _error: &Error) {}

    fn stale(&self) {
        self.0.send_replace(None);
    }
}

impl Node {
    fn start(store: &PgStore) -> Self {
        let replica = Arc::new(Replica::new(Arc::new(ScopeRegistry::default()), Arc::new(TierNames::default())));
        let (sender, live) = watch::channel(None);
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(feed::run(Arc::new(store.clone()), Arc::clone(&replica), Arc::new(Watch(sender)), async {
            let _ = stopped.await;
        }));
        Self { replica, live, _stop: stop }
    }

    async fn live(&mut self) {
        self.live.wait_for(Option::is_some).await.unwrap();
    }

    async fn stale(&mut self) {
        self.live.wait_for(Option::is_none).await.unwrap();
    }

    fn admits(&self, app: &Client) -> bool {
        self.replica
            .read(app.id, Duration::ZERO, |client| client.is_some_and(|client| !client.facts([127, 0, 0, 1].into(), now()).revoked))
            .is_ok_and(|(yes, _)| yes)
    }
}

async fn receipt(store: &PgStore, committed: Committed) -> Receipt {
    store.barrier(committed).await.unwrap()
}

#[tokio::test]
async fn a_node_whose_listener_is_cut_off_learns_all_the_same() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, app) = world(&url).await;
    let (mut a, mut b) = (Node::start(&store), Node::start(&store));
    a.live().await;
    b.live().await;
    let mut conn = by_hand(&url).await;
    for _ in 0..10 {
        sql(
            &mut conn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%gateway_change%' AND pid <> pg_backend_pid()",
        )
        .await
        .unwrap();
        let committed = store.put_practice(&practice_id("p"), &uuid::Uuid::new_v4().to_string(), &operator()).await.unwrap();
        let receipt = receipt(&store, committed).await;
        assert_eq!((receipt.applied, receipt.expired), (2, 0));
    }
    assert!(a.admits(&app) && b.admits(&app));
    let committed = store.revoke_client(app.id, now(), &operator()).await.unwrap();
    receipt(&store, committed).await;
    assert!(!a.admits(&app) && !b.admits(&app));
}

#[tokio::test]
async fn a_database_that_dies_ends_the_lease_and_one_that_comes_back_restores_it() {
    let server = Postgres::start(&[]);
    let (store, app) = world(&server.database()).await;
    let mut node = Node::start(&store);
    node.live().await;
    server.crash();
    node.stale().await;
    assert!(!node.admits(&app));
    server.resume();
    node.live().await;
    assert!(node.admits(&app));
    let committed = store.revoke_client(app.id, now(), &operator()).await.unwrap();
    let receipt = receipt(&store, committed).await;
    assert_eq!((receipt.applied, receipt.expired), (1, 0), "what the node was before is waited for no more");
    assert!(!node.admits(&app));
}

#[tokio::test]
async fn a_node_that_was_taken_out_of_the_register_stops_and_joins_anew() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, _) = world(&url).await;
    let mut node = Node::start(&store);
    node.live().await;
    let mut conn = by_hand(&url).await;
    let before: String = sqlx::query_scalar("DELETE FROM gateway.nodes RETURNING node_id").fetch_one(&mut conn).await.unwrap();
    node.stale().await;
    node.live().await;
    let after: String = sqlx::query_scalar("SELECT node_id FROM gateway.nodes").fetch_one(&mut conn).await.unwrap();
    assert_ne!(before, after, "an id is never used again");
    // Another history, as after a failover: the numbers of before mean nothing any more.
    sql(&mut conn, "UPDATE gateway.nodes SET history = 'another'").await.unwrap();
    let committed = store.put_practice(&practice_id("p"), "y", &operator()).await.unwrap();
    let receipt = receipt(&store, committed).await;
    assert_eq!((receipt.applied, receipt.expired), (0, 1), "what was acknowledged in another history does not count");
}

#[tokio::test]
async fn each_node_knows_how_many_there_are() {
    let server = Postgres::start(&[]);
    let store = open(&server.database()).await;
    let (mut own, head) = follow(&store).await;
    let (mut other, _) = follow(&store).await;
    for nodes in [2, 1] {
        own.poll(head).await.unwrap();
        assert_eq!(own.nodes(), nodes);
        other.leave().await.unwrap();
    }
}

#[tokio::test]
async fn a_dead_node_is_outwaited_once_and_then_taken_out() {
    let server = Postgres::start(&[]);
    let (store, _) = world(&server.database()).await;
    let mut node = Node::start(&store);
    node.live().await;
    let (dead, _) = follow(&store).await;
    let committed = store.put_practice(&practice_id("p"), "y", &operator()).await.unwrap();
    let first = receipt(&store, committed).await;
    // By the clock of the coordinator or by that of the other node, which takes the dead one out; whichever is first.
    assert!(first.applied == 1 && first.expired <= 1, "{first:?}");
    assert!(first.expired == 0 || first.waited >= FLEET.timing.lease, "{first:?}");
    loop {
        let committed = store.put_practice(&practice_id("p"), &uuid::Uuid::new_v4().to_string(), &operator()).await.unwrap();
        if receipt(&store, committed).await.expired == 0 {
            break;
        }
    }
    drop(dead);
}

#[tokio::test]
async fn a_call_ends_by_the_clock_when_the_database_dies_after_the_commit() {
    let server = Postgres::start(&[]);
    let (store, _) = world(&server.database()).await;
    let (_silent, _) = follow(&store).await;
    let committed = store.put_practice(&practice_id("p"), "y", &operator()).await.unwrap();
    let waiting = tokio::spawn({
        let store = store.clone();
        async move { store.barrier(committed).await }
    });
    // Once it has read the register, it needs nothing more.
    tokio::task::yield_now().await;
    let crashed = tokio::task::spawn_blocking(move || {
        server.crash();
        server
    });
    let ended = waiting.await.unwrap();
    crashed.await.unwrap();
    match ended {
        Ok(receipt) => assert!(receipt.expired == 1 && receipt.waited >= FLEET.timing.lease, "{receipt:?}"),
        Err(error) => assert!(message::<()>(Err(error)).contains("the change stands")),
    }
}
