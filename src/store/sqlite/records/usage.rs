//! What clients do, by the day.

use sqlx::{AssertSqlSafe, Connection};

use super::super::SqliteStore;
use super::super::rows::{self, usage_row};
use super::each;
use super::page::add_secrets;
use crate::clock::{Day, Timestamp};
use crate::id::{ClientId, PracticeId};
use crate::scope::ScopeToken;
use crate::store::Error;
use crate::store::records::{Active, ClientRow, SecretUse, UsageDelta, UsageRow, Viewer};

impl SqliteStore {
    pub(super) async fn count_usage(&self, deltas: &[UsageDelta], uses: &[SecretUse]) -> Result<(), Error> {
        // All rows in one statement: each costs two changes of threads.
        let mut write = self.begin().await?;
        if !deltas.is_empty() {
            sqlx::query(
                "INSERT INTO usage_daily (day, client_id, scope, requests, refused)
                 SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4 FROM json_each(?)
                 WHERE EXISTS (SELECT 1 FROM clients WHERE client_id = value ->> 1)
                 ON CONFLICT (day, client_id, scope) DO UPDATE
                 SET requests = usage_daily.requests + excluded.requests, refused = usage_daily.refused + excluded.refused",
            )
            .bind(each(deltas, |delta| {
                let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
                let scope = delta.scope.as_ref().map_or("", ScopeToken::as_str);
                (delta.day.0, delta.client, scope, count(delta.requests), count(delta.refused))
            }))
            .execute(write.conn())
            .await?;
        }
        if !uses.is_empty() {
            sqlx::query(
                "INSERT INTO secret_uses (client_id, generation, last_used_at, address)
                 SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?)
                 WHERE EXISTS (SELECT 1 FROM clients WHERE client_id = value ->> 0)
                 ON CONFLICT (client_id, generation) DO UPDATE SET last_used_at = excluded.last_used_at, address = excluded.address
                 WHERE secret_uses.last_used_at < excluded.last_used_at",
            )
            .bind(each(uses, |used| (used.client, used.generation, used.at.0, used.address)))
            .execute(write.conn())
            .await?;
        }
        write.done().await
    }

    pub(super) async fn list_usage(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        days: [Day; 2],
        client: Option<ClientId>,
    ) -> Result<Vec<UsageRow>, Error> {
        let found = sqlx::query(
            "SELECT client_id, day, scope, requests, refused FROM clients JOIN usage_daily USING (client_id)
             WHERE practice_id = ?1 AND ((owner IS NULL AND ?2) OR owner = ?3) AND (?6 IS NULL OR client_id = ?6) AND day BETWEEN ?4 AND ?5
             ORDER BY day, client_id, scope",
        )
        .bind(practice.as_str())
        .bind(viewer.sees_shared())
        .bind(viewer.own())
        .bind(days[0].0)
        .bind(days[1].0)
        .bind(client.map(ClientId::to_text))
        .fetch_all(&mut *self.conn().await?)
        .await?;
        found.iter().map(usage_row).collect()
    }

    pub(super) async fn list_active(&self, practice: &PracticeId, since: Timestamp) -> Result<Active, Error> {
        let mut conn = self.conn().await?;
        let mut transaction = conn.begin().await?;
        let sql = format!(
            "{} WHERE practice_id = ? AND owner IS NULL AND last_used_at >= ? ORDER BY last_used_at DESC, clients.client_id",
            rows::CLIENT_ROW
        );
        let found = sqlx::query(AssertSqlSafe(sql)).bind(practice.as_str()).bind(since.0).fetch_all(&mut *transaction).await?;
        let mut clients: Vec<ClientRow> = found.iter().map(rows::client_row).collect::<Result<_, _>>()?;
        add_secrets(&mut transaction, &mut clients).await?;
        let people: i64 = sqlx::query_scalar(
            "SELECT count(DISTINCT owner) FROM clients JOIN secret_uses USING (client_id) WHERE practice_id = ? AND last_used_at >= ?",
        )
        .bind(practice.as_str())
        .bind(since.0)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Active { clients, people: u64::try_from(people).unwrap_or(0) })
    }
}
