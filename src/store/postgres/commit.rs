//! The one place where a change is committed, and where it is decided whether that may be believed.

use std::time::Duration;

use sqlx::{Postgres, Transaction};
use tokio::time::timeout;

use super::notice::listening;
use super::write::revision_of;
use crate::store::{Committed, Error};

/// How long a COMMIT may take. `statement_timeout` does not end the wait for a standby.
const LIMIT: Duration = Duration::from_secs(10);

/// Commits. A transaction that changed nothing, because what is asked was done before, stands for the newest change.
pub(super) async fn commit(mut transaction: Transaction<'static, Postgres>) -> Result<Committed, Error> {
    // A server, a database or a role may be set to less than a revocation needs, and to more.
    sqlx::raw_sql(
        "SELECT pg_catalog.set_config('synchronous_commit', 'on', true)
         WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
    )
    .execute(&mut *transaction)
    .await?;
    // The number is drawn now, directly before the commit, rather than by it, so that it is known whatever happens
    // to the connection afterwards. The lock on the order of the changes is held from here until the commit.
    sqlx::raw_sql("SET CONSTRAINTS gateway.stamp IMMEDIATE").execute(&mut *transaction).await?;
    let (own, head, history): (Option<i64>, i64, String) = sqlx::query_as(
        "SELECT (SELECT seq FROM gateway.change_txns WHERE xid = pg_current_xact_id_if_assigned()), gateway.head(), gateway.history()",
    )
    .fetch_one(&mut *transaction)
    .await?;
    if own.is_none() {
        // What is found done already may have been done by a server that was left behind, and would acknowledge a
        // transaction that writes nothing: only a write that it can commit proves that the change stands, and that a
        // standby has it.
        sqlx::query("SELECT gateway.confirm()").execute(&mut *transaction).await?;
    }
    // Given up, the connection is closed, never cancelled: to a cancelled wait the server says that all is well.
    match timeout(LIMIT, listening(transaction.commit())).await {
        Ok((Ok(()), false)) => Ok(Committed::now_in(history, revision_of(own.unwrap_or(head)))),
        // The wait for a standby was cancelled by somebody else: the change stands here, and a failover would undo it.
        Ok((Ok(()), true)) => Err(unknown("the database warned that it is not safe", None)),
        Ok((Err(error), _)) if is_refusal(&error) => Err(error.into()),
        // Asking on another connection would tell only for now: the server may still be at it.
        Ok((Err(error), _)) => Err(unknown("the connection broke", Some(error))),
        Err(_) => Err(unknown(&format!("there was no answer within {} s", LIMIT.as_secs()), None)),
    }
}

/// Whether the server has answered that it did not commit. What it says when it goes down is no such answer.
fn is_refusal(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().is_none_or(|code| !code.starts_with("57P")))
}

fn unknown(why: &str, source: Option<sqlx::Error>) -> Error {
    let message = format!("{why} during the commit, so the change may or may not have been made, and could be lost again: do it again");
    Error::Unusable { message, source }
}
