//! Reading the change log, and everything there is.

use std::time::Duration;

use sqlx::{Connection, PgConnection};

use super::copied::copy;
use super::read::ONE_VIEW;
use super::register::Node;
use super::write::revision_of;
use super::{rows, told};
use crate::id::Revision;
use crate::store::unclear::understood;
use crate::store::{Changes, Error, Fill};

/// The most changed rows that are read as changes; beyond that a snapshot is the quicker reading.
const BATCH: i64 = 20_000;

/// What transactions that cannot be seen yet are about to take access from.
const FENCES: &str = "SELECT DISTINCT kind, key FROM gateway.fences WHERE NOT pg_visible_in_snapshot(xid, pg_current_snapshot())";

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

/// Reads everything there is into `fill`; gives the newest change that it includes.
pub(super) async fn everything(conn: &mut PgConnection, node: &Node, fill: &mut dyn Fill) -> Result<Revision, Error> {
    let mut transaction = conn.begin_with(ONE_VIEW).await?;
    sqlx::raw_sql("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await?;
    let head = head(&mut transaction, node).await?;
    let estimate: f32 =
        sqlx::query_scalar("SELECT reltuples FROM pg_class WHERE oid = 'gateway.clients'::regclass").fetch_one(&mut *transaction).await?;
    fill.expect(expected(estimate));
    copy(&mut transaction, rows::PRACTICE, |row| understood(rows::practice(row)).into_iter().for_each(|practice| fill.practice(practice)))
        .await?;
    copy(&mut transaction, rows::USER, |row| understood(rows::user(row)).into_iter().for_each(|user| fill.user(user))).await?;
    // In no order: to sort a million rows costs the database more than to look up each client here.
    copy(&mut transaction, rows::CLIENT, |row| understood(rows::client(row)).into_iter().for_each(|client| fill.client(client))).await?;
    copy(&mut transaction, rows::SECRET, |row| understood(rows::secret(row)).into_iter().for_each(|(of, secret)| fill.secret(of, secret)))
        .await?;
    copy(&mut transaction, rows::SIGNING_KEY, |row| understood(rows::signing_key(row)).into_iter().for_each(|key| fill.signing_key(key)))
        .await?;
    copy(&mut transaction, rows::REVOKED_TOKEN, |row| {
        if let Some(token) = understood(rows::revoked_token(row)) {
            fill.revoked_token(token);
        }
    })
    .await?;
    let fences: Vec<(String, String)> = sqlx::query_as(FENCES).fetch_all(&mut *transaction).await?;
    fences.iter().filter_map(|(kind, key)| told::subject(kind, key)).for_each(|subject| fill.fence(&subject));
    transaction.commit().await?;
    Ok(head)
}

/// The planner's estimate, which is negative before the first; and no more than some memory's worth of it is believed.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between the two bounds")]
fn expected(estimate: f32) -> usize {
    estimate.clamp(0.0, 4e6) as usize
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
