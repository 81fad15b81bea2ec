//! Signing keys, revoked tokens and used assertions, as the database itself holds them.

use super::super::feed::forget;
use super::*;
use crate::entity::RevokedToken;
use crate::id::TokenId;
use crate::store::Change;
use crate::store::suite::tokens::{one_change, signing_key, token};

const ID: &str = "936da01f-9abd-4d9d-80c7-02af85c822a8";

/// A key, and a token of each age that matters.
async fn furnished(url: &str) -> (PgStore, PgConnection) {
    let store = open(url).await;
    furnish(&store).await;
    let app = client(None);
    let by = operator();
    let _ = store.create_client(&app, &by).await.unwrap();
    let key = signing_key();
    let _ = store.add_signing_key(&key, &by).await.unwrap();
    let _ = store.plan_signing_key(&key.id, now(), &by).await.unwrap();
    for hours in [1, -23] {
        let token = token(app.client.id, hours);
        let _ = store.revoke_token(&token, &by).await.unwrap();
        assert!(store.use_assertion(app.client.id, [u8::from(hours == 1); 32], token.expires_at).await.unwrap());
    }
    (store, by_hand(url).await)
}

#[tokio::test]
async fn what_is_final_is_final_for_plain_sql_and_for_replication() {
    let server = Postgres::start(&[]);
    let (store, mut conn) = furnished(&server.database()).await;
    let new_key = "INSERT INTO gateway.signing_keys (key_id, algorithm, sealed) VALUES";
    let new_token = "INSERT INTO gateway.revoked_tokens (token_id, client_id, expires_at) SELECT";
    let refused = [
        ("DELETE FROM gateway.signing_keys".to_owned(), "cannot be deleted"),
        ("TRUNCATE gateway.signing_keys".to_owned(), "not truncated"),
        ("TRUNCATE gateway.revoked_tokens".to_owned(), "not truncated"),
        ("TRUNCATE gateway.used_assertions".to_owned(), "not truncated"),
        ("UPDATE gateway.signing_keys SET key_id = reverse(key_id)".to_owned(), "cannot be altered"),
        ("UPDATE gateway.signing_keys SET algorithm = 'EdDSA'".to_owned(), "cannot be altered"),
        ("UPDATE gateway.signing_keys SET sealed = '\\x00'".to_owned(), "cannot be altered"),
        ("UPDATE gateway.signing_keys SET created_at = now()".to_owned(), "cannot be altered"),
        ("UPDATE gateway.signing_keys SET signs_from = NULL".to_owned(), "the moment that was planned"),
        ("UPDATE gateway.signing_keys SET signs_from = now() + interval '1 day'".to_owned(), "the moment that was planned"),
        (
            "UPDATE gateway.signing_keys SET revoked_at = now(); UPDATE gateway.signing_keys SET revoked_at = NULL".to_owned(),
            "revocation is final",
        ),
        (
            "INSERT INTO gateway.signing_keys SELECT * FROM gateway.signing_keys ON CONFLICT (key_id) DO UPDATE SET sealed = '\\x00'"
                .to_owned(),
            "cannot be altered",
        ),
        (format!("{new_key} ('short', 'EdDSA', '\\x00')"), "violates check"),
        (format!("{new_key} (repeat('a', 43), 'RS256', '\\x00')"), "violates check"),
        (format!("{new_key} (repeat('a', 43), 'EdDSA', '')"), "violates check"),
        ("UPDATE gateway.revoked_tokens SET expires_at = now() - interval '3 days'".to_owned(), "revocation is final"),
        ("DELETE FROM gateway.revoked_tokens WHERE expires_at > now()".to_owned(), "until a day after"),
        ("DELETE FROM gateway.revoked_tokens WHERE expires_at < now()".to_owned(), "until a day after"),
        (
            "INSERT INTO gateway.revoked_tokens SELECT * FROM gateway.revoked_tokens ON CONFLICT (token_id) DO UPDATE SET expires_at = now()"
                .to_owned(),
            "revocation is final",
        ),
        (format!("{new_token} upper('{ID}'), client_id, now() FROM gateway.clients"), "violates check"),
        (format!("{new_token} replace('{ID}', '-', ''), client_id, now() FROM gateway.clients"), "violates check"),
        (format!("{new_token} '{ID}', client_id, 'infinity' FROM gateway.clients"), "violates check"),
        ("UPDATE gateway.used_assertions SET until = now() - interval '3 days'".to_owned(), "stays as it is"),
        ("DELETE FROM gateway.used_assertions WHERE until < now()".to_owned(), "until a day after"),
        ("DELETE FROM gateway.used_assertions WHERE until > now()".to_owned(), "until a day after"),
    ];
    for role in ["DEFAULT", "replica"] {
        sql(&mut conn, &format!("SET session_replication_role = {role}")).await.unwrap();
        for (statement, part) in &refused {
            let error = sql(&mut conn, statement).await.expect_err(statement);
            assert!(error.contains(part), "{statement}: {error}");
        }
    }
    sql(&mut conn, "SET session_replication_role = DEFAULT").await.unwrap();
    let unknown = format!("{new_token} '{ID}', 'smd_00000000000000000000', now()");
    assert!(sql(&mut conn, &unknown).await.unwrap_err().contains("violates foreign key"));
    assert!(store.signing_keys().await.unwrap()[0].revoked_at.is_none(), "what failed was undone");
}

#[tokio::test]
async fn every_change_of_keys_and_tokens_by_hand_is_seen() {
    let server = Postgres::start(&[]);
    let (store, mut conn) = furnished(&server.database()).await;
    let (mut feed, mut head) = follow(&store).await;
    for role in ["DEFAULT", "replica"] {
        let key = "a".repeat(36) + role;
        for statement in [
            format!("SET session_replication_role = {role}"),
            format!("INSERT INTO gateway.signing_keys (key_id, algorithm, sealed) VALUES ('{key:a<43}', 'EdDSA', '\\x00')"),
            format!("UPDATE gateway.signing_keys SET signs_from = now() WHERE key_id = '{key:a<43}'"),
            format!("UPDATE gateway.signing_keys SET revoked_at = now() WHERE key_id = '{key:a<43}'"),
            format!(
                "INSERT INTO gateway.revoked_tokens (token_id, client_id, expires_at)
                 SELECT '{ID}', client_id, now() - interval '25 hours' FROM gateway.clients"
            ),
            format!("DELETE FROM gateway.revoked_tokens WHERE token_id = '{ID}'"),
        ] {
            sql(&mut conn, &statement).await.unwrap();
            if statement.starts_with("SET") {
                continue;
            }
            match one_change(&mut *feed, &mut head).await {
                Change::SigningKey(_, Some(_)) => assert!(statement.contains("signing_keys")),
                Change::RevokedToken(_, Some(_)) => assert!(statement.starts_with("INSERT")),
                Change::RevokedToken(_, None) => assert!(statement.starts_with("DELETE")),
                other => panic!("{statement}: {other:?}"),
            }
        }
    }
    sql(&mut conn, "SET session_replication_role = DEFAULT").await.unwrap();
    let many = "INSERT INTO gateway.revoked_tokens (token_id, client_id, expires_at)
        SELECT gen_random_uuid()::text, client_id, now() - interval '25 hours' FROM gateway.clients, generate_series(1, 5001)";
    sql(&mut conn, many).await.unwrap();
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Gap), "too many to name");
    // They are forgotten in portions that the log can name.
    let head = suite::everything(&mut *feed).await.head;
    store.prune_tokens().await.unwrap();
    assert_eq!(batch(&mut *feed, head).await.1, 5001);
}

#[tokio::test]
async fn what_a_feed_forgets_it_forgets_in_passing() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, mut conn) = furnished(&url).await;
    let (mut feed, mut head) = follow(&store).await;
    let app = store.clients(None, None).await.unwrap().remove(0);
    let over = token(app.id, -25);
    let _ = store.revoke_token(&over, &operator()).await.unwrap();
    assert!(matches!(one_change(&mut *feed, &mut head).await, Change::RevokedToken(_, Some(_))));
    let mut line = by_hand(&url).await;
    // Somebody is in the way: it is left for later, and the line is as good as before.
    sql(&mut conn, "BEGIN; LOCK TABLE gateway.change_order IN EXCLUSIVE MODE").await.unwrap();
    assert!(!forget(&mut line).await.unwrap());
    sql(&mut conn, "ROLLBACK").await.unwrap();
    assert!(matches!(feed.poll(head).await.unwrap(), Changes::Unchanged));
    assert!(!forget(&mut line).await.unwrap(), "there is no more");
    assert!(matches!(one_change(&mut *feed, &mut head).await, Change::RevokedToken(id, None) if id == over.id));
    let many = "INSERT INTO gateway.used_assertions SELECT 'any', sha256(n::text::bytea), now() - interval '2 days' FROM generate_series(1, 2001) AS n";
    sql(&mut conn, many).await.unwrap();
    assert!(forget(&mut line).await.unwrap(), "there may be more");
    assert!(!forget(&mut line).await.unwrap());
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM gateway.used_assertions").fetch_one(&mut conn).await.unwrap();
    assert_eq!(left, 2, "those that are younger");
}

#[tokio::test]
async fn a_key_that_is_not_understood_is_absent_and_a_token_is_revoked_all_the_same() {
    let server = Postgres::start(&[]);
    let (store, mut conn) = furnished(&server.database()).await;
    let (mut feed, head) = follow(&store).await;
    let before = suite::everything(&mut *feed).await;
    sql(
        &mut conn,
        "ALTER TABLE gateway.signing_keys DROP CONSTRAINT signing_keys_algorithm_check;
         ALTER TABLE gateway.revoked_tokens DROP CONSTRAINT revoked_tokens_client_id_fkey, DROP CONSTRAINT revoked_tokens_token_id_check",
    )
    .await
    .unwrap();
    let odd = format!(
        "INSERT INTO gateway.signing_keys (key_id, algorithm, sealed) VALUES (repeat('b', 43), 'HS256', '\\x00');
         INSERT INTO gateway.revoked_tokens VALUES ('{ID}', 'nobody', now(), now()), ('no id', 'nobody', now(), now())"
    );
    sql(&mut conn, &odd).await.unwrap();
    let id: TokenId = ID.parse().unwrap();
    let Changes::Batch { changes, .. } = feed.poll(head).await.unwrap() else { panic!("not seen") };
    assert_eq!(changes.len(), 2, "{changes:?}");
    assert!(changes.iter().any(|change| matches!(change, Change::SigningKey(_, None))), "{changes:?}");
    let is_odd = |token: &RevokedToken| token.id == id && token.client_id == crate::store::unclear::nobody();
    assert!(changes.iter().any(|change| matches!(change, Change::RevokedToken(_, Some(token)) if is_odd(token))), "{changes:?}");
    let snapshot = suite::everything(&mut *feed).await;
    assert_eq!(snapshot.signing_keys, before.signing_keys);
    assert_eq!(snapshot.revoked_tokens.len(), before.revoked_tokens.len() + 1);
    assert!(snapshot.revoked_tokens.iter().any(is_odd));
    // Without an end it has none.
    sql(
        &mut conn,
        "ALTER TABLE gateway.revoked_tokens DROP CONSTRAINT revoked_tokens_expires_at_check, ALTER expires_at DROP NOT NULL;
         INSERT INTO gateway.revoked_tokens SELECT gen_random_uuid()::text, client_id, NULL FROM gateway.clients",
    )
    .await
    .unwrap();
    let mut head = snapshot.head;
    let change = one_change(&mut *feed, &mut head).await;
    assert!(matches!(&change, Change::RevokedToken(_, Some(token)) if token.expires_at == crate::store::unclear::NEVER), "{change:?}");
    // Of a kind that is yet to be invented, and whose key is the id of a client.
    let of_another_kind = format!(
        "ALTER TABLE gateway.change_rows DROP CONSTRAINT change_rows_kind_check; BEGIN; UPDATE gateway.practices SET name = 'x';
         INSERT INTO gateway.change_rows SELECT pg_current_xact_id(), 'other', '{}'; COMMIT",
        store.clients(None, None).await.unwrap()[0].id
    );
    sql(&mut conn, &of_another_kind).await.unwrap();
    assert!(matches!(one_change(&mut *feed, &mut head).await, Change::Practice(..)));
}

#[tokio::test]
async fn a_gateway_revokes_tokens_and_uses_assertions_and_makes_no_keys() {
    let server = Postgres::start(&[]);
    let url = server.database();
    let (store, mut owner) = furnished(&url).await;
    sql(&mut owner, "CREATE ROLE serves LOGIN IN ROLE gateway_node; CREATE ROLE manages LOGIN IN ROLE gateway_management").await.unwrap();
    let (serves, manages) = (url.replace("postgres@", "serves@"), url.replace("postgres@", "manages@"));
    let serving = PgStore::open(&serves, &FLEET, false).await.unwrap();
    let managing = PgStore::open(&manages, &FLEET, false).await.unwrap();
    let by = operator();
    let app = store.clients(None, None).await.unwrap().remove(0);
    let revoked = RevokedToken { id: ID.parse().unwrap(), client_id: app.id, expires_at: now(), revoked_at: now() };
    let (mut feed, mut head) = follow(&serving).await;
    for again in [false, true] {
        let committed = serving.revoke_token(&revoked, &by).await.unwrap();
        if !again {
            assert!(matches!(one_change(&mut *feed, &mut head).await, Change::RevokedToken(..)));
        }
        assert_eq!(committed.revision(), head);
        feed.acknowledge(head).await.unwrap();
        assert_eq!(serving.barrier(committed).await.unwrap().applied, 1);
        assert_eq!(serving.use_assertion(app.id, [9; 32], now()).await.unwrap(), !again);
    }
    assert_eq!(audit::verify(&serving.audit(None).await.unwrap()), Ok(()));
    assert_eq!(serving.signing_keys().await.unwrap().len(), 1);
    let _ = managing.revoke_token(&RevokedToken { id: TokenId::random(), expires_at: crate::clock::Timestamp(1), ..revoked }, &by).await;
    assert!(!managing.use_assertion(app.id, [9; 32], now()).await.unwrap());
    assert!(matches!(one_change(&mut *feed, &mut head).await, Change::RevokedToken(_, Some(_))));
    serving.prune_tokens().await.unwrap();
    assert!(matches!(one_change(&mut *feed, &mut head).await, Change::RevokedToken(_, None)));
    managing.prune_tokens().await.unwrap();
    let key = signing_key();
    assert!(message(serving.add_signing_key(&key, &by).await).contains("permission denied"));
    let _ = managing.add_signing_key(&key, &by).await.unwrap();
    for refused in
        [serving.plan_signing_key(&key.id, now(), &by).await.map(drop), serving.revoke_signing_key(&key.id, now(), &by).await.map(drop)]
    {
        assert!(message(refused).contains("permission denied"));
    }
    let _ = managing.plan_signing_key(&key.id, now(), &by).await.unwrap();
    let _ = managing.revoke_signing_key(&key.id, now(), &by).await.unwrap();
    for url in [serves, manages] {
        let mut conn = by_hand(&url).await;
        for statement in [
            "DELETE FROM gateway.signing_keys",
            "DELETE FROM gateway.revoked_tokens",
            "DELETE FROM gateway.used_assertions",
            "UPDATE gateway.revoked_tokens SET expires_at = now()",
            "UPDATE gateway.used_assertions SET until = now()",
            "TRUNCATE gateway.used_assertions",
            "ALTER TABLE gateway.signing_keys DISABLE TRIGGER ALL",
        ] {
            let error = sql(&mut conn, statement).await.unwrap_err();
            assert!(error.contains("permission denied") || error.contains("must be owner"), "{statement}: {error}");
        }
    }
    sql(&mut owner, "CREATE ROLE plain LOGIN; GRANT USAGE ON SCHEMA gateway TO plain").await.unwrap();
    let mut plain = by_hand(&url.replace("postgres@", "plain@")).await;
    for function in ["prune_tokens()", "keep_key()", "keep_token()", "keep_assertion()", "log_keys()", "log_tokens()", "confirm()"] {
        let error = sql(&mut plain, &format!("SELECT gateway.{function}")).await.unwrap_err();
        assert!(error.contains("permission denied"), "{function}: {error}");
    }
}
