//! The strict mode: no COMMIT of plain SQL that takes access away returns before every gateway knows.

use super::*;
use crate::store::Subject;

/// A database in strict mode, and a client in it.
async fn strict(server: &Postgres) -> (String, PgStore, Client, PgConnection) {
    let url = server.database();
    let (store, app) = world(&url).await;
    server.strict(&url);
    let conn = by_hand(&url).await;
    (url, store, app, conn)
}

/// A node whose acknowledgements can be held back: everything it has heard of is in the replica.
async fn heard(node: &Node, wanted: impl Fn(&Replica) -> bool) {
    while !wanted(&node.replica) {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn fenced(replica: &Replica, app: &Client) -> bool {
    replica.peek(app.id).unwrap().facts([127, 0, 0, 1].into(), now()).fenced
}

fn revoked(replica: &Replica, app: &Client) -> bool {
    replica.peek(app.id).unwrap().facts([127, 0, 0, 1].into(), now()).revoked
}

/// Takes part in the register and never acknowledges anything; outwaited after a day.
const SILENT: &str = "INSERT INTO gateway.nodes (node_id, history, bound_ms) VALUES ('silent', gateway.history(), 86400000)";
/// Whether somebody's COMMIT waits behind a fence that is theirs.
const WAITS: &str = "SELECT EXISTS (SELECT FROM gateway.fences JOIN pg_stat_activity ON backend_xid = xid::xid)";

#[tokio::test]
async fn a_commit_by_hand_returns_when_every_gateway_denies_at_every_isolation_level() {
    let server = Postgres::start(&[]);
    let (_, store, _, mut conn) = strict(&server).await;
    let (mut a, mut b) = (Node::start(&store), Node::start(&store));
    a.live().await;
    b.live().await;
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let new = client(None);
        let committed = store.create_client(&new, &operator()).await.unwrap();
        receipt(&store, committed).await;
        let app = new.client;
        assert!(a.admits(&app) && b.admits(&app));
        let revoke =
            format!("BEGIN ISOLATION LEVEL {level}; UPDATE gateway.clients SET revoked_at = now() WHERE client_id = '{}'; COMMIT", app.id);
        sql(&mut conn, &revoke).await.unwrap();
        for node in [&a, &b] {
            assert!(fenced(&node.replica, &app) || revoked(&node.replica, &app), "{level}");
        }
        heard(&a, |replica| revoked(replica, &app) && !fenced(replica, &app)).await;
    }
    // And by one statement without a transaction around it, about all there are.
    sql(&mut conn, "UPDATE gateway.practices SET api_access = 'disabled'").await.unwrap();
    let any = store.clients(None, None).await.unwrap().pop().unwrap();
    let facts = a.replica.peek(any.id).unwrap().facts([127, 0, 0, 1].into(), now());
    assert!(facts.fenced || facts.practice != crate::entity::ApiAccess::Active);
}

#[tokio::test]
async fn the_commit_waits_for_each_gateway_and_what_comes_to_nothing_is_lifted() {
    let server = Postgres::start(&[]);
    let (url, store, app, mut conn) = strict(&server).await;
    let mut node = Node::start(&store);
    node.live().await;
    sql(&mut conn, SILENT).await.unwrap();
    let mut writer = by_hand(&url).await;
    let id = app.id;
    let waiting = tokio::spawn(async move {
        let done = sql(&mut writer, &format!("UPDATE gateway.clients SET revoked_at = now() WHERE client_id = '{id}'")).await;
        (done, writer)
    });
    // One gateway knows and denies, the other one keeps the COMMIT waiting.
    heard(&node, |replica| fenced(replica, &app)).await;
    assert!(!revoked(&node.replica, &app) && !waiting.is_finished());
    // Who starts meanwhile learns of the fence from the tables.
    let mut late = Node::start(&store);
    late.live().await;
    assert!(fenced(&late.replica, &app));
    let (mut feed, _) = follow(&store).await;
    assert_eq!(suite::everything(&mut *feed).await.fences, [Subject::Client(app.id)]);
    feed.leave().await.unwrap();

    // Cancelled, it changes nothing, and the fence goes, with no gateway having joined anew for it.
    let nodes = "SELECT string_agg(node_id, ' ' ORDER BY node_id) FROM gateway.nodes";
    let before: String = sqlx::query_scalar(nodes).fetch_one(&mut conn).await.unwrap();
    sql(&mut conn, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity JOIN gateway.fences ON backend_xid = xid::xid").await.unwrap();
    let (done, mut writer) = waiting.await.unwrap();
    assert!(done.unwrap_err().contains("canceling"));
    heard(&node, |replica| !fenced(replica, &app)).await;
    heard(&late, |replica| !fenced(replica, &app)).await;
    heard(&node, |_| node.admits(&app)).await;
    assert!(store.client(app.id).await.unwrap().revoked_at.is_none());
    faults::until(&mut conn, "SELECT NOT EXISTS (SELECT FROM gateway.fences)").await;
    let after: String = sqlx::query_scalar(nodes).fetch_one(&mut conn).await.unwrap();
    assert_eq!(before, after);

    // Out of patience, the same.
    sql(&mut writer, "SET gateway.patience = '1 ms'").await.unwrap();
    let revoke = format!("UPDATE gateway.clients SET revoked_at = now() WHERE client_id = '{}'", app.id);
    let why = sql(&mut writer, &revoke).await.unwrap_err();
    assert!(why.contains("nothing is changed") && why.contains("did not learn of it"), "{why}");
    // A writer that dies in the middle of it, too.
    let mut doomed = by_hand(&url).await;
    let dying = tokio::spawn(async move { sql(&mut doomed, &revoke).await });
    faults::until(&mut conn, WAITS).await;
    heard(&node, |replica| fenced(replica, &app)).await;
    sql(&mut conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity JOIN gateway.fences ON backend_xid = xid::xid").await.unwrap();
    assert!(dying.await.unwrap().unwrap_err().contains("terminating"));
    heard(&node, |replica| !fenced(replica, &app)).await;

    // The silent one gone, the next COMMIT passes, in the session that failed before.
    // As one that is older than fences would acknowledge them: it does not count.
    sql(&mut conn, "UPDATE gateway.nodes SET applied = 1000000, schema = 2 WHERE node_id = 'silent'").await.unwrap();
    let revoke = format!("UPDATE gateway.clients SET revoked_at = now() WHERE client_id = '{}'", app.id);
    sql(&mut writer, "SET gateway.patience = '100 ms'").await.unwrap();
    assert!(sql(&mut writer, &revoke).await.unwrap_err().contains("nothing is changed"));
    sql(&mut conn, "DELETE FROM gateway.nodes WHERE node_id = 'silent'").await.unwrap();
    sql(&mut writer, "RESET gateway.patience").await.unwrap();
    sql(&mut writer, &revoke).await.unwrap();
    assert!(fenced(&node.replica, &app) || revoked(&node.replica, &app));
    heard(&node, |replica| revoked(replica, &app) && !fenced(replica, &app)).await;
    faults::until(&mut conn, "SELECT NOT EXISTS (SELECT FROM gateway.fences)").await;
}

#[tokio::test]
async fn only_what_takes_access_away_is_fenced() {
    let server = Postgres::start(&[]);
    let (_, _, app, mut conn) = strict(&server).await;
    // Nobody acknowledges, so what is fenced fails, and what is not passes.
    sql(&mut conn, "UPDATE gateway.clients SET jwks = '{\"keys\": []}'").await.unwrap();
    sql(&mut conn, SILENT).await.unwrap();
    sql(&mut conn, "SET gateway.patience = '1 ms'").await.unwrap();
    let generation = "INSERT INTO gateway.client_secrets SELECT client_id, 2, digest_kind, digest FROM gateway.client_secrets";
    let narrow = [
        "UPDATE gateway.practices SET api_access = 'disabled'",
        "UPDATE gateway.users SET left_at = now()",
        "UPDATE gateway.clients SET revoked_at = now()",
        "UPDATE gateway.clients SET scopes = '{other}'",
        "UPDATE gateway.clients SET expires_at = now()",
        "UPDATE gateway.clients SET allowed_addresses = '{10.0.0.0/8}'",
        "UPDATE gateway.client_secrets SET expires_at = now(), ended = true",
        "UPDATE gateway.client_secrets SET expires_at = now() + interval '1 year'",
        "UPDATE gateway.clients SET jwks = NULL",
        "UPDATE gateway.clients SET jwks = '{\"keys\": [{}]}'",
        "UPDATE gateway.clients SET jwks = NULL, jwks_url = 'https://app.example/keys'",
    ];
    for statement in narrow {
        let why = sql(&mut conn, statement).await.expect_err(statement);
        assert!(why.contains("did not learn"), "{statement}: {why}");
    }
    for statement in [
        "UPDATE gateway.practices SET name = 'renamed'",
        "INSERT INTO gateway.practices VALUES ('q', 'new', 'active')",
        "UPDATE gateway.users SET api_access = true",
        "UPDATE gateway.users SET role = 'admin'",
        "UPDATE gateway.clients SET scopes = scopes || '{other}', name = 'renamed', tier = 'gold'",
        generation,
        // Taken back before it was ever in force.
        "BEGIN; SAVEPOINT s; UPDATE gateway.clients SET revoked_at = now(); ROLLBACK TO s; UPDATE gateway.clients SET name = 'again'; COMMIT",
        // And who waits by themselves.
        "BEGIN; SET LOCAL gateway.waits = on; UPDATE gateway.clients SET allowed_addresses = '{10.0.0.0/8}', expires_at = now() + interval '2 years'; COMMIT",
        "UPDATE gateway.clients SET allowed_addresses = '{10.0.0.0/8,192.168.0.0/16}', expires_at = now() + interval '3 years'",
        "UPDATE gateway.clients SET allowed_addresses = '{0.0.0.0/0}', expires_at = NULL",
        "UPDATE gateway.clients SET allowed_addresses = '{}'",
        "BEGIN; SET LOCAL gateway.waits = on; UPDATE gateway.clients SET jwks = NULL; COMMIT",
        "UPDATE gateway.clients SET jwks_url = 'https://app.example/keys'",
    ] {
        sql(&mut conn, statement).await.unwrap_or_else(|why| panic!("{statement}: {why}"));
    }
    for statement in [
        "UPDATE gateway.clients SET jwks_url = 'https://other.example/keys'",
        "UPDATE gateway.clients SET jwks_url = NULL",
        "UPDATE gateway.users SET api_access = false",
        "DELETE FROM gateway.users WHERE user_id NOT IN (SELECT owner FROM gateway.clients WHERE owner IS NOT NULL)",
    ] {
        assert!(sql(&mut conn, statement).await.expect_err(statement).contains("did not learn"), "{statement}");
    }
    // Numbered before it is fenced: refused, and in time it is not.
    let early = "BEGIN; SET CONSTRAINTS ALL IMMEDIATE; UPDATE gateway.clients SET revoked_at = now(); COMMIT";
    assert!(sql(&mut conn, early).await.unwrap_err().contains("SET CONSTRAINTS"));
    sql(&mut conn, "ROLLBACK").await.unwrap();
    for first in ["", "UPDATE gateway.clients SET name = 'first'; "] {
        let early = format!(
            "BEGIN; {first}SET CONSTRAINTS gateway.a_strict_commit IMMEDIATE; UPDATE gateway.clients SET revoked_at = now(); COMMIT"
        );
        assert!(sql(&mut conn, &early).await.unwrap_err().contains("SET CONSTRAINTS"), "{early}");
        let _ = sql(&mut conn, "ROLLBACK").await;
    }
    let last = "BEGIN; UPDATE gateway.clients SET revoked_at = now(); SET CONSTRAINTS ALL IMMEDIATE; COMMIT";
    assert!(sql(&mut conn, last).await.unwrap_err().contains("did not learn"));
    sql(&mut conn, "ROLLBACK; SELECT gateway.strict(false); UPDATE gateway.clients SET jwks_url = NULL").await.unwrap();
    for statement in narrow {
        sql(&mut conn, &format!("BEGIN; {statement}; ROLLBACK")).await.unwrap();
    }
    sql(&mut conn, &format!("UPDATE gateway.clients SET revoked_at = now() WHERE client_id = '{}'", app.id)).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_others_wait_for_does_not_wait_for_them() {
    let server = Postgres::start(&[]);
    let (url, store, app, mut conn) = strict(&server).await;
    let mut node = Node::start(&store);
    node.live().await;
    let (mut writer, mut other) = (by_hand(&url).await, by_hand(&url).await);
    sql(&mut writer, "BEGIN; UPDATE gateway.clients SET revoked_at = now()").await.unwrap();
    // Stands in line behind the writer, and the writer's own line would stand behind it: no deadlock that anybody sees.
    let off = tokio::spawn(async move { sql(&mut other, "SELECT gateway.strict(false)").await });
    faults::until(&mut conn, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%strict(false)')")
        .await;
    let committed = sql(&mut writer, "COMMIT").await;
    off.await.unwrap().unwrap();
    match committed {
        Ok(()) => heard(&node, |replica| revoked(replica, &app)).await,
        Err(why) => assert!(why.contains("lock timeout") && store.client(app.id).await.unwrap().revoked_at.is_none(), "{why}"),
    }
}

#[tokio::test]
async fn what_was_fenced_and_taken_back_inside_the_transaction_is_lifted_too() {
    let server = Postgres::start(&[]);
    let (_, store, app, mut conn) = strict(&server).await;
    let mut node = Node::start(&store);
    node.live().await;
    let back = "BEGIN; UPDATE gateway.practices SET name = 'x'; SAVEPOINT s; UPDATE gateway.clients SET revoked_at = now();
        SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO s; SET CONSTRAINTS ALL DEFERRED; UPDATE gateway.clients SET expires_at = now();
        SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO s; COMMIT";
    sql(&mut conn, back).await.unwrap();
    faults::until(&mut conn, "SELECT NOT EXISTS (SELECT FROM gateway.fences)").await;
    heard(&node, |replica| !fenced(replica, &app)).await;
    assert!(!revoked(&node.replica, &app));
}

#[tokio::test]
async fn a_fence_that_cannot_be_taken_down_does_not_keep_the_lease_from_being_renewed() {
    let server = Postgres::start(&[]);
    let (url, store, app, mut conn) = strict(&server).await;
    let mut node = Node::start(&store);
    node.live().await;
    sql(&mut conn, SILENT).await.unwrap();
    let mut writer = by_hand(&url).await;
    sql(&mut writer, "SET gateway.patience = '1 ms'").await.unwrap();
    let mut holder = by_hand(&url).await;
    let revoke =
        format!("BEGIN; UPDATE gateway.clients SET revoked_at = now() WHERE client_id = '{}'; SET CONSTRAINTS ALL IMMEDIATE", app.id);
    sql(&mut writer, &revoke).await.unwrap_err();
    // Fenced, and not over yet: the session still is in the transaction that failed, until here.
    sql(&mut holder, "BEGIN; LOCK TABLE gateway.change_order IN EXCLUSIVE MODE").await.unwrap();
    let _ = sql(&mut writer, "ROLLBACK").await;
    let beat = "SELECT max(beat) FROM gateway.nodes";
    let before: i64 = sqlx::query_scalar(beat).fetch_one(&mut conn).await.unwrap();
    while sqlx::query_scalar::<_, i64>(beat).fetch_one(&mut conn).await.unwrap() < before + 5 {
        assert!(node.live.borrow().is_some(), "the lease is renewed meanwhile");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sql(&mut holder, "ROLLBACK").await.unwrap();
    faults::until(&mut conn, "SELECT NOT EXISTS (SELECT FROM gateway.fences)").await;
    heard(&node, |replica| !fenced(replica, &app)).await;
}

#[tokio::test]
async fn a_copy_of_the_database_does_not_fence_the_one_it_was_copied_from() {
    let server = Postgres::start(&[]);
    let (url, store, _, conn) = strict(&server).await;
    drop(conn);
    store.close().await;
    let (base, from) = url.rsplit_once('/').unwrap();
    let mut admin = by_hand(&format!("{base}/postgres")).await;
    sql(&mut admin, &format!("CREATE DATABASE staging TEMPLATE {from}")).await.unwrap();
    let mut copy = by_hand(&format!("{base}/staging")).await;
    let why = sql(&mut copy, "UPDATE gateway.clients SET revoked_at = now()").await.unwrap_err();
    assert!(why.contains("is another database"), "{why}");
    let mut original = by_hand(&url).await;
    let fences: i64 = sqlx::query_scalar("SELECT count(*) FROM gateway.fences").fetch_one(&mut original).await.unwrap();
    assert_eq!(fences, 0);
}

#[tokio::test]
async fn the_store_fences_nothing_since_it_waits_for_a_receipt() {
    let server = Postgres::start(&[]);
    let (_, store, app, mut conn) = strict(&server).await;
    sql(&mut conn, SILENT).await.unwrap();
    let _ = store.revoke_client(app.id, now(), &operator()).await.unwrap();
    assert!(store.client(app.id).await.unwrap().revoked_at.is_some());
}

#[tokio::test]
async fn more_rows_than_are_worth_naming_are_fenced_each() {
    let server = Postgres::start(&[]);
    let (_, store, app, mut conn) = strict(&server).await;
    let digits = "lpad(n::text, 20, '0')";
    sql(&mut conn, &format!("INSERT INTO gateway.clients (client_id, practice_id, name, scopes) SELECT 'smd_' || {digits}, 'p', 'bulk', '{{billing}}' FROM generate_series(1, 6000) AS n")).await.unwrap();
    let mut node = Node::start(&store);
    node.live().await;
    sql(&mut conn, "UPDATE gateway.clients SET revoked_at = now()").await.unwrap();
    let bulk = Client { id: format!("smd_{:020}", 6000).parse().unwrap(), ..app.clone() };
    for app in [&app, &bulk] {
        assert!(fenced(&node.replica, app) || revoked(&node.replica, app));
    }
}

#[tokio::test]
async fn what_the_strict_mode_needs_is_said_and_who_may_do_what_stays_as_it_was() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, app) = world(&url).await;
    let mut conn = by_hand(&url).await;
    let fingerprint =
        async |conn: &mut PgConnection| -> String { sqlx::query_scalar("SELECT gateway.fingerprint()").fetch_one(conn).await.unwrap() };
    let before = fingerprint(&mut conn).await;
    let hint = async |conn: &mut PgConnection| {
        let error = sqlx::raw_sql("SELECT gateway.strict(true)").execute(conn).await.unwrap_err().into_database_error().unwrap();
        error.downcast_ref::<sqlx::postgres::PgDatabaseError>().hint().unwrap_or_default().to_owned()
    };
    assert!(hint(&mut conn).await.contains("CREATE EXTENSION dblink"));
    sql(&mut conn, "CREATE SCHEMA \"else where\"; CREATE EXTENSION dblink SCHEMA \"else where\"").await.unwrap();
    assert!(hint(&mut conn).await.contains("CREATE SERVER gateway_fence"));
    let address = format!("host '127.0.0.1', port '{}'", server.port());
    sql(&mut conn, &format!("CREATE SERVER gateway_fence FOREIGN DATA WRAPPER dblink_fdw OPTIONS ({address}, dbname 'postgres')"))
        .await
        .unwrap();
    assert!(hint(&mut conn).await.contains("CREATE USER MAPPING FOR postgres"));
    sql(&mut conn, "CREATE USER MAPPING FOR postgres SERVER gateway_fence OPTIONS (user 'postgres')").await.unwrap();
    assert!(sql(&mut conn, "SELECT gateway.strict(true)").await.is_err(), "another database");
    let name = url.rsplit('/').next().unwrap();
    sql(&mut conn, &format!("ALTER SERVER gateway_fence OPTIONS (SET dbname '{name}')")).await.unwrap();
    assert!(hint(&mut conn).await.contains("nothing else"), "a line left open would be the owner's");

    // Those who manage access can neither turn it on or off nor get around it; the line needs no more than they have.
    sql(
        &mut conn,
        "CREATE ROLE by_hand LOGIN; GRANT gateway_management TO by_hand; CREATE ROLE serving LOGIN; GRANT gateway_node TO serving",
    )
    .await
    .unwrap();
    sql(&mut conn, "ALTER USER MAPPING FOR postgres SERVER gateway_fence OPTIONS (SET user 'by_hand')").await.unwrap();
    sql(&mut conn, "SELECT gateway.strict(true)").await.unwrap();
    assert_eq!(fingerprint(&mut conn).await, before, "on or off, it is the same schema");
    let mut manager = by_hand(&url.replace("postgres@", "by_hand@")).await;
    for statement in
        ["SELECT gateway.strict(false)", "DELETE FROM gateway.fences", "SELECT gateway.lift()", "SELECT gateway.aside('x', 'connect')"]
    {
        assert!(sql(&mut manager, statement).await.unwrap_err().contains("permission denied"), "{statement}");
    }
    let future = "SELECT gateway.fence(gateway.place(), '99999999999', '{client}', '{x}')";
    assert!(sql(&mut manager, future).await.unwrap_err().contains("future"), "it would stand for ever");
    assert!(sql(&mut manager, "SELECT gateway.fence(gateway.place(), '3', '{client}', '{x}')").await.unwrap_err().contains("not running"));
    sql(&mut conn, "CREATE ROLE boss SUPERUSER; SET ROLE boss").await.unwrap();
    assert!(hint(&mut conn).await.contains("SET ROLE postgres"), "it connects as the owner");
    sql(&mut conn, "RESET ROLE").await.unwrap();
    let mut node = Node::start(&PgStore::open(&url.replace("postgres@", "serving@"), &FLEET, false).await.unwrap());
    node.live().await;
    sql(&mut manager, "UPDATE gateway.clients SET revoked_at = now()").await.unwrap();
    assert!(fenced(&node.replica, &app) || revoked(&node.replica, &app));
    heard(&node, |replica| revoked(replica, &app) && !fenced(replica, &app)).await;
    faults::until(&mut conn, "SELECT NOT EXISTS (SELECT FROM gateway.fences)").await;
    drop(store);
}
