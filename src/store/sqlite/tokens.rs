//! Signing keys, revoked tokens and used assertions.

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{SqliteStore, rows};
use crate::clock::Timestamp;
use crate::entity::{RevokedToken, StoredKey};
use crate::id::{ClientId, KeyId, PracticeId};
use crate::store::Error;

/// How many rows are forgotten at a time: whoever wants to write meanwhile waits.
const AT_A_TIME: u32 = 1000;

/// A day before now, in the very words of the triggers that keep what is younger.
const A_DAY_AGO: &str = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - 86400000";
const A_MONTH_AGO: &str = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) - 2592000000";
/// The first day (UTC) whose usage is kept.
const THE_FIRST_DAY: &str = "CAST(julianday('now') - 2440587.5 AS INTEGER) - 400";

impl SqliteStore {
    pub(super) async fn list_signing_keys(&self) -> Result<Vec<StoredKey>, Error> {
        let sql = AssertSqlSafe(format!("{} ORDER BY created_at DESC, key_id", rows::SIGNING_KEY));
        let found = sqlx::query(sql).fetch_all(&mut *self.conn().await?).await?;
        found.iter().map(rows::signing_key).collect()
    }

    pub(super) async fn note_assertion(&self, client: ClientId, digest: [u8; 32], until: Timestamp) -> Result<bool, Error> {
        let _turn = self.shared.writing.lock().await;
        let done = sqlx::query("INSERT INTO used_assertions (client_id, digest, until) VALUES (?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(client.to_text())
            .bind(digest.as_slice())
            .bind(until.0)
            .execute(&mut *self.conn().await?)
            .await?;
        self.shared.connections.check()?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn forget_all(&self) -> Result<(), Error> {
        loop {
            let _turn = self.shared.writing.lock().await;
            if !forget(&mut *self.conn().await?).await? {
                return Ok(());
            }
        }
    }
}

/// The key, if there is one.
pub(super) async fn signing_key(conn: &mut SqliteConnection, id: &KeyId) -> Result<Option<StoredKey>, Error> {
    let sql = AssertSqlSafe(format!("{} WHERE key_id = ?", rows::SIGNING_KEY));
    sqlx::query(sql).bind(id.as_str()).fetch_optional(conn).await?.as_ref().map(rows::signing_key).transpose()
}

pub(super) async fn insert_signing_key(conn: &mut SqliteConnection, key: &StoredKey) -> Result<(), Error> {
    sqlx::query("INSERT INTO signing_keys (key_id, algorithm, sealed, created_at, signs_from, revoked_at) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(key.id.as_str())
        .bind(key.algorithm.as_str())
        .bind(&*key.sealed)
        .bind(key.created_at.0)
        .bind(key.signs_from.map(|at| at.0))
        .bind(key.revoked_at.map(|at| at.0))
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn update_signing_key(conn: &mut SqliteConnection, key: &StoredKey) -> Result<(), Error> {
    sqlx::query("UPDATE signing_keys SET signs_from = ?2, revoked_at = ?3 WHERE key_id = ?1")
        .bind(key.id.as_str())
        .bind(key.signs_from.map(|at| at.0))
        .bind(key.revoked_at.map(|at| at.0))
        .execute(conn)
        .await?;
    Ok(())
}

pub(super) async fn practice_of(conn: &mut SqliteConnection, client: ClientId) -> Result<Option<PracticeId>, Error> {
    let found: Option<String> =
        sqlx::query_scalar("SELECT practice_id FROM clients WHERE client_id = ?").bind(client.to_text()).fetch_optional(conn).await?;
    let wrong = |error: crate::id::Error| Error::Row { table: "clients", key: client.to_text(), why: error.to_string() };
    found.map(|id| id.parse().map_err(wrong)).transpose()
}

/// Adds it, unless it is there: a trigger would refuse it then, whatever the statement says of conflicts.
pub(super) async fn insert_revoked_token(conn: &mut SqliteConnection, token: &RevokedToken) -> Result<bool, Error> {
    let done = sqlx::query(
        "INSERT INTO revoked_tokens (token_id, client_id, expires_at, revoked_at)
         SELECT ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM revoked_tokens WHERE token_id = ?1)",
    )
    .bind(token.id.to_string())
    .bind(token.client_id.to_text())
    .bind(token.expires_at.0)
    .bind(token.revoked_at.0)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Forgets some of what nobody needs any more; whether there may be more of it.
pub(super) async fn forget(conn: &mut SqliteConnection) -> Result<bool, Error> {
    let mut full = false;
    for (table, key, end, than) in [
        ("revoked_tokens", "token_id", "expires_at", A_DAY_AGO),
        ("used_assertions", "client_id, digest", "until", A_DAY_AGO),
        ("idempotency_keys", "caller, key_digest", "created_at", A_DAY_AGO),
        ("email_outbox", "id", "coalesce(sent_at, given_up_at)", A_MONTH_AGO),
        ("usage_daily", "day, client_id, scope", "day", THE_FIRST_DAY),
    ] {
        let over = format!("SELECT {key} FROM {table} WHERE {end} < {than} LIMIT {AT_A_TIME}");
        // Asking takes no lock, and there is mostly nothing.
        if sqlx::query(AssertSqlSafe(over.as_str())).fetch_optional(&mut *conn).await?.is_some() {
            let delete = format!("DELETE FROM {table} WHERE ({key}) IN ({over})");
            full |= sqlx::query(AssertSqlSafe(delete)).execute(&mut *conn).await?.rows_affected() == u64::from(AT_A_TIME);
        }
    }
    Ok(full)
}
