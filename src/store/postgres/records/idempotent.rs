//! Requests that may come twice.

use super::super::PgStore;
use crate::store::Error;
use crate::store::records::Idempotent;

impl PgStore {
    pub(super) async fn begin_request(&self, caller: &str, key: [u8; 32], request: [u8; 32]) -> Result<Idempotent, Error> {
        let mut conn = self.conn().await?;
        loop {
            // Of two at once the second one waits for the first. One that nobody has come by yet to forget is forgotten here.
            let begun = sqlx::query(
                "INSERT INTO gateway.idempotency_keys AS before (caller, key_digest, request_digest) VALUES ($1, $2, $3)
                 ON CONFLICT (caller, key_digest) DO UPDATE
                 SET request_digest = excluded.request_digest, created_at = excluded.created_at, status = NULL, body = NULL
                 WHERE before.created_at < now() - interval '1 day'",
            )
            .bind(caller)
            .bind(key.as_slice())
            .bind(request.as_slice())
            .execute(&mut *conn)
            .await?;
            if begun.rows_affected() == 1 {
                return Ok(Idempotent::Begun);
            }
            let found: Option<(bool, Option<i32>, Option<String>)> = sqlx::query_as(
                "SELECT request_digest = $3, status, body FROM gateway.idempotency_keys WHERE caller = $1 AND key_digest = $2",
            )
            .bind(caller)
            .bind(key.as_slice())
            .bind(request.as_slice())
            .fetch_optional(&mut *conn)
            .await?;
            // Abandoned in between: begun anew.
            let Some((same, status, body)) = found else { continue };
            return Ok(match (same, status.and_then(|status| u16::try_from(status).ok()), body) {
                (false, ..) => Idempotent::Mismatch,
                (true, Some(status), Some(body)) => Idempotent::Replay { status, body },
                (true, ..) => Idempotent::UnderWay,
            });
        }
    }

    pub(super) async fn finish_request(&self, caller: &str, key: [u8; 32], status: u16, body: &str) -> Result<(), Error> {
        let sql = "UPDATE gateway.idempotency_keys SET status = $3, body = $4 WHERE caller = $1 AND key_digest = $2 AND status IS NULL";
        sqlx::query(sql).bind(caller).bind(key.as_slice()).bind(i32::from(status)).bind(body).execute(&mut *self.conn().await?).await?;
        Ok(())
    }

    pub(super) async fn abandon_request(&self, caller: &str, key: [u8; 32]) -> Result<(), Error> {
        let sql = "DELETE FROM gateway.idempotency_keys WHERE caller = $1 AND key_digest = $2 AND status IS NULL";
        sqlx::query(sql).bind(caller).bind(key.as_slice()).execute(&mut *self.conn().await?).await?;
        Ok(())
    }
}
