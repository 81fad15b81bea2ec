//! Mail that is to be sent.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;
use sqlx::PgConnection;

use super::super::PgStore;
use super::super::rows::{Reading, mail};
use super::super::write::moment;
use crate::clock::{Day, Timestamp};
use crate::id::ClientId;
use crate::store::Error;
use crate::store::records::OutboxMail;
use crate::store::records::mail::{ERROR, NOBODY, NewMail, To};

/// Whoever claims at the same moment passes over what another one is claiming.
const CLAIM: &str = "WITH due AS (
         SELECT id FROM gateway.email_outbox
         WHERE sent_at IS NULL AND given_up_at IS NULL AND next_attempt_at <= now() AND (claimed_until IS NULL OR claimed_until <= now())
         ORDER BY next_attempt_at, id LIMIT $2 FOR UPDATE SKIP LOCKED
     ), claimed AS (
         UPDATE gateway.email_outbox AS mail
         SET claimed_by = $1, claimed_until = now() + $3 * interval '1 millisecond', attempts = attempts + 1
         FROM due WHERE mail.id = due.id RETURNING mail.*
     )
     SELECT claimed.id::text, kind, claimed.practice_id, practices.name, claimed.client_id, clients.name, recipient_user, people.name, email,
            claimed.created_at, attempts::bigint, details
     FROM claimed LEFT JOIN gateway.practices ON practices.practice_id = claimed.practice_id
         LEFT JOIN gateway.clients ON clients.client_id = claimed.client_id
         LEFT JOIN gateway.users ON users.user_id = recipient_user AND left_at IS NULL
         LEFT JOIN gateway.people ON people.user_id = users.user_id
     ORDER BY next_attempt_at, claimed.id";

impl PgStore {
    pub(super) async fn tell_of_ended_secret(
        &self,
        client: ClientId,
        generation: u32,
        at: Timestamp,
        address: IpAddr,
    ) -> Result<bool, Error> {
        let details = json!({ "generation": generation, "at": at, "address": address });
        let told: Option<bool> = sqlx::query_scalar("SELECT gateway.queue_ended_secret_used($1, date '1970-01-01' + $2, $3)")
            .bind(client.to_text())
            .bind(Day::of(at).0)
            .bind(details.to_string())
            .fetch_one(&mut *self.conn().await?)
            .await?;
        told.ok_or_else(|| Error::NotFound { what: "client", id: client.to_string() })
    }

    pub(super) async fn claim_due(&self, claimer: &str, limit: u32, hold: Duration) -> Result<Vec<OutboxMail>, Error> {
        let hold = i64::try_from(hold.as_millis()).unwrap_or(i64::MAX);
        loop {
            let mut transaction = self.pool.begin().await?;
            let found = sqlx::query(CLAIM).bind(claimer).bind(i64::from(limit)).bind(hold).fetch_all(&mut *transaction).await?;
            let claimed: Vec<_> = found.iter().map(mail).collect::<Result<_, _>>()?;
            let gone: Vec<i64> = claimed.iter().filter_map(|claimed| claimed.as_ref().err()).copied().collect();
            if !gone.is_empty() {
                sqlx::query(
                    "UPDATE gateway.email_outbox SET given_up_at = now(), last_error = $2, claimed_by = NULL, claimed_until = NULL
                     WHERE id = ANY ($1)",
                )
                .bind(&gone)
                .bind(NOBODY)
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await?;
            // Where nothing is left of what was claimed, there may be more.
            if claimed.is_empty() || gone.len() < claimed.len() {
                return Ok(claimed.into_iter().flatten().collect());
            }
        }
    }

    pub(super) async fn note_sent(&self, id: i64, claimer: &str) -> Result<bool, Error> {
        let sql =
            "UPDATE gateway.email_outbox SET sent_at = coalesce(sent_at, now()) WHERE id = $1 AND claimed_by = $2 AND given_up_at IS NULL";
        let done = sqlx::query(sql).bind(id).bind(claimer).execute(&mut *self.conn().await?).await?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn note_failed(&self, id: i64, claimer: &str, error: &str, again_at: Option<Timestamp>) -> Result<bool, Error> {
        let done = sqlx::query(concat!(
            "UPDATE gateway.email_outbox SET claimed_by = NULL, claimed_until = NULL, last_error = $3,
                 next_attempt_at = coalesce(",
            moment!("$4"),
            ", next_attempt_at), given_up_at = CASE WHEN $4 IS NULL THEN now() END
             WHERE id = $1 AND claimed_by = $2 AND sent_at IS NULL AND given_up_at IS NULL"
        ))
        .bind(id)
        .bind(claimer)
        .bind(error.chars().filter(|&letter| letter != '\0').take(ERROR).collect::<String>())
        .bind(again_at.map(|at| at.0))
        .execute(&mut *self.conn().await?)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn count_waiting(&self) -> Result<(u64, Option<Timestamp>), Error> {
        let sql = "SELECT 'all', count(*), min(created_at) FROM gateway.email_outbox WHERE sent_at IS NULL AND given_up_at IS NULL";
        let found = sqlx::query(sql).fetch_one(&mut *self.conn().await?).await?;
        let row = Reading { row: &found, table: "email_outbox" };
        Ok((row.number((1, "count"))?, row.some_moment((2, "created_at"))?))
    }
}

/// One row for each recipient.
pub(in super::super) async fn queue(conn: &mut PgConnection, mail: &NewMail<'_>) -> Result<(), Error> {
    let sql = match mail.to {
        To::Operators => {
            "INSERT INTO gateway.email_outbox (kind, practice_id, client_id, recipient_user, details) SELECT $1, $2, $3, NULL, $4 WHERE $5::text IS NULL"
        }
        To::Admins => {
            "INSERT INTO gateway.email_outbox (kind, practice_id, client_id, recipient_user, details)
             SELECT $1, $2, $3, user_id, $4 FROM gateway.users JOIN gateway.people USING (user_id)
             WHERE practice_id = $2 AND role = 'admin' AND left_at IS NULL AND email IS NOT NULL AND $5::text IS NULL ORDER BY user_id COLLATE \"C\""
        }
        To::Owner(_) => {
            "INSERT INTO gateway.email_outbox (kind, practice_id, client_id, recipient_user, details)
             SELECT $1, $2, $3, user_id, $4 FROM gateway.users JOIN gateway.people USING (user_id)
             WHERE practice_id = $2 AND user_id = $5 AND left_at IS NULL AND email IS NOT NULL"
        }
    };
    let owner = if let To::Owner(owner) = mail.to { Some(owner.as_str()) } else { None };
    sqlx::query(sql)
        .bind(mail.kind.as_str())
        .bind(mail.practice.as_str())
        .bind(mail.client.map(ClientId::to_text))
        .bind(mail.details.to_string())
        .bind(owner)
        .execute(conn)
        .await?;
    Ok(())
}
