//! Pages of clients and of events.

use std::collections::HashMap;

use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::super::{SqliteStore, rows};
use crate::entity::StoredSecret;
use crate::id::{ClientId, PracticeId};
use crate::store::records::{ClientFilter, ClientKind, ClientRow, Viewer};
use crate::store::{Error, audit};

/// Whose client the event is about, if it is about a client.
const ABOUT: &str = "(SELECT owner FROM clients WHERE client_id =
         CASE WHEN action = 'token.revoke' THEN json_extract(after, '$.client_id') WHEN action LIKE 'client.%' THEN target END)";

impl SqliteStore {
    pub(super) async fn page_of_clients(&self, of: &ClientFilter, after: Option<ClientId>, limit: u32) -> Result<Vec<ClientRow>, Error> {
        let mut conn = self.conn().await?;
        let mut transaction = conn.begin().await?;
        let seen = "practice_id = ?1 AND ((owner IS NULL AND ?2) OR owner = ?3)";
        let (practice, shared, own) = (of.practice.as_str(), of.visible_to.sees_shared(), of.visible_to.own());
        if let Some(after) = after {
            let sql = AssertSqlSafe(format!("SELECT EXISTS (SELECT 1 FROM clients WHERE {seen} AND client_id = ?4)"));
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
        let older =
            after.map_or("", |_| " AND (created_at, clients.client_id) < ((SELECT created_at FROM clients WHERE client_id = ?5), ?5)");
        let sql = format!("{} WHERE {seen}{kind}{older} ORDER BY created_at DESC, clients.client_id DESC LIMIT ?4", rows::CLIENT_ROW);
        let query = sqlx::query(AssertSqlSafe(sql)).bind(practice).bind(shared).bind(own).bind(limit);
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
            "{} WHERE practice_id = ?1 AND id < ?4 AND ((?2 AND {ABOUT} IS NULL) OR {ABOUT} = ?3) ORDER BY id DESC LIMIT ?5",
            rows::EVENT
        );
        let found = sqlx::query(AssertSqlSafe(sql))
            .bind(practice.as_str())
            .bind(viewer.sees_shared())
            .bind(viewer.own())
            .bind(after.map_or(i64::MAX, number))
            .bind(limit)
            .fetch_all(&mut *self.conn().await?)
            .await?;
        found.iter().map(rows::event).collect()
    }

    /// There is one writer at a time, so the numbers are committed in their order.
    pub(super) async fn chunk_of_events(&self, after: u64, limit: u32) -> Result<Vec<audit::Event>, Error> {
        let sql = AssertSqlSafe(format!("{} WHERE id > ? ORDER BY id LIMIT ?", rows::EVENT));
        let found = sqlx::query(sql).bind(number(after)).bind(limit).fetch_all(&mut *self.conn().await?).await?;
        found.iter().map(rows::event).collect()
    }
}

fn number(id: u64) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}

/// Gives each client its secrets, the newest first.
pub(super) async fn add_secrets(conn: &mut SqliteConnection, clients: &mut [ClientRow]) -> Result<(), Error> {
    let ids: Vec<ClientId> = clients.iter().map(|row| row.client.id).collect();
    let ids = serde_json::to_string(&ids).expect("a list of texts");
    let sql = AssertSqlSafe(format!("{} WHERE client_id IN (SELECT value FROM json_each(?)) ORDER BY generation DESC", rows::SECRET));
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
