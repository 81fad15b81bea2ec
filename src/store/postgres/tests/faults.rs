//! What must not be believed: a commit that nobody vouches for, a database that says nothing, a role that reaches too far.

use super::*;
use crate::clock::boot_time;
use crate::store::suite::user_id;

/// Waits for a state, looking again and again.
pub(super) async fn until(conn: &mut PgConnection, question: &'static str) {
    for _ in 0..4000 {
        if sqlx::query_scalar::<_, bool>(question).fetch_one(&mut *conn).await.unwrap() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain: {question}");
}

/// Whether some session waits for a standby to have its commit.
const WAITS_FOR_A_STANDBY: &str = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')";
const CANCEL_THE_WAIT: &str = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

/// Has every commit wait for a standby that there is not.
async fn lack_a_standby(url: &str, conn: &mut PgConnection) {
    sql(conn, "ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await.unwrap();
    sql(conn, "SELECT pg_reload_conf()").await.unwrap();
    // The settings are read by each process in its own time, and what counts is what one of them has told all: so try.
    for _ in 0..1000 {
        let mut probe = by_hand(url).await;
        let probing = tokio::spawn(async move {
            sql(&mut probe, "SET synchronous_commit = on; UPDATE gateway.users SET role = role").await.unwrap();
        });
        while !probing.is_finished() {
            if sqlx::query_scalar::<_, bool>(WAITS_FOR_A_STANDBY).fetch_one(&mut *conn).await.unwrap() {
                sql(conn, CANCEL_THE_WAIT).await.unwrap();
                probing.await.unwrap();
                return;
            }
        }
    }
    panic!("no commit waits");
}

#[tokio::test]
async fn a_commit_whose_wait_for_a_standby_is_cancelled_is_not_acknowledged() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, app) = world(&url).await;
    let mut conn = by_hand(&url).await;
    lack_a_standby(&url, &mut conn).await;
    // The second finds the change made, and yet nothing has proved that a standby has it.
    for _ in 0..2 {
        let revoking = tokio::spawn({
            let store = store.clone();
            async move { store.revoke_client(app.id, now(), &operator()).await }
        });
        until(&mut conn, WAITS_FOR_A_STANDBY).await;
        sql(&mut conn, CANCEL_THE_WAIT).await.unwrap();
        assert!(message(revoking.await.unwrap()).contains("may or may not"));
    }
    sql(&mut conn, "ALTER SYSTEM RESET synchronous_standby_names").await.unwrap();
    sql(&mut conn, "SELECT pg_reload_conf()").await.unwrap();
    until(&mut conn, "SELECT current_setting('synchronous_standby_names') = ''").await;
    let _ = store.revoke_client(app.id, now(), &operator()).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_no_standby_takes_is_given_up_in_time() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, app) = world(&url).await;
    let mut conn = by_hand(&url).await;
    // Less than a revocation needs is not enough, whoever has set it.
    let set = format!("ALTER DATABASE {} SET synchronous_commit = local", url.rsplit('/').next().unwrap());
    sql(&mut conn, &set).await.unwrap();
    store.close().await;
    let store = open(&url).await;
    lack_a_standby(&url, &mut conn).await;
    let text = message(store.revoke_client(app.id, now(), &operator()).await);
    assert!(text.contains("may or may not"), "{text}");
}

#[tokio::test]
async fn a_database_that_says_nothing_is_given_up_in_time() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, app) = world(&url).await;
    let mut conn = by_hand(&url).await;
    sql(&mut conn, "BEGIN; LOCK TABLE gateway.practices, gateway.clients").await.unwrap();
    let asking = tokio::spawn({
        let store = store.clone();
        async move {
            let by = operator();
            tokio::join!(store.practices(), store.revoke_client(app.id, now(), &by))
        }
    });
    until(&mut conn, "SELECT count(*) = 2 FROM pg_stat_activity WHERE wait_event_type = 'Lock'").await;
    // From here on no limit of the server's own is of use.
    server.freeze();
    let (read, changed) = asking.await.unwrap();
    assert!(message(read).contains("did not answer"));
    assert!(message(changed).contains("may or may not"));
    server.thaw();
    sql(&mut conn, "ROLLBACK").await.unwrap();
    let _ = store.revoke_client(app.id, now(), &operator()).await.unwrap();
    server.kill();
    assert!(message(store.practices().await).contains("PostgreSQL at"));
    server.resume();
    assert!(store.client(app.id).await.unwrap().revoked_at.is_some());
}

#[tokio::test]
async fn the_ledger_has_one_line_however_the_database_isolates() {
    let server = Postgres::start(&["default_transaction_isolation = 'repeatable read'"]);
    let (store, _) = world(&server.database()).await;
    let mut writers = Vec::new();
    for _ in 0..6 {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            for _ in 0..5 {
                let new = client(Some("u"));
                let _ = store.create_client(&new, &operator()).await.unwrap();
                let _ = store.revoke_client(new.client.id, now(), &operator()).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let events = store.audit(None).await.unwrap();
    assert_eq!((events.len(), audit::verify(&events)), (4 + 1 + 60, Ok(())));
}

#[tokio::test]
async fn the_ledger_cannot_be_forked_or_led_astray_by_hand() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, _) = world(&url).await;
    let (mut one, mut two) = (by_hand(&url).await, by_hand(&url).await);
    let last = "(SELECT hash FROM gateway.audit_events WHERE practice_id = 'p' ORDER BY id DESC LIMIT 1)";
    let event = |id: &str| {
        format!(
            "INSERT INTO gateway.audit_events VALUES ({id}, now(), 'p', 'a', 'o', 'x', 't', 'null', 'null', {last}, decode(repeat('01', 32), 'hex'))"
        )
    };
    // A number from far ahead would come after every later event.
    for id in ["1000000", "9223372036854775807", "lastval()"] {
        assert!(sql(&mut one, &event(id)).await.is_err(), "{id}");
    }
    // Two that have both read the same last event, in the view that each has kept.
    let next = event("nextval('gateway.audit_event_id')");
    sql(&mut one, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM gateway.audit_events").await.unwrap();
    sql(&mut two, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM gateway.audit_events").await.unwrap();
    sql(&mut one, &next).await.unwrap();
    sql(&mut one, "COMMIT").await.unwrap();
    assert!(sql(&mut two, &next).await.is_err());
    sql(&mut two, "ROLLBACK").await.unwrap();
    let before = store.audit(Some(&practice_id("p"))).await.unwrap().len();
    let _ = store.put_practice(&practice_id("p"), "goes on", &operator()).await.unwrap();
    assert_eq!(store.audit(Some(&practice_id("p"))).await.unwrap().len(), before + 1);
}

#[tokio::test]
async fn an_owner_is_of_the_practice_also_where_replication_writes() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, _) = world(&url).await;
    let _ = store.put_practice(&practice_id("q"), "Other", &operator()).await.unwrap();
    let _ = store.create_client(&client(Some("u")), &operator()).await.unwrap();
    let mut conn = by_hand(&url).await;
    // Which switches foreign keys off.
    sql(&mut conn, "SET session_replication_role = replica").await.unwrap();
    for (statement, part) in [
        (
            "INSERT INTO gateway.clients (client_id, practice_id, owner, name, scopes) VALUES ('smd_00000000000000000000', 'q', 'u', 'n', '{all}')",
            "must be a user of its practice",
        ),
        (
            "DELETE FROM gateway.users; INSERT INTO gateway.users (user_id, practice_id, role) VALUES ('u', 'q', 'admin')",
            "keeps their id and practice",
        ),
    ] {
        let error = sql(&mut conn, statement).await.unwrap_err();
        assert!(error.contains(part), "{statement}: {error}");
    }
    assert_eq!(store.user(&user_id("u")).await.unwrap().practice_id, practice_id("p"));
}

#[tokio::test]
async fn no_role_borrows_the_owners_rights_through_a_type_of_its_own() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let _store = open(&url).await;
    let mut owner = by_hand(&url).await;
    sql(&mut owner, "CREATE ROLE manages LOGIN IN ROLE gateway_management").await.unwrap();
    let mut conn = by_hand(&url.replace("postgres@", "manages@")).await;
    // A temporary type is found before a built-in one of the same name, unless the path of the function says otherwise.
    for name in ["timestamptz", "text", "xid8", "regclass", "trigger"] {
        let attempt = format!(
            "CREATE TABLE pg_temp.seen_{name} (who text);
             GRANT ALL ON pg_temp.seen_{name} TO PUBLIC;
             CREATE FUNCTION pg_temp.spy_{name}() RETURNS boolean LANGUAGE plpgsql AS $$
                 BEGIN INSERT INTO pg_temp.seen_{name} VALUES (current_user); RETURN true; END $$;
             CREATE DOMAIN pg_temp.{name} AS pg_catalog.timestamptz CHECK (pg_temp.spy_{name}())"
        );
        sql(&mut conn, &attempt).await.unwrap();
    }
    let _ = sql(&mut conn, "SELECT gateway.await()").await;
    let _ = sql(&mut conn, "INSERT INTO gateway.practices VALUES ('p', 'n', 'none')").await;
    let _ = sql(&mut conn, "UPDATE gateway.practices SET name = 'm'").await;
    for name in ["timestamptz", "text", "xid8", "regclass", "trigger"] {
        let question = format!("SELECT array_agg(DISTINCT who::pg_catalog.text) FROM pg_temp.seen_{name}");
        let ran: Option<Vec<String>> = sqlx::query_scalar(AssertSqlSafe(question)).fetch_one(&mut conn).await.unwrap();
        assert_eq!(ran, None, "{name}");
    }
}

#[tokio::test]
async fn the_register_of_another_history_tells_nothing_of_a_change() {
    let server = Postgres::start(&[]);
    let (store, app) = world(&server.database()).await;
    let committed = store.revoke_client(app.id, now(), &operator()).await.unwrap();
    let elsewhere = Committed::now_in("another".to_owned(), committed.revision());
    // Nobody is in this register: read as that of the commit, it would say at once that nobody has to be waited for.
    let begun = boot_time();
    assert!(message(store.barrier(elsewhere).await).contains("the change stands"));
    assert!(boot_time().since(begun) >= FLEET.timing.lease);
    assert_eq!(store.barrier(committed).await.unwrap().expired, 0);
}

#[tokio::test]
async fn a_change_that_is_repeated_is_confirmed_by_a_write() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, app) = world(&url).await;
    let _ = store.revoke_client(app.id, now(), &operator()).await.unwrap();
    let mut conn = by_hand(&url).await;
    let written = async |conn: &mut PgConnection| -> String {
        sqlx::query_scalar("SELECT xmin::text FROM gateway.change_floor").fetch_one(conn).await.unwrap()
    };
    let before = written(&mut conn).await;
    let _ = store.revoke_client(app.id, now(), &operator()).await.unwrap();
    assert_ne!(written(&mut conn).await, before, "a transaction that writes nothing proves nothing");
}

#[tokio::test]
async fn a_number_that_was_seen_is_not_forgotten_by_a_crash() {
    // The log is written out so seldom that a crash forgets what no commit has asked for.
    let server = Postgres::start(&["wal_writer_delay = 10s", "wal_writer_flush_after = 0"]);
    let url = server.database();
    let (store, _) = world(&url).await;
    let mut conn = by_hand(&url).await;
    sql(&mut conn, "SET synchronous_commit = off; UPDATE gateway.practices SET name = 'seen'").await.unwrap();
    // Not by a heartbeat, which would have it written out.
    let head = "SELECT gateway.head()";
    let seen: i64 = sqlx::query_scalar(head).fetch_one(&mut conn).await.unwrap();
    server.kill();
    server.resume();
    let mut conn = by_hand(&url).await;
    let kept: i64 = sqlx::query_scalar(head).fetch_one(&mut conn).await.unwrap();
    assert_eq!(kept, seen);
    drop(store);
}
