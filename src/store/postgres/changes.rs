//! Reading the change log, and everything there is.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::{Connection, PgConnection};

use super::read::ONE_VIEW;
use super::register::Node;
use super::write::revision_of;
use super::{rows, told};
use crate::id::{ClientId, Revision};
use crate::store::{Changes, Error, Snapshot};

/// The most changed rows that are read as changes; beyond that a snapshot is the quicker reading.
const BATCH: i64 = 20_000;

type Places = HashMap<ClientId, usize, foldhash::fast::RandomState>;

/// What changed after a revision.
pub(super) async fn after(conn: &mut PgConnection, node: &Node, after: Revision) -> Result<Changes, Error> {
    let (head, floor, history, age, rows): (i64, i64, String, f64, Option<String>) =
        sqlx::query_as(told::CHANGED).bind(i64::try_from(after.0).unwrap_or(i64::MAX)).bind(BATCH).fetch_one(conn).await?;
    let (head, floor) = (revision_of(head), revision_of(floor));
    same_history(node, &history)?;
    match rows {
        _ if head == after => Ok(Changes::Unchanged),
        Some(rows) if floor <= after && after < head => {
            // A clock that was set back makes it negative.
            let age = Duration::try_from_secs_f64(age).unwrap_or_default();
            Ok(Changes::Batch { head, age, changes: told::changes(&rows)? })
        }
        _ => Ok(Changes::Gap),
    }
}

/// Everything there is.
pub(super) async fn everything(conn: &mut PgConnection, node: &Node) -> Result<Snapshot, Error> {
    let mut transaction = conn.begin_with(ONE_VIEW).await?;
    sqlx::raw_sql("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await?;
    let head = head(&mut transaction, node).await?;
    let mut snapshot = Snapshot { head, ..Snapshot::default() };
    {
        let mut found = sqlx::query(rows::PRACTICE).fetch(&mut *transaction);
        while let Some(row) = found.try_next().await? {
            snapshot.practices.extend(understood(rows::practice(&row)));
        }
    }
    {
        let mut found = sqlx::query(rows::USER).fetch(&mut *transaction);
        while let Some(row) = found.try_next().await? {
            snapshot.users.extend(understood(rows::user(&row)));
        }
    }
    {
        let mut found = sqlx::query(rows::CLIENT).fetch(&mut *transaction);
        while let Some(row) = found.try_next().await? {
            snapshot.clients.extend(understood(rows::client(&row)));
        }
    }
    {
        // In no order: to sort a million rows costs the database more than to look up each client here.
        let places: Places = snapshot.clients.iter().enumerate().map(|(place, client)| (client.id, place)).collect();
        let mut found = sqlx::query(rows::SECRET).fetch(&mut *transaction);
        while let Some(row) = found.try_next().await? {
            let Some((id, secret)) = understood(rows::secret(&row)) else { continue };
            if let Some(place) = places.get(&id) {
                snapshot.clients[*place].secrets.push(secret);
            }
        }
    }
    for client in snapshot.clients.iter_mut().filter(|client| client.secrets.len() > 1) {
        client.secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.generation));
    }
    transaction.commit().await?;
    Ok(snapshot)
}

/// The newest change, in the history that the node has joined.
async fn head(conn: &mut PgConnection, node: &Node) -> Result<Revision, Error> {
    let (head, history): (i64, String) = sqlx::query_as("SELECT gateway.head(), gateway.history()").fetch_one(conn).await?;
    same_history(node, &history)?;
    Ok(revision_of(head))
}

/// A number of one history means nothing in another.
fn same_history(node: &Node, history: &str) -> Result<(), Error> {
    if history == node.history {
        return Ok(());
    }
    Err(Error::Deposed(format!("the database's history is `{history}` and no longer `{}`, as after a failover", node.history)))
}

/// A row that is not understood is as good as absent: whatever it says, nothing is admitted by it.
fn understood<T>(row: Result<T, Error>) -> Option<T> {
    row.inspect_err(|error| tracing::error!(%error, "a row is left out; nothing is admitted by it")).ok()
}
