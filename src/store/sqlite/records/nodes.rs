//! The one gateway there may be.

use std::time::Duration;

use super::super::{SqliteStore, write};
use crate::clock::Timestamp;
use crate::id::Revision;
use crate::store::Error;
use crate::store::records::NodeRow;

impl SqliteStore {
    pub(super) async fn list_nodes(&self) -> Result<Vec<NodeRow>, Error> {
        let mut conn = self.conn().await?;
        let found: Vec<(String, i64, i64, i64)> =
            sqlx::query_as("SELECT node_id, started_at, applied, lease_ms FROM nodes").fetch_all(&mut *conn).await?;
        let head = write::head(&mut conn).await?;
        let count = |number: i64| u64::try_from(number).unwrap_or(0);
        let nodes = found.into_iter().map(|(id, started_at, applied, lease_ms)| NodeRow {
            id: id.into(),
            name: None,
            version: None,
            started_at: Timestamp(started_at),
            applied: Revision(count(applied)),
            behind: Some(head.0.saturating_sub(count(applied))),
            bound: Duration::from_millis(count(lease_ms)),
        });
        Ok(nodes.collect())
    }
}
