use std::sync::Arc;

use sqlx::{ConnectOptions, Connection, SqliteConnection};
use tempfile::TempDir;

use super::*;
use crate::clock::now;
use crate::id::Revision;
use crate::store::records::{Idempotent, Records};
use crate::store::suite::{self, client, follow, furnish, operator, practice_id, user_id};
use crate::store::{Change, Changes, Snapshot};

/// The id of a token.
const TOKEN: &str = "936da01f-9abd-4d9d-80c7-02af85c822a8";

/// A database in a directory of its own.
struct World {
    store: Arc<SqliteStore>,
    dir: TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path().join("gateway.db").to_str().unwrap(), true).await.unwrap();
        Self { store: Arc::new(store), dir }
    }

    async fn furnished() -> (Self, Client) {
        let world = Self::new().await;
        furnish(&*world.store).await;
        let new = client(Some("u"));
        let _ = world.store.create_client(&new, &operator()).await.unwrap();
        (world, new.client)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("gateway.db")
    }

    async fn reopen(&self, migrate: bool) -> Result<SqliteStore, Error> {
        SqliteStore::open_waiting(self.path().to_str().unwrap(), migrate, Duration::from_millis(20)).await
    }

    /// A connection as another program has it: no pragma of ours.
    async fn by_hand(&self) -> SqliteConnection {
        SqliteConnection::connect(self.path().to_str().unwrap()).await.unwrap()
    }
}

async fn run_sql(conn: &mut SqliteConnection, sql: &str) -> Result<(), String> {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.map(drop).map_err(|error| error.to_string())
}

fn message<T>(result: Result<T, Error>) -> String {
    match result {
        Err(Error::Unusable { message, .. } | Error::Deposed(message)) => message,
        Err(other) => panic!("{other:?} does not say that the file is unusable"),
        Ok(_) => panic!("it worked"),
    }
}

#[tokio::test]
async fn it_does_what_every_store_must() {
    let dir = tempfile::tempdir().unwrap();
    let made = std::cell::Cell::new(0);
    suite::run(|| {
        made.set(made.get() + 1);
        let path = dir.path().join(format!("{}.db", made.get()));
        async move { Arc::new(SqliteStore::open(path.to_str().unwrap(), true).await.unwrap()) as Arc<dyn Store> }
    })
    .await;
}

#[tokio::test]
async fn what_is_final_is_final_by_hand_too() {
    let (world, client) = World::furnished().await;
    let _ = world.store.put_practice(&practice_id("q"), "Other", &operator()).await.unwrap();
    let digest = crate::credential::Secret::generate().digest(None);
    let _ = world.store.add_secret(client.id, &digest, now(), now(), &operator()).await.unwrap();
    let mut other = suite::client(None);
    other.client.name = "revoked".into();
    let _ = world.store.create_client(&other, &operator()).await.unwrap();
    let _ = world.store.revoke_client(other.client.id, now(), &operator()).await.unwrap();
    let (live, dead) = (client.id, other.client.id);
    let (signing_key, by) = (suite::tokens::signing_key(), operator());
    let _ = world.store.add_signing_key(&signing_key, &by).await.unwrap();
    let _ = world.store.plan_signing_key(&signing_key.id, now(), &by).await.unwrap();
    for hours in [1, -23] {
        let _ = world.store.revoke_token(&suite::tokens::token(other.client.id, hours), &by).await.unwrap();
    }
    assert!(world.store.use_assertion(live, [7; 32], now()).await.unwrap());
    let key =
        |id: &str, algorithm: &str, sealed: &str| format!("INSERT INTO signing_keys VALUES ({id}, '{algorithm}', {sealed}, 1, NULL, NULL)");
    let token = |id: &str| format!("INSERT INTO revoked_tokens VALUES ('{id}', '{live}', 1, 1)");
    let mut conn = world.by_hand().await;
    let replaced = |verb: &str, id: ClientId| {
        format!("{verb} INTO clients (client_id, practice_id, name, scopes, created_at) VALUES ('{id}', 'p', 'n', 'all', 1)")
    };
    let secret = |verb: &str, id: ClientId, generation: u32| {
        format!("{verb} INTO client_secrets VALUES ('{id}', {generation}, 'sha256', zeroblob(32), 1, NULL, 0)")
    };
    let newest = "(SELECT hash FROM audit_events WHERE practice_id = 'p' ORDER BY id DESC LIMIT 1)";
    let event = |verb: &str, id: &str, prev_hash: &str| {
        format!("{verb} INTO audit_events VALUES ({id}, 1, 'p', 'a', 'o', 'x', 't', 'null', 'null', {prev_hash}, zeroblob(32))")
    };
    for (sql, want) in [
        (format!("UPDATE clients SET revoked_at = NULL WHERE client_id = '{dead}'"), "revocation is final"),
        (format!("UPDATE clients SET revoked_at = 99999999999999 WHERE client_id = '{dead}'"), "revocation is final"),
        (format!("UPDATE clients SET scopes = 'all' WHERE client_id = '{dead}'"), "revocation is final"),
        (format!("UPDATE OR IGNORE clients SET revoked_at = NULL WHERE client_id = '{dead}'"), "revocation is final"),
        (format!("UPDATE OR REPLACE clients SET client_id = '{dead}' WHERE client_id = '{live}'"), "keeps its id"),
        (format!("UPDATE clients SET practice_id = 'q' WHERE client_id = '{live}'"), "keeps its id, practice"),
        (format!("UPDATE clients SET owner = NULL WHERE client_id = '{live}'"), "owner"),
        (format!("DELETE FROM clients WHERE client_id = '{dead}'"), "cannot be deleted"),
        (replaced("INSERT OR REPLACE", dead), "cannot be replaced"),
        (replaced("REPLACE", live), "cannot be replaced"),
        (replaced("INSERT OR IGNORE", dead), "cannot be replaced"),
        (format!("{} ON CONFLICT (client_id) DO UPDATE SET revoked_at = NULL", replaced("INSERT", dead)), "cannot be replaced"),
        (format!("UPDATE clients SET jwks = '{{' WHERE client_id = '{live}'"), "CHECK constraint failed"),
        (
            format!("UPDATE clients SET jwks = '{{}}', jwks_url = 'https://a.example/' WHERE client_id = '{live}'"),
            "CHECK constraint failed",
        ),
        (secret("INSERT", dead, 2), "no new secret"),
        (secret("INSERT OR REPLACE", live, 1), "secret cannot be replaced"),
        (format!("UPDATE client_secrets SET expires_at = NULL WHERE client_id = '{live}' AND generation = 1"), "only end sooner"),
        (format!("UPDATE client_secrets SET expires_at = expires_at + 1 WHERE client_id = '{live}' AND generation = 1"), "only end sooner"),
        (
            "UPDATE client_secrets SET expires_at = 1, ended = 1 WHERE generation = 1; UPDATE client_secrets SET ended = 0".into(),
            "stays ended",
        ),
        (format!("UPDATE client_secrets SET digest = zeroblob(32) WHERE client_id = '{live}'"), "cannot be altered"),
        (format!("UPDATE OR REPLACE client_secrets SET generation = 1 WHERE client_id = '{live}' AND generation = 2"), "cannot be altered"),
        (format!("DELETE FROM client_secrets WHERE client_id = '{live}'"), "cannot be deleted"),
        ("UPDATE users SET practice_id = 'q' WHERE user_id = 'u'".into(), "keeps their id and practice"),
        ("INSERT OR REPLACE INTO users (user_id, practice_id, role) VALUES ('u', 'q', 'admin')".into(), "keeps their id and practice"),
        (
            "PRAGMA foreign_keys = OFF; DELETE FROM users; INSERT INTO users (user_id, practice_id, role) VALUES ('u', 'q', 'admin')"
                .into(),
            "keeps their",
        ),
        ("UPDATE practices SET practice_id = 'r' WHERE practice_id = 'p'".into(), "keeps its id"),
        ("UPDATE audit_events SET actor = 'x' WHERE id = 1".into(), "cannot be altered"),
        ("DELETE FROM audit_events WHERE id = 1".into(), "cannot be deleted"),
        (event("INSERT OR REPLACE", "1", newest), "cannot be replaced"),
        (event("INSERT", "1000", "zeroblob(32)"), "must follow"),
        ("DELETE FROM signing_keys".into(), "cannot be deleted"),
        ("UPDATE signing_keys SET key_id = replace(key_id, 'a', 'b')".into(), "cannot be altered"),
        ("UPDATE signing_keys SET algorithm = 'EdDSA'".into(), "cannot be altered"),
        ("UPDATE OR IGNORE signing_keys SET sealed = x'00'".into(), "cannot be altered"),
        ("UPDATE signing_keys SET created_at = 1".into(), "cannot be altered"),
        ("UPDATE signing_keys SET signs_from = NULL".into(), "the moment that was planned"),
        ("UPDATE signing_keys SET signs_from = signs_from + 1".into(), "the moment that was planned"),
        ("REPLACE INTO signing_keys SELECT key_id, algorithm, x'00', 1, NULL, NULL FROM signing_keys".into(), "cannot be replaced"),
        ("BEGIN; UPDATE signing_keys SET revoked_at = 1; UPDATE signing_keys SET revoked_at = NULL".into(), "revocation is final"),
        ("ROLLBACK; INSERT INTO signing_keys VALUES ('short', 'EdDSA', x'00', 1, NULL, NULL)".into(), "CHECK constraint"),
        (key("hex(zeroblob(21)) || '+'", "EdDSA", "x'00'"), "CHECK constraint"),
        (key("hex(zeroblob(21)) || '-'", "RS256", "x'00'"), "CHECK constraint"),
        (key("hex(zeroblob(21)) || '_'", "ES256", "x''"), "CHECK constraint"),
        ("UPDATE revoked_tokens SET expires_at = 1".into(), "revocation is final"),
        ("DELETE FROM revoked_tokens WHERE expires_at > revoked_at".into(), "until a day after"),
        ("DELETE FROM revoked_tokens WHERE expires_at < revoked_at".into(), "until a day after"),
        ("REPLACE INTO revoked_tokens SELECT token_id, client_id, 1, 1 FROM revoked_tokens".into(), "cannot be replaced"),
        (token("936DA01F-9ABD-4D9D-80C7-02AF85C822A8"), "CHECK constraint"),
        (token("936da01f9abd4d9d80c702af85c822a8"), "CHECK constraint"),
        (token("936da01f-9abd-4d9d-80c7-02af85c82-a8"), "CHECK constraint"),
        ("UPDATE used_assertions SET until = 1".into(), "stays as it is"),
        ("DELETE FROM used_assertions".into(), "until a day after"),
        ("UPDATE changes SET key = 'x'".into(), "stays as it is"),
        ("DELETE FROM changes".into(), "are kept"),
        ("INSERT OR REPLACE INTO changes VALUES (1, 'user', 'x', 1)".into(), "the database alone"),
    ] {
        let error = run_sql(&mut conn, &sql).await.expect_err(&sql);
        assert!(error.contains(want), "{sql}: {error}");
    }
    // To replace a used assertion is passed over rather than refused, as the statement of the store asks for.
    run_sql(&mut conn, "REPLACE INTO used_assertions SELECT client_id, digest, 1 FROM used_assertions").await.unwrap();
    assert!(run_sql(&mut conn, "DELETE FROM used_assertions").await.unwrap_err().contains("until a day after"));
    // What narrows is allowed by hand.
    for sql in [
        format!("UPDATE client_secrets SET expires_at = expires_at - 1 WHERE client_id = '{live}' AND generation = 1"),
        format!("UPDATE clients SET revoked_at = 1 WHERE client_id = '{live}'"),
    ] {
        run_sql(&mut conn, &sql).await.unwrap();
    }
    assert_eq!(world.store.client(live).await.unwrap().revoked_at, Some(Timestamp(1)));
}

#[tokio::test]
async fn every_change_by_hand_is_seen() {
    let (world, client) = World::furnished().await;
    let (mut feed, mut head) = follow(&*world.store).await;
    let mut conn = world.by_hand().await;
    let id = client.id;
    for sql in [
        "UPDATE practices SET api_access = 'disabled'".to_owned(),
        "INSERT OR REPLACE INTO practices VALUES ('p', 'n', 'active')".to_owned(),
        "INSERT INTO practices VALUES ('r', 'n', 'none')".to_owned(),
        "DELETE FROM practices WHERE practice_id = 'r'".to_owned(),
        "UPDATE users SET api_access = 0".to_owned(),
        "INSERT INTO users (user_id, practice_id, role) VALUES ('v', 'p', 'member')".to_owned(),
        "DELETE FROM users WHERE user_id = 'v'".to_owned(),
        "INSERT INTO clients (client_id, practice_id, name, scopes, created_at) VALUES ('smd_00000000000000000000', 'p', 'n', 'all', 1)"
            .to_owned(),
        format!("INSERT INTO client_secrets VALUES ('{id}', 2, 'sha256', zeroblob(32), 1, NULL, 0)"),
        format!("UPDATE client_secrets SET expires_at = 1 WHERE client_id = '{id}'"),
        format!("UPDATE clients SET revoked_at = 1 WHERE client_id = '{id}'"),
        "INSERT INTO signing_keys VALUES (hex(zeroblob(21)) || '-', 'EdDSA', x'00', 1, NULL, NULL)".to_owned(),
        "UPDATE signing_keys SET revoked_at = 1".to_owned(),
        format!("INSERT INTO revoked_tokens VALUES ('{TOKEN}', '{id}', 1, 1)"),
        "DELETE FROM revoked_tokens".to_owned(),
    ] {
        assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged));
        run_sql(&mut conn, &sql).await.unwrap();
        match feed.poll(head).await.unwrap() {
            Changes::Batch { head: newer, changes, .. } if newer > head && changes.len() == 1 => head = newer,
            other => panic!("{sql}: {other:?}"),
        }
        feed.acknowledge(head).await.unwrap();
    }
    // The feed's own commit must not cover a commit that came just before it.
    run_sql(&mut conn, "UPDATE users SET api_access = 1").await.unwrap();
    feed.acknowledge(head).await.unwrap();
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Batch { .. }));
}

#[tokio::test]
async fn a_row_that_is_not_understood_is_absent_and_the_rest_goes_on() {
    let (world, client) = World::furnished().await;
    let (mut feed, head) = follow(&*world.store).await;
    let mut conn = world.by_hand().await;
    run_sql(&mut conn, &format!("UPDATE clients SET allowed_addresses = 'anywhere' WHERE client_id = '{}'", client.id)).await.unwrap();
    run_sql(&mut conn, "UPDATE users SET api_access = 0; INSERT INTO practices VALUES ('not an id', 'n', 'active')").await.unwrap();
    let Changes::Batch { changes, .. } = feed.poll(head).await.unwrap() else { panic!("not seen") };
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(matches!(&changes[0], Change::User(_, Some(user)) if !user.api_access));
    assert!(matches!(&changes[1], Change::Client(id, None) if *id == client.id), "not a client that may call from anywhere");
    let snapshot = suite::everything(&mut *feed).await;
    assert_eq!((snapshot.clients.len(), snapshot.practices.len(), snapshot.users.len()), (0, 1, 1));
    let error = world.store.client(client.id).await.unwrap_err();
    assert!(matches!(&error, Error::Row { table: "clients", key, .. } if *key == client.id.to_text()), "{error}");
}

#[tokio::test]
async fn a_value_that_cannot_be_packed_with_the_others_costs_its_own_row_at_most() {
    let (world, client) = World::furnished().await;
    let mut named = suite::client(None);
    named.client.name = "\"quoted\", \\ and\u{1}\u{1f98a}".into();
    let _ = world.store.create_client(&named, &operator()).await.unwrap();
    let (mut feed, _) = follow(&*world.store).await;
    let before = suite::everything(&mut *feed).await;
    assert!(before.clients.iter().any(|client| client.name == named.client.name && client.secrets.len() == 1));
    let mut conn = world.by_hand().await;
    let odd = format!(
        "PRAGMA foreign_keys = OFF;
         INSERT INTO practices VALUES ('odd', CAST(x'ff' AS TEXT), 'active');
         UPDATE clients SET tier = CAST(x'ff' AS TEXT) WHERE client_id = '{}';
         INSERT INTO signing_keys VALUES (hex(zeroblob(21)) || '-', 'EdDSA', x'00ff', 1, NULL, NULL);
         INSERT INTO revoked_tokens VALUES ('{TOKEN}', CAST(x'ff' AS TEXT), 9999999999999, 5)",
        client.id
    );
    run_sql(&mut conn, &odd).await.unwrap();
    let after = suite::everything(&mut *feed).await;
    assert_eq!(after.practices, before.practices);
    assert!(after.clients.iter().all(|one| one.id != client.id) && after.clients.len() + 1 == before.clients.len());
    assert!(after.clients.iter().all(|client| before.clients.contains(client)), "with their secrets");
    assert_eq!(after.signing_keys[0].sealed.as_ref(), [0, 0xff]);
    assert_eq!(after.revoked_tokens.len(), 1, "revoked whatever else its row says");
}

#[tokio::test]
async fn nothing_is_lost_between_the_pages_of_what_is_read_at_a_start() {
    let (world, one) = World::furnished().await;
    let (mut feed, _) = follow(&*world.store).await;
    // The last page of clients is full, that of tokens has one row. They stand behind what is there already.
    let (clients, tokens) = (2 * changes::ROWS - 1, 2 * changes::ROWS + 1);
    let many = format!(
        "CREATE TEMP TABLE numbers AS WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {tokens}) SELECT n FROM n;
         INSERT INTO clients (client_id, practice_id, name, scopes, created_at)
             SELECT printf('smd_zzzz%016d', n), practice_id, 'many', 'billing', 1 FROM numbers, clients
             WHERE n <= {clients} AND client_id = '{id}';
         INSERT INTO client_secrets SELECT printf('smd_zzzz%016d', n), generation, 'sha256', randomblob(32), 1, NULL, 0
             FROM numbers, (SELECT 1 AS generation UNION SELECT 2) WHERE n <= {clients};
         INSERT INTO revoked_tokens SELECT printf('%08x-0000-4000-8000-000000000000', n), '{id}', 9999999999999, 5 FROM numbers;
         DROP TABLE numbers;",
        id = one.id
    );
    let mut conn = world.by_hand().await;
    run_sql(&mut conn, &many).await.unwrap();
    let all = suite::everything(&mut *feed).await;
    let mut ids: Vec<_> = all.clients.iter().map(|client| client.id).collect();
    ids.dedup();
    assert_eq!((all.clients.len(), ids.len()), (clients + 1, clients + 1));
    let generations = |client: &Client| client.secrets.iter().map(|secret| secret.generation).collect::<Vec<_>>();
    assert!(all.clients.iter().all(|client| client.id == one.id || generations(client) == [2, 1]));
    assert_eq!(all.revoked_tokens.len(), tokens);

    // Nor if the last row of a page is read by itself, and its key is all that is understood of it.
    let last = all.clients[changes::ROWS - 1].id;
    run_sql(&mut conn, &format!("UPDATE clients SET tier = CAST(x'ff' AS TEXT) WHERE client_id = '{last}'")).await.unwrap();
    let but_one = suite::everything(&mut *feed).await;
    assert_eq!(but_one.clients, all.clients.into_iter().filter(|client| client.id != last).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_key_that_is_not_understood_is_absent_and_a_token_is_revoked_all_the_same() {
    let (world, _) = World::furnished().await;
    let (mut feed, head) = follow(&*world.store).await;
    let mut conn = world.by_hand().await;
    let odd = format!(
        "PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;
         INSERT INTO signing_keys VALUES (hex(zeroblob(21)) || '-', 'HS256', x'00', 1, NULL, NULL);
         INSERT INTO revoked_tokens VALUES ('{TOKEN}', 'nobody', 9999999999999, 5), ('no id', 'nobody', 9999999999999, 5);
         INSERT INTO changes (kind, key, at) SELECT 'other', client_id, 1 FROM clients"
    );
    run_sql(&mut conn, &odd).await.unwrap();
    let odd = |token: &RevokedToken| {
        token.id.to_string() == TOKEN
            && token.client_id == crate::store::unclear::nobody()
            && token.expires_at == Timestamp(9_999_999_999_999)
    };
    let Changes::Batch { changes, .. } = feed.poll(head).await.unwrap() else { panic!("not seen") };
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(matches!(&changes[0], Change::SigningKey(_, None)));
    assert!(matches!(&changes[1], Change::RevokedToken(_, Some(token)) if odd(token)), "{changes:?}");
    let snapshot = suite::everything(&mut *feed).await;
    assert_eq!((snapshot.signing_keys.len(), snapshot.revoked_tokens.len()), (0, 1));
    assert!(odd(&snapshot.revoked_tokens[0]));
}

#[tokio::test]
async fn a_feed_forgets_what_is_over_and_tells_of_it() {
    let (world, app) = World::furnished().await;
    let (mut feed, head) = follow(&*world.store).await;
    // Before the first poll, which is when the feed looks.
    let over = suite::tokens::token(app.id, -25);
    let _ = world.store.revoke_token(&over, &operator()).await.unwrap();
    assert!(world.store.use_assertion(app.id, [7; 32], over.expires_at).await.unwrap());
    let Changes::Batch { changes, .. } = feed.poll(head).await.unwrap() else { panic!("not seen") };
    assert!(matches!(&changes[..], [Change::RevokedToken(id, None)] if *id == over.id), "{changes:?}");
    assert!(world.store.use_assertion(app.id, [7; 32], now()).await.unwrap());
}

#[tokio::test]
async fn a_feed_that_cannot_prove_itself_current_fails() {
    let (world, _) = World::furnished().await;
    let mut conn = world.by_hand().await;

    let (mut feed, head) = follow(&*world.store).await;
    run_sql(&mut conn, "DELETE FROM nodes").await.unwrap();
    assert!(message(feed.poll(head).await).contains("no longer in the register"));
    assert!(message(feed.acknowledge(head).await).contains("no longer in the register"));

    let mut feed = world.store.feed().await.unwrap();
    feed.register(None).await.unwrap();
    run_sql(&mut conn, "DELETE FROM nodes").await.unwrap();
    assert!(message(feed.snapshot(&mut Snapshot::default()).await).contains("no longer in the register"));
    assert!(message(world.store.feed().await.unwrap().poll(head).await).contains("register it first"));

    let (mut feed, head) = follow(&*world.store).await;
    let trigger: String =
        sqlx::query_scalar("SELECT sql FROM sqlite_master WHERE name = 'log_client_update'").fetch_one(&mut conn).await.unwrap();
    run_sql(&mut conn, "DROP TRIGGER log_client_update").await.unwrap();
    assert!(message(feed.poll(head).await).contains("`log_client_update` is missing"));
    assert!(message(world.reopen(true).await).contains("`log_client_update` is missing"));
    run_sql(&mut conn, "CREATE TRIGGER log_client_update AFTER UPDATE ON clients BEGIN SELECT 1; END").await.unwrap();
    assert!(message(feed.poll(head).await).contains("is not the one"));
    run_sql(&mut conn, &format!("DROP TRIGGER log_client_update; {trigger}")).await.unwrap();
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Gap), "what changed meanwhile was not logged");
    let head = suite::everything(&mut *feed).await.head;
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged));

    let moved = world.dir.path().join("moved");
    for file in ["gateway.db-wal", "gateway.db-shm", "gateway.db.serve-lock", "gateway.db"] {
        let file = world.dir.path().join(file);
        std::fs::rename(&file, &moved).unwrap();
        assert!(message(feed.poll(head).await).contains("was removed"), "{file:?}");
        std::fs::copy(&moved, &file).unwrap();
        assert!(message(feed.poll(head).await).contains("was replaced"), "{file:?}");
        std::fs::rename(&moved, &file).unwrap();
        assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged));
    }
    std::fs::rename(world.path(), &moved).unwrap();
    assert!(message(world.store.practices().await).contains("was removed"));
    assert!(message(world.store.put_practice(&practice_id("p"), "x", &operator()).await).contains("was removed"));
}

#[tokio::test]
async fn a_commit_into_a_log_that_was_removed_is_not_acknowledged() {
    let (world, _) = World::furnished().await;
    let mut write = world.store.begin().await.unwrap();
    run_sql(write.conn(), "UPDATE users SET api_access = 0").await.unwrap();
    std::fs::remove_file(world.dir.path().join("gateway.db-wal")).unwrap();
    assert!(message(write.done().await).contains("was removed"));
    assert!(message(world.store.set_user_access(&user_id("u"), false, &operator()).await).contains("was removed"));
    assert!(message(world.store.practices().await).contains("was removed"));
}

#[tokio::test]
async fn a_gateway_whose_row_is_gone_is_waited_for() {
    let (world, _) = World::furnished().await;
    let (_feed, _) = follow(&*world.store).await;
    run_sql(&mut world.by_hand().await, "DELETE FROM nodes").await.unwrap();
    let committed = world.store.set_user_access(&user_id("u"), false, &operator()).await.unwrap();
    let receipt = world.store.barrier(committed).await.unwrap();
    assert!(receipt.expired == 1 && receipt.waited > LEASE, "{receipt:?}");
}

#[tokio::test]
async fn pruned_changes_are_a_gap() {
    let (world, _) = World::furnished().await;
    let (mut feed, head) = follow(&*world.store).await;
    let mut conn = world.by_hand().await;
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100005)
        INSERT INTO changes (kind, key, at) SELECT 'user', 'u', 1 FROM n";
    run_sql(&mut conn, many).await.unwrap();
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Gap), "too many to read as changes");
    feed.leave().await.unwrap();
    let store = world.reopen(true).await.unwrap();
    let (count, oldest): (i64, i64) = sqlx::query_as("SELECT count(*), min(revision) FROM changes").fetch_one(&mut conn).await.unwrap();
    assert_eq!(count, 100_000);
    let mut feed = store.feed().await.unwrap();
    feed.register(None).await.unwrap();
    assert!(matches!(feed.poll(Revision(u64::try_from(oldest).unwrap() - 2)).await.unwrap(), Changes::Gap));
}

#[tokio::test]
async fn an_open_transaction_delays_receipts_and_not_the_feed() {
    let (world, _) = World::furnished().await;
    let (mut feed, head) = follow(&*world.store).await;
    let committed = world.store.set_user_access(&user_id("u"), false, &operator()).await.unwrap();
    let mut conn = world.by_hand().await;
    run_sql(&mut conn, "BEGIN IMMEDIATE").await.unwrap();
    let Changes::Batch { head, .. } = feed.poll(head).await.unwrap() else { panic!("not seen") };
    feed.acknowledge(head).await.unwrap();
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged));
    run_sql(&mut conn, "COMMIT").await.unwrap();
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged));
    let receipt = world.store.barrier(committed).await.unwrap();
    assert_eq!((receipt.applied, receipt.expired), (1, 0), "the poll has acknowledged");
}

#[tokio::test]
async fn one_gateway_serves_and_its_death_is_noticed() {
    let (world, _) = World::furnished().await;
    let second = world.reopen(false).await.unwrap();
    let (feed, _) = follow(&*world.store).await;
    assert!(message(second.feed().await.unwrap().register(None).await).contains("another gateway is already serving"));
    // Nor does a feed that another one has replaced let go of the lock.
    let (replacement, _) = follow(&*world.store).await;
    let mut feed = feed;
    feed.leave().await.unwrap();
    assert!(message(second.feed().await.unwrap().register(None).await).contains("another gateway is already serving"));
    drop(replacement);
    // A feed that fails is not a gateway that is dead: the process still holds the lock, and its lease counts.
    drop(feed);
    let committed = second.put_practice(&practice_id("p"), "x", &operator()).await.unwrap();
    let receipt = second.barrier(committed).await.unwrap();
    assert!(receipt.expired == 1 && receipt.waited > LEASE, "{receipt:?}");
    // The end of the process lets go of the lock.
    world.store.close().await;
    let World { store, dir } = world;
    drop(store);
    let committed = second.put_practice(&practice_id("p"), "y", &operator()).await.unwrap();
    let receipt = second.barrier(committed).await.unwrap();
    assert!(receipt.expired == 1 && receipt.waited < LEASE, "{receipt:?}");
    // A lock on another file proves nothing.
    let lock = dir.path().join("gateway.db.serve-lock");
    std::fs::rename(&lock, dir.path().join("away")).unwrap();
    std::fs::write(&lock, "").unwrap();
    let committed = second.put_practice(&practice_id("p"), "z", &operator()).await.unwrap();
    assert!(second.barrier(committed).await.unwrap().waited > LEASE);
    // The next gateway takes the place of the dead one.
    let (mut feed, head) = follow(&second).await;
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged));
    let committed = second.put_practice(&practice_id("p"), "y", &operator()).await.unwrap();
    feed.acknowledge(committed.revision()).await.unwrap();
    assert_eq!(second.barrier(committed).await.unwrap().applied, 1);
}

#[tokio::test]
async fn a_request_is_forgotten_after_a_day() {
    let world = World::new().await;
    for key in [1, 3] {
        assert_eq!(world.store.begin_idempotent("operator", [key; 32], [0; 32]).await.unwrap(), Idempotent::Begun);
    }
    world.store.finish_idempotent("operator", [3; 32], 204, "").await.unwrap();
    let mut conn = world.by_hand().await;
    run_sql(&mut conn, "UPDATE idempotency_keys SET created_at = created_at - 90000000").await.unwrap();
    // Whether somebody has come by to forget it or not.
    assert_eq!(world.store.begin_idempotent("operator", [3; 32], [9; 32]).await.unwrap(), Idempotent::Begun);
    world.store.prune_tokens().await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM idempotency_keys").fetch_one(&mut conn).await.unwrap();
    assert_eq!(left, 1);
    assert_eq!(world.store.begin_idempotent("operator", [3; 32], [9; 32]).await.unwrap(), Idempotent::UnderWay);
}

#[tokio::test]
async fn mail_is_forgotten_a_month_after_it_was_sent_and_usage_after_400_days() {
    let world = World::new().await;
    let mut conn = world.by_hand().await;
    let mail = "INSERT INTO email_outbox (created_at, kind, practice_id, details, next_attempt_at, sent_at, given_up_at) VALUES \
                (0, 'access_requested', 'p', '{}', 0, NULL, NULL), \
                (0, 'access_requested', 'p', '{}', 0, unixepoch('now', '-29 days') * 1000, NULL), \
                (0, 'access_requested', 'p', '{}', 0, unixepoch('now', '-31 days') * 1000, NULL), \
                (0, 'access_requested', 'p', '{}', 0, NULL, unixepoch('now', '-31 days') * 1000)";
    run_sql(&mut conn, mail).await.unwrap();
    let today = crate::clock::Day::of(now()).0;
    let usage = format!("INSERT INTO usage_daily (day, client_id, scope) VALUES ({}, 'c', ''), ({}, 'c', '')", today - 399, today - 402);
    run_sql(&mut conn, &usage).await.unwrap();
    world.store.prune_tokens().await.unwrap();
    let mails: Vec<i64> = sqlx::query_scalar("SELECT id FROM email_outbox ORDER BY id").fetch_all(&mut conn).await.unwrap();
    let days: Vec<i32> = sqlx::query_scalar("SELECT day FROM usage_daily").fetch_all(&mut conn).await.unwrap();
    assert_eq!((mails, days), (vec![1, 2], vec![today - 399]));
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_an_error_that_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let open = async |name: &str, migrate| message(SqliteStore::open_waiting(&path(name), migrate, Duration::from_millis(20)).await);
    assert!(open("missing/gateway.db", true).await.contains("mkdir -p"));
    assert!(open(".", true).await.contains("is a directory"));
    assert!(open("new.db", false).await.contains("run `sigmagate migrate`"));
    assert!(!dir.path().join("new.db").exists());
    assert!(message(SqliteStore::open("sqlite::memory:", true).await).contains("names no database file"));
    std::fs::write(path("empty.db"), "").unwrap();
    assert!(open("empty.db", false).await.contains("schema 0 of 4: run `sigmagate migrate`"));
    std::fs::write(path("text.db"), "To whom it may concern").unwrap();
    assert!(open("text.db", true).await.contains("is not a SQLite database"));
    let mut foreign = open::options(Path::new(&path("foreign.db")), BUSY).create_if_missing(true).connect().await.unwrap();
    run_sql(&mut foreign, "CREATE TABLE t (x)").await.unwrap();
    assert!(open("foreign.db", true).await.contains("another program"));
}

#[tokio::test]
async fn a_newer_a_damaged_and_a_locked_database_are_refused() {
    let (world, _) = World::furnished().await;
    world.store.close().await;
    let mut conn = world.by_hand().await;
    run_sql(&mut conn, "PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; UPDATE users SET role = role").await.unwrap();
    assert!(message(world.reopen(true).await).contains("locked by another process"));
    run_sql(&mut conn, "COMMIT").await.unwrap();
    conn.close().await.unwrap();
    let mut conn = world.by_hand().await;
    run_sql(&mut conn, "PRAGMA user_version = 99").await.unwrap();
    assert!(message(world.reopen(true).await).contains("use the newer sigmagate"));
    run_sql(&mut conn, "PRAGMA user_version = 4; PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    conn.close().await.unwrap();
    world.reopen(false).await.unwrap().close().await;
    let mut bytes = std::fs::read(world.path()).unwrap();
    bytes[4096..].fill(0x5a);
    std::fs::write(world.path(), bytes).unwrap();
    assert!(message(world.reopen(true).await).contains("is damaged"));
}

#[tokio::test]
async fn damage_that_decisions_do_not_see_ends_the_gateway_and_refuses_every_change() {
    let (world, _) = World::furnished().await;
    world.store.close().await;
    let mut conn = world.by_hand().await;
    run_sql(&mut conn, "PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    let page: i64 =
        sqlx::query_scalar("SELECT rootpage FROM sqlite_schema WHERE name = 'audit_events'").fetch_one(&mut conn).await.unwrap();
    conn.close().await.unwrap();
    let mut bytes = std::fs::read(world.path()).unwrap();
    let begin = (usize::try_from(page).unwrap() - 1) * 4096;
    bytes[begin..begin + 4096].fill(0x5a);
    std::fs::write(world.path(), bytes).unwrap();
    let store = world.reopen(true).await.unwrap();
    let mut feed = SqliteFeed::open(Arc::clone(&store.shared)).await.unwrap();
    feed.register(None).await.unwrap();
    let mut replica = Snapshot::default();
    let revision = feed.snapshot(&mut replica).await.unwrap();
    assert!(message(store.practices().await).contains("is damaged"));
    assert!(message(store.put_practice(&practice_id("p"), "P", &operator()).await).contains("is damaged"));
    assert!(message(feed.poll(revision).await).contains("is damaged"));
}

#[tokio::test]
async fn the_file_is_private_and_durable() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new().await;
    assert_eq!(std::fs::metadata(world.path()).unwrap().permissions().mode() & 0o777, 0o600);
    let mut conn = world.store.conn().await.unwrap();
    for (pragma, want) in [("PRAGMA synchronous", "2"), ("PRAGMA foreign_keys", "1"), ("PRAGMA journal_mode", "wal")] {
        let found = sqlx::query(pragma).fetch_one(&mut *conn).await.unwrap();
        let found = sqlx::Row::try_get_unchecked::<String, _>(&found, 0).unwrap();
        assert_eq!(found, want, "{pragma}");
    }
    assert_eq!(SqliteStore::open(&format!("sqlite://{}", world.path().display()), false).await.unwrap().path(), world.path());
}
