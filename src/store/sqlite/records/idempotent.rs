//! Requests that may come twice.

use sqlx::AssertSqlSafe;

use super::super::SqliteStore;
use super::NOW;
use crate::store::Error;
use crate::store::records::Idempotent;

impl SqliteStore {
    pub(super) async fn begin_request(&self, caller: &str, key: [u8; 32], request: [u8; 32]) -> Result<Idempotent, Error> {
        let mut write = self.begin().await?;
        // One that nobody has come by yet to forget is forgotten here.
        let begin = AssertSqlSafe(format!(
            "INSERT INTO idempotency_keys (caller, key_digest, request_digest, created_at) VALUES (?1, ?2, ?3, {NOW})
             ON CONFLICT (caller, key_digest) DO UPDATE
             SET request_digest = excluded.request_digest, created_at = excluded.created_at, status = NULL, body = NULL
             WHERE idempotency_keys.created_at < {NOW} - 86400000"
        ));
        let begun = sqlx::query(begin).bind(caller).bind(key.as_slice()).bind(request.as_slice()).execute(write.conn()).await?;
        if begun.rows_affected() == 1 {
            write.done().await?;
            return Ok(Idempotent::Begun);
        }
        let (same, status, body): (bool, Option<u16>, Option<String>) =
            sqlx::query_as("SELECT request_digest = ?3, status, body FROM idempotency_keys WHERE caller = ?1 AND key_digest = ?2")
                .bind(caller)
                .bind(key.as_slice())
                .bind(request.as_slice())
                .fetch_one(write.conn())
                .await?;
        Ok(match (same, status, body) {
            (false, ..) => Idempotent::Mismatch,
            (true, Some(status), Some(body)) => Idempotent::Replay { status, body },
            (true, ..) => Idempotent::UnderWay,
        })
    }

    pub(super) async fn finish_request(&self, caller: &str, key: [u8; 32], status: u16, body: &str) -> Result<(), Error> {
        let mut write = self.begin().await?;
        sqlx::query("UPDATE idempotency_keys SET status = ?3, body = ?4 WHERE caller = ?1 AND key_digest = ?2 AND status IS NULL")
            .bind(caller)
            .bind(key.as_slice())
            .bind(status)
            .bind(body)
            .execute(write.conn())
            .await?;
        write.done().await
    }

    pub(super) async fn abandon_request(&self, caller: &str, key: [u8; 32]) -> Result<(), Error> {
        let mut write = self.begin().await?;
        sqlx::query("DELETE FROM idempotency_keys WHERE caller = ? AND key_digest = ? AND status IS NULL")
            .bind(caller)
            .bind(key.as_slice())
            .execute(write.conn())
            .await?;
        write.done().await
    }
}
