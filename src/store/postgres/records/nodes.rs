//! The gateways of a fleet.

use std::sync::Arc;
use std::time::Duration;

use super::super::PgStore;
use super::super::rows::{Reading, Row};
use crate::id::Revision;
use crate::store::Error;
use crate::store::records::NodeRow;

impl PgStore {
    pub(super) async fn list_nodes(&self) -> Result<Vec<NodeRow>, Error> {
        let sql = "SELECT node_id, name, version, started_at, applied, bound_ms,
                          CASE WHEN history = (SELECT gateway.history()) THEN greatest(gateway.head() - applied, 0) ELSE -1 END
                   FROM gateway.nodes ORDER BY started_at, node_id";
        let found = sqlx::query(sql).fetch_all(&mut *self.conn().await?).await?;
        let nodes = found.iter().map(|row| {
            let row = Reading { row, table: "nodes" };
            let number = |column: (usize, &'static str)| row.read(column.1, |row| row.number(column.0));
            let some = |column| Ok::<_, Error>(row.some_text(column)?.filter(|text| !text.is_empty()).map(Arc::from));
            Ok(NodeRow {
                id: row.parse::<String>((0, "node_id"))?.into(),
                name: some((1, "name"))?,
                version: some((2, "version"))?,
                started_at: row.moment((3, "started_at"))?,
                applied: Revision(u64::try_from(number((4, "applied"))?).unwrap_or(0)),
                bound: Duration::from_millis(u64::try_from(number((5, "bound_ms"))?).unwrap_or(0)),
                behind: u64::try_from(number((6, "behind"))?).ok(),
            })
        });
        nodes.collect()
    }
}
