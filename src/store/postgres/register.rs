//! A node's place in the register, and the proof that the log it follows can be relied on.

use std::time::Duration;

use sqlx::PgConnection;

use super::{Timing, fault::unusable, open::newest_schema};
use crate::store::Error;

/// Who a node is to the barriers: one start of one process, at one history of the database. Never used again.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) id: String,
    pub(super) history: String,
}

impl Node {
    /// Enters the register. The row is committed when this returns.
    pub(super) async fn enter(conn: &mut PgConnection, timing: &Timing, instead_of: Option<&str>) -> Result<Self, Error> {
        prove_log(conn).await?;
        if let Some(before) = instead_of {
            sqlx::query("DELETE FROM gateway.nodes WHERE node_id = $1").bind(before).execute(&mut *conn).await?;
        }
        let id = uuid::Uuid::new_v4().to_string();
        let history: String = sqlx::query_scalar(
            "INSERT INTO gateway.nodes (node_id, history, bound_ms, name, version, schema) VALUES ($1, gateway.history(), $2, $3, $4, $5) RETURNING history",
        )
        .bind(&id)
        .bind(millis(timing.bound()))
        .bind(host_name())
        .bind(env!("CARGO_PKG_VERSION"))
        .bind(newest_schema())
        .fetch_one(conn)
        .await?;
        Ok(Self { id, history })
    }

    /// Leaves the register.
    pub(super) async fn leave(&self, conn: &mut PgConnection) -> Result<(), Error> {
        sqlx::query("DELETE FROM gateway.nodes WHERE node_id = $1").bind(&self.id).execute(conn).await?;
        Ok(())
    }

    /// Proves that the node is current: a write, which only a primary that can still commit will acknowledge. What it
    /// is asked for afterwards was committed before, or will be waited for.
    /// Barriers learn at the same time for how long it may answer after this.
    pub(super) async fn beat(&self, conn: &mut PgConnection, applied: i64, bound: Duration) -> Result<(), Error> {
        let done =
            sqlx::query("UPDATE gateway.nodes SET beat = beat + 1, applied = greatest(applied, $2), bound_ms = $3 WHERE node_id = $1")
                .bind(&self.id)
                .bind(applied)
                .bind(millis(bound))
                .execute(conn)
                .await?;
        self.still_there(done.rows_affected())
    }

    /// Tells barriers what is in force here.
    pub(super) async fn acknowledge(&self, conn: &mut PgConnection, applied: i64) -> Result<(), Error> {
        let done = sqlx::query("UPDATE gateway.nodes SET applied = greatest(applied, $2) WHERE node_id = $1")
            .bind(&self.id)
            .bind(applied)
            .execute(conn)
            .await?;
        self.still_there(done.rows_affected())
    }

    fn still_there(&self, rows: u64) -> Result<(), Error> {
        if rows == 1 { Ok(()) } else { Err(Error::Deposed(format!("node {} was taken out of the register", self.id))) }
    }
}

/// Whether every trigger and function is as the migration left it, and the log that of this server. Else changes would
/// go unseen.
pub(super) async fn prove_log(conn: &mut PgConnection) -> Result<(), Error> {
    let foreign: bool = sqlx::query_scalar("SELECT gateway.foreign_log()").fetch_one(&mut *conn).await?;
    if foreign {
        return Err(unusable(
            "the change log was written by another server, as after a restored dump, so changes may go unseen: run `sigmagate migrate`, which begins it anew".to_owned(),
        ));
    }
    let same: Option<bool> =
        sqlx::query_scalar("SELECT fingerprint = gateway.fingerprint() FROM gateway.schema_version ORDER BY version DESC LIMIT 1")
            .fetch_optional(conn)
            .await?;
    if same == Some(true) {
        return Ok(());
    }
    Err(unusable(
        "a trigger or function in the schema `gateway` was disabled, dropped or altered, so changes may go unseen: put it back (`ALTER TABLE … ENABLE ALWAYS TRIGGER …`)".to_owned(),
    ))
}

/// For people who look at the register.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
