//! Mail that is to be sent.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::super::SqliteStore;
use super::super::rows::mail;
use super::NOW;
use crate::clock::{Day, Timestamp};
use crate::id::{ClientId, PracticeId, UserId};
use crate::store::Error;
use crate::store::records::OutboxMail;
use crate::store::records::mail::{ERROR, MailKind, NOBODY, NewMail, To};

const CLAIMED: &str =
    "SELECT CAST(email_outbox.id AS TEXT), kind, email_outbox.practice_id, practices.name, email_outbox.client_id, clients.name,
         recipient_user, people.name, email, email_outbox.created_at, attempts, details
     FROM email_outbox LEFT JOIN practices ON practices.practice_id = email_outbox.practice_id
         LEFT JOIN clients ON clients.client_id = email_outbox.client_id
         LEFT JOIN users ON users.user_id = recipient_user AND left_at IS NULL
         LEFT JOIN people ON people.user_id = users.user_id
     WHERE email_outbox.id IN (SELECT value FROM json_each(?)) ORDER BY next_attempt_at, email_outbox.id";

impl SqliteStore {
    pub(super) async fn tell_of_ended_secret(
        &self,
        client: ClientId,
        generation: u32,
        at: Timestamp,
        address: IpAddr,
    ) -> Result<bool, Error> {
        let mut write = self.begin().await?;
        let found: Option<(String, Option<String>)> = sqlx::query_as("SELECT practice_id, owner FROM clients WHERE client_id = ?")
            .bind(client.to_text())
            .fetch_optional(write.conn())
            .await?;
        let (practice, owner) = found.ok_or_else(|| Error::NotFound { what: "client", id: client.to_string() })?;
        let wrong = |error: crate::id::Error| Error::Row { table: "clients", key: client.to_text(), why: error.to_string() };
        let practice: PracticeId = practice.parse().map_err(wrong)?;
        let owner: Option<UserId> = owner.map(|owner| owner.parse()).transpose().map_err(wrong)?;
        let first = sqlx::query(
            "INSERT INTO ended_secret_told (client_id, day) VALUES (?, ?)
             ON CONFLICT (client_id) DO UPDATE SET day = excluded.day WHERE ended_secret_told.day < excluded.day",
        )
        .bind(client.to_text())
        .bind(Day::of(at).0)
        .execute(write.conn())
        .await?;
        if first.rows_affected() == 0 {
            return Ok(false);
        }
        let details = json!({ "generation": generation, "at": at, "address": address });
        let to = To::holders(owner.as_ref());
        queue(write.conn(), &NewMail { kind: MailKind::EndedSecretUsed, practice: &practice, client: Some(client), to, details }).await?;
        write.done().await?;
        Ok(true)
    }

    pub(super) async fn claim_due(&self, claimer: &str, limit: u32, hold: Duration) -> Result<Vec<OutboxMail>, Error> {
        let hold = i64::try_from(hold.as_millis()).unwrap_or(i64::MAX);
        let due = format!(
            "SELECT id FROM email_outbox WHERE sent_at IS NULL AND given_up_at IS NULL AND next_attempt_at <= {NOW}
                 AND (claimed_until IS NULL OR claimed_until <= {NOW})
             ORDER BY next_attempt_at, id LIMIT ?"
        );
        let claim = format!(
            "UPDATE email_outbox SET claimed_by = ?2, claimed_until = {NOW} + ?3, attempts = attempts + 1
             WHERE id IN (SELECT value FROM json_each(?1))"
        );
        let give_up = format!(
            "UPDATE email_outbox SET given_up_at = {NOW}, last_error = ?2, claimed_by = NULL, claimed_until = NULL
             WHERE id IN (SELECT value FROM json_each(?1))"
        );
        loop {
            let mut write = self.begin().await?;
            let ids: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(due.as_str())).bind(limit).fetch_all(write.conn()).await?;
            if ids.is_empty() {
                return Ok(Vec::new());
            }
            let listed = list(&ids);
            sqlx::query(AssertSqlSafe(claim.as_str())).bind(&listed).bind(claimer).bind(hold).execute(write.conn()).await?;
            let found = sqlx::query(CLAIMED).bind(&listed).fetch_all(write.conn()).await?;
            let claimed: Vec<_> = found.iter().map(mail).collect::<Result<_, _>>()?;
            let gone: Vec<i64> = claimed.iter().filter_map(|claimed| claimed.as_ref().err()).copied().collect();
            if !gone.is_empty() {
                sqlx::query(AssertSqlSafe(give_up.as_str())).bind(list(&gone)).bind(NOBODY).execute(write.conn()).await?;
            }
            write.done().await?;
            // Where nothing is left of what was claimed, there may be more.
            if gone.len() < claimed.len() {
                return Ok(claimed.into_iter().flatten().collect());
            }
        }
    }

    pub(super) async fn note_sent(&self, id: i64, claimer: &str) -> Result<bool, Error> {
        let sql = AssertSqlSafe(format!(
            "UPDATE email_outbox SET sent_at = coalesce(sent_at, {NOW}) WHERE id = ? AND claimed_by = ? AND given_up_at IS NULL"
        ));
        let mut write = self.begin().await?;
        let done = sqlx::query(sql).bind(id).bind(claimer).execute(write.conn()).await?;
        write.done().await?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn note_failed(&self, id: i64, claimer: &str, error: &str, again_at: Option<Timestamp>) -> Result<bool, Error> {
        let sql = AssertSqlSafe(format!(
            "UPDATE email_outbox SET claimed_by = NULL, claimed_until = NULL, last_error = ?3,
                 next_attempt_at = coalesce(?4, next_attempt_at), given_up_at = CASE WHEN ?4 IS NULL THEN {NOW} END
             WHERE id = ?1 AND claimed_by = ?2 AND sent_at IS NULL AND given_up_at IS NULL"
        ));
        let error: String = error.chars().take(ERROR).collect();
        let mut write = self.begin().await?;
        let done = sqlx::query(sql).bind(id).bind(claimer).bind(error).bind(again_at.map(|at| at.0)).execute(write.conn()).await?;
        write.done().await?;
        Ok(done.rows_affected() == 1)
    }

    pub(super) async fn count_waiting(&self) -> Result<(u64, Option<Timestamp>), Error> {
        let sql = "SELECT count(*), min(created_at) FROM email_outbox WHERE sent_at IS NULL AND given_up_at IS NULL";
        let (count, oldest): (i64, Option<i64>) = sqlx::query_as(sql).fetch_one(&mut *self.conn().await?).await?;
        Ok((u64::try_from(count).unwrap_or(0), oldest.map(Timestamp)))
    }
}

fn list(ids: &[i64]) -> String {
    serde_json::to_string(ids).expect("a list of numbers")
}

/// One row for each recipient.
pub(in super::super) async fn queue(conn: &mut SqliteConnection, mail: &NewMail<'_>) -> Result<(), Error> {
    let (who, from) = match mail.to {
        To::Operators => ("NULL", "WHERE ?5 IS NULL"),
        To::Admins => ("user_id", "FROM users JOIN people USING (user_id) WHERE practice_id = ?2 AND role = 'admin' AND ?5 IS NULL"),
        To::Owner(_) => ("user_id", "FROM users JOIN people USING (user_id) WHERE practice_id = ?2 AND user_id = ?5"),
    };
    let reached = if who == "NULL" { "" } else { "AND left_at IS NULL AND email IS NOT NULL ORDER BY user_id" };
    let owner = if let To::Owner(owner) = mail.to { Some(owner.as_str()) } else { None };
    let sql = format!(
        "INSERT INTO email_outbox (kind, practice_id, client_id, recipient_user, details, created_at, next_attempt_at)
         SELECT ?1, ?2, ?3, {who}, ?4, {NOW}, {NOW} {from} {reached}"
    );
    sqlx::query(AssertSqlSafe(sql))
        .bind(mail.kind.as_str())
        .bind(mail.practice.as_str())
        .bind(mail.client.map(ClientId::to_text))
        .bind(mail.details.to_string())
        .bind(owner)
        .execute(conn)
        .await?;
    Ok(())
}
