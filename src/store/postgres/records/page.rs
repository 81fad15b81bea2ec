//! Pages of clients and of events.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::super::read::ONE_VIEW;
use super::super::{PgStore, rows};
use crate::entity::StoredSecret;
use crate::id::{ClientId, PracticeId};
use crate::store::records::{ClientFilter, ClientKind, ClientRow, Viewer};
use crate::store::{Error, audit};

/// The event is about a client that the viewer sees, or about none.
const ABOUT: &str = "LEFT JOIN LATERAL (
         SELECT owner FROM gateway.clients WHERE client_id =
             CASE WHEN action = 'token.revoke' THEN after::json ->> 'client_id' WHEN action LIKE 'client.%' THEN target END) AS about ON true";

impl PgStore {
    pub(super) async fn page_of_clients(&self, of: &ClientFilter, after: Option<ClientId>, limit: u32) -> Result<Vec<ClientRow>, Error> {
        let mut conn = self.conn().await?;
        let mut transaction = conn.begin_with(ONE_VIEW).await?;
        let seen = "practice_id = $1 AND ((owner IS NULL AND $2) OR owner = $3)";
        let (practice, shared, own) = (of.practice.as_str(), of.visible_to.sees_shared(), of.visible_to.own());
        if let Some(after) = after {
            let sql = AssertSqlSafe(format!("SELECT EXISTS (SELECT FROM gateway.clients WHERE {seen} AND client_id = $4)"));
            let known = sqlx::query_scalar(sql).bind(practice).bind(shared).bind(own).bind(after.to_text());
            if !known.fetch_one(&mut *transaction).await? {
                return Err(Error::NotFound { what: "client", id: after.to_string() });
            }
        }
        let kind = match of.kind {
            None => "",
            Some(ClientKind::Practice) => " AND owner IS NULL",
            Some(ClientKind::Personal) => " AND owner IS NOT NULL",
        };
        // Two values, not one row of a query, which would find no index.
        let older = after.map_or(
            "",
            |_| " AND (created_at, client_id COLLATE \"C\") < ((SELECT created_at FROM gateway.clients WHERE client_id = $5), $5)",
        );
        let sql = format!("{} WHERE {seen}{kind}{older} ORDER BY created_at DESC, client_id COLLATE \"C\" DESC LIMIT $4", rows::CLIENT_ROW);
        let query = sqlx::query(AssertSqlSafe(sql)).bind(practice).bind(shared).bind(own).bind(i64::from(limit));
        let query = if let Some(after) = after { query.bind(after.to_text()) } else { query };
        let found = query.fetch_all(&mut *transaction).await?;
        let mut clients: Vec<ClientRow> = found.iter().map(rows::client_row).collect::<Result<_, _>>()?;
        add_secrets(&mut transaction, &mut clients).await?;
        transaction.commit().await?;
        Ok(clients)
    }

    pub(super) async fn page_of_events(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<audit::Event>, Error> {
        let sql = format!(
            "{} {ABOUT} WHERE practice_id = $1 AND id < $4 AND ((about.owner IS NULL AND $2) OR about.owner = $3) ORDER BY id DESC LIMIT $5",
            rows::EVENT
        );
        let found = sqlx::query(AssertSqlSafe(sql))
            .bind(practice.as_str())
            .bind(viewer.sees_shared())
            .bind(viewer.own())
            .bind(after.map_or(i64::MAX, number))
            .bind(i64::from(limit))
            .fetch_all(&mut *self.conn().await?)
            .await?;
        found.iter().map(rows::event).collect()
    }

    /// Each practice's ledger is written in the order of the numbers, but the numbers of several practices are not committed
    /// in theirs: before what is found is believed to be all up to there, whoever is writing a ledger now is waited for.
    pub(super) async fn chunk_of_events(&self, after: u64, limit: u32) -> Result<Vec<audit::Event>, Error> {
        let mut conn = self.conn().await?;
        let last: Option<i64> =
            sqlx::query_scalar("SELECT max(id) FROM (SELECT id FROM gateway.audit_events WHERE id > $1 ORDER BY id LIMIT $2) AS chunk")
                .bind(number(after))
                .bind(i64::from(limit))
                .fetch_one(&mut *conn)
                .await?;
        let Some(last) = last else { return Ok(Vec::new()) };
        // They have held the lock of their ledger since before they drew their numbers.
        sqlx::query(
            "SELECT pg_advisory_xact_lock_shared(1936549749, objid::bigint::bit(32)::int) FROM pg_locks
             WHERE locktype = 'advisory' AND classid = 1936549749 AND objsubid = 2 AND mode = 'ExclusiveLock' AND granted
                 AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
        )
        .execute(&mut *conn)
        .await?;
        let sql = AssertSqlSafe(format!("{} WHERE id > $1 AND id <= $2 ORDER BY id LIMIT $3", rows::EVENT));
        let found = sqlx::query(sql).bind(number(after)).bind(last).bind(i64::from(limit)).fetch_all(&mut *conn).await?;
        found.iter().map(rows::event).collect()
    }
}

fn number(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

/// Gives each client its secrets, the newest first.
pub(super) async fn add_secrets(conn: &mut PgConnection, clients: &mut [ClientRow]) -> Result<(), Error> {
    let ids: Vec<String> = clients.iter().map(|row| row.client.id.to_text()).collect();
    let sql = AssertSqlSafe(format!("{} WHERE client_id = ANY ($1) ORDER BY generation DESC", rows::SECRET));
    let mut of_client: HashMap<ClientId, Vec<StoredSecret>> = HashMap::new();
    for row in &sqlx::query(sql).bind(ids).fetch_all(conn).await? {
        let (id, secret) = rows::secret(row)?;
        of_client.entry(id).or_default().push(secret);
    }
    for row in clients {
        row.client.secrets = of_client.remove(&row.client.id).unwrap_or_default();
    }
    Ok(())
}
