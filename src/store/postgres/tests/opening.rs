//! What keeps the store from opening, in words that say what to do and never the password.

use super::*;

async fn refused(url: &str, migrate: bool) -> String {
    let text = message(PgStore::open(url, &FLEET, migrate).await);
    assert!(!text.contains("hidden-word"), "{text}");
    text
}

#[tokio::test]
async fn a_parameter_that_there_is_not_is_refused() {
    for url in ["postgres://u@h/d?sslmod=verify-full", "postgres://u@h/d?sslmode=verify-full&passwort=hidden-word"] {
        assert!(refused(url, false).await.contains("a parameter `"), "{url}");
    }
    assert!(refused("postgres://u:hidden-word@h/d?sslmode=sometimes", false).await.contains("no URL of a PostgreSQL database"));
    assert!(refused("postgres://u:hidden-word@h:99999/d", false).await.contains("no URL of a PostgreSQL database"));
}

#[tokio::test]
async fn a_password_is_asked_for_and_not_told() {
    let server = Postgres::start(&[]);
    let url = server.database();
    open(&url).await.close().await;
    let mut conn = by_hand(&url).await;
    sql(&mut conn, "CREATE ROLE manages LOGIN PASSWORD 'right' IN ROLE gateway_management").await.unwrap();
    server.crash();
    server.write("pg_hba.conf", "host all postgres 127.0.0.1/32 trust\nhost all manages 127.0.0.1/32 scram-sha-256\n");
    server.resume();
    PgStore::open(&url.replace("postgres@", "manages:right@"), &FLEET, true).await.unwrap().close().await;
    let text = refused(&url.replace("postgres@", "manages:hidden-word@"), true).await;
    assert!(text.contains("refuses the user or the password"), "{text}");
    let text = refused(&url.replace("postgres@", "stranger:hidden-word@"), true).await;
    assert!(text.contains("refuses the user or the password"), "{text}");
}

#[tokio::test]
async fn a_role_without_rights_is_told_which_it_needs() {
    let server = Postgres::start(&[]);
    let (url, empty) = (server.database(), server.database());
    let mut conn = by_hand(&url).await;
    sql(&mut conn, "CREATE ROLE plain LOGIN; CREATE ROLE owns LOGIN").await.unwrap();
    let name = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    sql(&mut conn, &format!("ALTER DATABASE {} OWNER TO owns", name(&empty))).await.unwrap();
    // May make a schema and no role, while the roles are not there yet.
    let text = refused(&empty.replace("postgres@", "owns@"), true).await;
    assert!(text.contains("may not create the role gateway_node"), "{text}");
    open(&url).await.close().await;
    let text = refused(&url.replace("postgres@", "plain@"), true).await;
    assert!(text.contains("grant the role the group `gateway_node` or `gateway_management`"), "{text}");
    // Nobody else's rights are needed once they are.
    PgStore::open(&empty.replace("postgres@", "owns@"), &FLEET, true).await.unwrap();
}

#[tokio::test]
async fn a_standby_is_refused() {
    let server = Postgres::start(&[]);
    let url = server.database();
    open(&url).await.close().await;
    server.crash();
    server.write("standby.signal", "");
    server.resume();
    assert!(refused(&url, true).await.contains("name the primary"));
}

#[tokio::test]
async fn a_server_that_loses_what_it_acknowledged_is_refused() {
    let server = Postgres::start(&["fsync = off", "full_page_writes = off"]);
    let url = server.database();
    let mut conn = by_hand(&url).await;
    for setting in ["fsync", "full_page_writes"] {
        let text = refused(&url, true).await;
        assert!(text.contains(&format!("`{setting}` is `off`")) && text.contains("durability = \"asserted\""), "{text}");
        PgStore::open(&url, &Fleet { durability_asserted: true, ..FLEET }, true).await.unwrap().close().await;
        sql(&mut conn, &format!("ALTER SYSTEM SET {setting} = on")).await.unwrap();
        sql(&mut conn, "SELECT pg_reload_conf()").await.unwrap();
        // Each session reads it in its own time; a new one begins with it once the server has.
        while value_of(&url, setting).await != "on" {}
    }
    open(&url).await.close().await;
}

async fn value_of(url: &str, name: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut by_hand(url).await).await.unwrap()
}

#[tokio::test]
async fn a_log_that_another_server_has_written_is_not_followed_but_begun_anew() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, app) = world(&url).await;
    let mut conn = by_hand(&url).await;
    // As a restored dump leaves it: transactions that this server has not got to yet.
    let next: String = sqlx::query_scalar("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetch_one(&mut conn).await.unwrap();
    let next: u64 = next.parse().unwrap();
    let head: i64 = sqlx::query_scalar("SELECT gateway.head()").fetch_one(&mut conn).await.unwrap();
    let restored = format!(
        "SET session_replication_role = replica; ALTER TABLE gateway.change_txns DISABLE TRIGGER stamp;
         INSERT INTO gateway.change_txns SELECT (n::text)::xid8, {head} + n - {next}, now() FROM generate_series({next} + 1, {next} + 200) AS n;
         ALTER TABLE gateway.change_txns ENABLE ALWAYS TRIGGER stamp; RESET session_replication_role"
    );
    sql(&mut conn, &restored).await.unwrap();
    let why = message(store.feed().await.unwrap().register(None).await);
    assert!(why.contains("written by another server") && why.contains("sigmagate migrate"), "{why}");
    let store = PgStore::open(&url, &FLEET, true).await.unwrap();
    let (mut feed, anew) = follow(&store).await;
    assert_eq!(anew, Revision(u64::try_from(head).unwrap() + 200), "no number is given twice");
    sql(&mut conn, "SELECT setval('gateway.change_seq', gateway.head())").await.unwrap();
    // Every change of the transactions that have those numbers now is seen.
    let mut head = anew;
    for n in 0..250 {
        sql(&mut conn, &format!("UPDATE gateway.clients SET name = '{n}' WHERE client_id = '{}'", app.id)).await.unwrap();
        let (next, changed) = batch(&mut *feed, head).await;
        assert_eq!(changed, 1, "change {n}");
        head = next;
    }
}
