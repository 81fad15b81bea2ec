//! Signing keys, revoked tokens and used assertions.

use sqlx::{AssertSqlSafe, PgConnection};

use super::read::For;
use super::write::moment;
use super::{PgStore, rows};
use crate::clock::Timestamp;
use crate::entity::{RevokedToken, StoredKey};
use crate::id::{ClientId, KeyId, PracticeId};
use crate::store::Error;

impl PgStore {
    pub(super) async fn list_signing_keys(&self) -> Result<Vec<StoredKey>, Error> {
        let sql = AssertSqlSafe(format!("{} ORDER BY created_at DESC, key_id COLLATE \"C\"", rows::SIGNING_KEY));
        let found = sqlx::query(sql).fetch_all(&mut *self.conn().await?).await?;
        found.iter().map(rows::signing_key).collect()
    }

    /// Of two nodes that try at once, the second one waits for the first, and then finds it there.
    pub(super) async fn note_assertion(&self, client: ClientId, digest: [u8; 32], until: Timestamp) -> Result<bool, Error> {
        let done = sqlx::query(concat!(
            "INSERT INTO gateway.used_assertions (client_id, digest, until) VALUES ($1, $2, ",
            moment!("$3"),
            ") ON CONFLICT DO NOTHING"
        ))
        .bind(client.to_text())
        .bind(digest.as_slice())
        .bind(until.0)
        .execute(&mut *self.conn().await?)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn forget_all(&self) -> Result<(), Error> {
        while sqlx::query_scalar("SELECT gateway.prune_tokens()").fetch_one(&mut *self.conn().await?).await? {}
        Ok(())
    }
}

/// The key, if there is one.
pub(super) async fn signing_key(conn: &mut PgConnection, id: &KeyId, how: For) -> Result<Option<StoredKey>, Error> {
    let sql = AssertSqlSafe(format!("{} WHERE key_id = $1{}", rows::SIGNING_KEY, how.suffix()));
    sqlx::query(sql).bind(id.as_str()).fetch_optional(conn).await?.as_ref().map(rows::signing_key).transpose()
}

pub(super) async fn insert_signing_key(conn: &mut PgConnection, key: &StoredKey) -> Result<(), Error> {
    sqlx::query(concat!(
        "INSERT INTO gateway.signing_keys (key_id, algorithm, sealed, created_at, signs_from, revoked_at) VALUES ($1, $2, $3, ",
        moment!("$4"),
        ", ",
        moment!("$5"),
        ", ",
        moment!("$6"),
        ")"
    ))
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

pub(super) async fn update_signing_key(conn: &mut PgConnection, key: &StoredKey) -> Result<(), Error> {
    sqlx::query(concat!(
        "UPDATE gateway.signing_keys SET signs_from = ",
        moment!("$2"),
        ", revoked_at = ",
        moment!("$3"),
        " WHERE key_id = $1"
    ))
    .bind(key.id.as_str())
    .bind(key.signs_from.map(|at| at.0))
    .bind(key.revoked_at.map(|at| at.0))
    .execute(conn)
    .await?;
    Ok(())
}

/// Needs no lock, which who only serves may not take: a client is never deleted, and keeps its practice.
pub(super) async fn practice_of(conn: &mut PgConnection, client: ClientId) -> Result<Option<PracticeId>, Error> {
    let sql = "SELECT practice_id FROM gateway.clients WHERE client_id = $1";
    let found: Option<String> = sqlx::query_scalar(sql).bind(client.to_text()).fetch_optional(conn).await?;
    let wrong = |error: crate::id::Error| Error::Row { table: "clients", key: client.to_text(), why: error.to_string() };
    found.map(|id| id.parse().map_err(wrong)).transpose()
}

/// Adds it, unless it is there, or comes to be while this waits for who is adding it.
pub(super) async fn insert_revoked_token(conn: &mut PgConnection, token: &RevokedToken) -> Result<bool, Error> {
    let done = sqlx::query(concat!(
        "INSERT INTO gateway.revoked_tokens (token_id, client_id, expires_at, revoked_at) VALUES ($1, $2, ",
        moment!("$3"),
        ", ",
        moment!("$4"),
        ") ON CONFLICT DO NOTHING"
    ))
    .bind(token.id.to_string())
    .bind(token.client_id.to_text())
    .bind(token.expires_at.0)
    .bind(token.revoked_at.0)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}
