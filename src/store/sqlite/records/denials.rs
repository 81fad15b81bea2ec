//! Requests that were refused.

use std::collections::BTreeSet;

use sqlx::AssertSqlSafe;

use super::super::SqliteStore;
use super::super::rows::denial;
use super::each;
use crate::id::{PracticeId, UserId};
use crate::store::Error;
use crate::store::records::{DenialPlace, DenialRow, Viewer};

const DENIAL: &str = "SELECT request_id, at, practice_id, client_id, user_id, owner, route, method, path, reason, status, address, revision
     FROM denials";

/// How many are forgotten at a time: whoever wants to write meanwhile waits.
const AT_A_TIME: u32 = 2000;

impl SqliteStore {
    /// Whose a client is is taken from the client itself, where there is one: a personal one must not be shown to others
    /// whatever the row says.
    pub(super) async fn note_denials(&self, rows: &[DenialRow]) -> Result<(), Error> {
        let mut write = self.begin().await?;
        sqlx::query(
            "INSERT INTO denials (request_id, at, practice_id, client_id, user_id, owner, route, method, path, reason, status, address,
                 revision)
             SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4,
                 CASE WHEN EXISTS (SELECT 1 FROM clients WHERE client_id = value ->> 3)
                      THEN (SELECT owner FROM clients WHERE client_id = value ->> 3)
                      ELSE value ->> 5 END,
                 value ->> 6, value ->> 7, value ->> 8, value ->> 9, value ->> 10, value ->> 11, value ->> 12
             FROM json_each(?) WHERE true ON CONFLICT DO NOTHING",
        )
        .bind(each(rows, |row| {
            (
                &*row.request_id,
                row.at.0,
                row.practice.as_str(),
                row.client,
                row.user.as_ref().map(UserId::as_str),
                row.owner.as_ref().map(UserId::as_str),
                &*row.route,
                &*row.method,
                &*row.path,
                &*row.reason,
                row.status,
                row.address,
                i64::try_from(row.revision.0).unwrap_or(i64::MAX),
            )
        }))
        .execute(write.conn())
        .await?;
        write.done().await?;
        for practice in rows.iter().map(|row| row.practice.as_str()).collect::<BTreeSet<_>>() {
            while self.forget_denials(practice).await? {}
        }
        Ok(())
    }

    /// Forgets some of the denials of a practice beyond the newest; whether there may be others yet.
    async fn forget_denials(&self, practice: &str) -> Result<bool, Error> {
        let mut write = self.begin().await?;
        let done = sqlx::query(
            "DELETE FROM denials WHERE practice_id = ?1 AND (at, request_id) IN (
                 SELECT at, request_id FROM denials WHERE practice_id = ?1 ORDER BY at DESC, request_id DESC LIMIT ?2 OFFSET 10000)",
        )
        .bind(practice)
        .bind(AT_A_TIME)
        .execute(write.conn())
        .await?;
        write.done().await?;
        Ok(done.rows_affected() == u64::from(AT_A_TIME))
    }

    pub(super) async fn page_of_denials(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        after: Option<&DenialPlace>,
        limit: u32,
    ) -> Result<Vec<DenialRow>, Error> {
        let older = after.map_or("", |_| " AND (at, request_id) < (?5, ?6)");
        let sql = format!(
            "{DENIAL} WHERE practice_id = ?1 AND ((owner IS NULL AND ?2) OR owner = ?3){older} ORDER BY at DESC, request_id DESC LIMIT ?4"
        );
        let query = sqlx::query(AssertSqlSafe(sql)).bind(practice.as_str()).bind(viewer.sees_shared()).bind(viewer.own()).bind(limit);
        let query = if let Some(after) = after { query.bind(after.at.0).bind(&*after.request_id) } else { query };
        query.fetch_all(&mut *self.conn().await?).await?.iter().map(denial).collect()
    }

    pub(super) async fn one_denial(&self, request_id: &str) -> Result<Option<DenialRow>, Error> {
        let sql = AssertSqlSafe(format!("{DENIAL} WHERE request_id = ? ORDER BY at DESC, practice_id LIMIT 1"));
        let found = sqlx::query(sql).bind(request_id).fetch_optional(&mut *self.conn().await?).await?;
        found.as_ref().map(denial).transpose()
    }
}
