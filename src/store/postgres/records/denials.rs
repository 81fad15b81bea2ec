//! Requests that were refused.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::AssertSqlSafe;

use super::super::PgStore;
use super::super::rows::denial;
use super::super::write::{each, moment};
use crate::id::{ClientId, PracticeId, UserId};
use crate::store::Error;
use crate::store::records::{DenialPlace, DenialRow, Viewer};

const DENIAL: &str = "SELECT request_id, at, practice_id, client_id, user_id, owner, route, method, path, reason, status::bigint,
    host(address), revision FROM gateway.denials";

impl PgStore {
    /// In the order of the keys, as everybody writes them. Whose a client is is taken from the client itself, where there is
    /// one: a personal one must not be shown to others whatever the row says.
    pub(super) async fn note_denials(&self, rows: &[DenialRow]) -> Result<(), Error> {
        let rows: Vec<_> =
            rows.iter().map(|row| ((&row.practice, row.at, &row.request_id), row)).collect::<BTreeMap<_, _>>().into_values().collect();
        if rows.is_empty() {
            return Ok(());
        }
        let mut conn = self.conn().await?;
        sqlx::query(concat!(
            "INSERT INTO gateway.denials (request_id, at, practice_id, client_id, user_id, owner, route, method, path, reason, status,
                 address, revision)
             SELECT request_id, ",
            moment!("at"),
            ", told.practice_id, told.client_id, user_id, CASE WHEN clients.client_id IS NULL THEN told.owner ELSE clients.owner END,
                 route, method, path, reason, status, address::inet, revision
             FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
                         $10::text[], $11::int[], $12::text[], $13::bigint[])
                  WITH ORDINALITY AS told (request_id, at, practice_id, client_id, user_id, owner, route, method, path, reason, status,
                                           address, revision, place)
             LEFT JOIN gateway.clients ON clients.client_id = told.client_id
             ORDER BY place ON CONFLICT DO NOTHING"
        ))
        .bind(each(&rows, |row| &*row.request_id))
        .bind(each(&rows, |row| row.at.0))
        .bind(each(&rows, |row| row.practice.as_str()))
        .bind(each(&rows, |row| row.client.map(ClientId::to_text)))
        .bind(each(&rows, |row| row.user.as_ref().map(UserId::as_str)))
        .bind(each(&rows, |row| row.owner.as_ref().map(UserId::as_str)))
        .bind(each(&rows, |row| &*row.route))
        .bind(each(&rows, |row| &*row.method))
        .bind(each(&rows, |row| &*row.path))
        .bind(each(&rows, |row| &*row.reason))
        .bind(each(&rows, |row| i32::from(row.status)))
        .bind(each(&rows, |row| row.address.to_string()))
        .bind(each(&rows, |row| i64::try_from(row.revision.0).unwrap_or(i64::MAX)))
        .execute(&mut *conn)
        .await?;
        for practice in rows.iter().map(|row| row.practice.as_str()).collect::<BTreeSet<_>>() {
            while sqlx::query_scalar("SELECT gateway.prune_denials($1)").bind(practice).fetch_one(&mut *conn).await? {}
        }
        Ok(())
    }

    pub(super) async fn page_of_denials(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        after: Option<&DenialPlace>,
        limit: u32,
    ) -> Result<Vec<DenialRow>, Error> {
        let older = after.map_or("", |_| concat!(" AND (at, request_id) < (", moment!("$5"), ", $6)"));
        let sql = format!(
            "{DENIAL} WHERE practice_id = $1 AND ((owner IS NULL AND $2) OR owner = $3){older} ORDER BY at DESC, request_id DESC LIMIT $4"
        );
        let query =
            sqlx::query(AssertSqlSafe(sql)).bind(practice.as_str()).bind(viewer.sees_shared()).bind(viewer.own()).bind(i64::from(limit));
        let query = if let Some(after) = after { query.bind(after.at.0).bind(&*after.request_id) } else { query };
        query.fetch_all(&mut *self.conn().await?).await?.iter().map(denial).collect()
    }

    pub(super) async fn one_denial(&self, request_id: &str) -> Result<Option<DenialRow>, Error> {
        let sql = AssertSqlSafe(format!("{DENIAL} WHERE request_id = $1 ORDER BY at DESC, practice_id COLLATE \"C\" LIMIT 1"));
        let found = sqlx::query(sql).bind(request_id).fetch_optional(&mut *self.conn().await?).await?;
        found.as_ref().map(denial).transpose()
    }
}
