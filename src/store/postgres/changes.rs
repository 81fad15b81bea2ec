//! Reading the change log, and everything there is.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::read::ONE_VIEW;
use super::register::Node;
use super::rows;
use super::write::revision_of;
use crate::entity::{Client, Practice, User};
use crate::id::{ClientId, PracticeId, Revision, UserId};
use crate::store::{Change, Changes, Error, Snapshot};

/// The most changed rows that are read as changes; beyond that a snapshot is the quicker reading.
const BATCH: usize = 20_000;

/// What stands for more rows than are worth naming.
const EVERYTHING: &str = "*";

/// What changed after a revision.
pub(super) async fn after(conn: &mut PgConnection, node: &Node, after: Revision) -> Result<Changes, Error> {
    // Mostly nothing has: that takes one question, and no transaction.
    if head(conn, node).await?.0 == after {
        return Ok(Changes::Unchanged);
    }
    let mut transaction = conn.begin_with(ONE_VIEW).await?;
    let (head, floor) = head(&mut transaction, node).await?;
    let changes = if head < after || after < floor { None } else { batch(&mut transaction, after).await? };
    transaction.commit().await?;
    Ok(changes.map_or(Changes::Gap, |changes| Changes::Batch { head, changes }))
}

/// Everything there is.
pub(super) async fn everything(conn: &mut PgConnection, node: &Node) -> Result<Snapshot, Error> {
    let mut transaction = conn.begin_with(ONE_VIEW).await?;
    sqlx::raw_sql("SET LOCAL statement_timeout = 0").execute(&mut *transaction).await?;
    let (head, _) = head(&mut transaction, node).await?;
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
        let sql = AssertSqlSafe(format!("{} ORDER BY client_id COLLATE \"C\"", rows::CLIENT));
        let mut found = sqlx::query(sql).fetch(&mut *transaction);
        while let Some(row) = found.try_next().await? {
            snapshot.clients.extend(understood(rows::client(&row)));
        }
    }
    {
        let sql = AssertSqlSafe(format!("{} ORDER BY client_id COLLATE \"C\", generation DESC", rows::SECRET));
        let mut found = sqlx::query(sql).fetch(&mut *transaction);
        // Both come in the order of the ids, so one walk along the clients finds each secret its place.
        let mut clients = snapshot.clients.iter_mut().peekable();
        while let Some(row) = found.try_next().await? {
            let Some((id, secret)) = understood(rows::secret(&row)) else { continue };
            while clients.next_if(|client| client.id < id).is_some() {}
            if let Some(client) = clients.peek_mut().filter(|client| client.id == id) {
                client.secrets.push(secret);
            }
        }
    }
    transaction.commit().await?;
    Ok(snapshot)
}

/// The newest change, and after which one the log begins; in the history that the node has joined.
async fn head(conn: &mut PgConnection, node: &Node) -> Result<(Revision, Revision), Error> {
    let (head, floor, history): (i64, i64, String) =
        sqlx::query_as("SELECT gateway.head(), (SELECT seq FROM gateway.change_floor), gateway.history()").fetch_one(conn).await?;
    if history != node.history {
        return Err(Error::Deposed(format!("the database's history is `{history}` and no longer `{}`, as after a failover", node.history)));
    }
    Ok((revision_of(head), revision_of(floor)))
}

/// Each changed entity once, as it is now; `None`: too many.
async fn batch(conn: &mut PgConnection, after: Revision) -> Result<Option<Vec<Change>>, Error> {
    let after = i64::try_from(after.0).unwrap_or(i64::MAX);
    let keys: Vec<(String, String)> =
        sqlx::query_as("SELECT DISTINCT kind, key FROM gateway.change_rows JOIN gateway.change_txns USING (xid) WHERE seq > $1 LIMIT $2")
            .bind(after)
            .bind(i64::try_from(BATCH + 1).unwrap_or(i64::MAX))
            .fetch_all(&mut *conn)
            .await?;
    if keys.len() > BATCH || keys.iter().any(|(_, key)| key == EVERYTHING) {
        return Ok(None);
    }
    let named = |kind: &str| -> Vec<&str> { keys.iter().filter(|(k, _)| k == kind).map(|(_, key)| key.as_str()).collect() };
    let (practices, users, clients) = (named("practice"), named("user"), named("client"));
    let mut changes = Vec::with_capacity(keys.len());
    let found: Vec<Practice> = of(conn, rows::PRACTICE, "practice_id", &practices, rows::practice).await?;
    let mut found: BTreeMap<PracticeId, Practice> = found.into_iter().map(|practice| (practice.id.clone(), practice)).collect();
    changes.extend(ids(&practices).map(|id: PracticeId| {
        let practice = found.remove(&id);
        Change::Practice(id, practice)
    }));
    let found: Vec<User> = of(conn, rows::USER, "user_id", &users, rows::user).await?;
    let mut found: BTreeMap<UserId, User> = found.into_iter().map(|user| (user.id.clone(), user)).collect();
    changes.extend(ids(&users).map(|id: UserId| {
        let user = found.remove(&id);
        Change::User(id, user)
    }));
    let found: Vec<Client> = of(conn, rows::CLIENT, "client_id", &clients, rows::client).await?;
    let mut found: BTreeMap<ClientId, Client> = found.into_iter().map(|client| (client.id, client)).collect();
    for (id, secret) in of(conn, rows::SECRET, "client_id", &clients, rows::secret).await? {
        if let Some(client) = found.get_mut(&id) {
            client.secrets.push(secret);
        }
    }
    for client in found.values_mut() {
        client.secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.generation));
    }
    changes.extend(ids(&clients).map(|id: ClientId| Change::Client(id, found.remove(&id))));
    Ok(Some(changes))
}

async fn of<T>(
    conn: &mut PgConnection,
    select: &str,
    column: &str,
    keys: &[&str],
    read: fn(&PgRow) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let sql = AssertSqlSafe(format!("{select} WHERE {column} = ANY($1)"));
    let found = sqlx::query(sql).bind(keys).fetch_all(conn).await?;
    Ok(found.iter().filter_map(|row| understood(read(row))).collect())
}

/// The ids, each once. What has no valid id was never taken in, so there is nothing to take out.
fn ids<T: std::str::FromStr<Err: std::fmt::Display> + Ord>(keys: &[&str]) -> impl Iterator<Item = T> + use<T> {
    let valid = keys.iter().filter_map(|key| {
        key.parse().inspect_err(|error| tracing::error!(%error, "a changed row has no valid id; nothing is admitted by it")).ok()
    });
    valid.collect::<BTreeSet<T>>().into_iter()
}

/// A row that is not understood is as good as absent: whatever it says, nothing is admitted by it.
fn understood<T>(row: Result<T, Error>) -> Option<T> {
    row.inspect_err(|error| tracing::error!(%error, "a row is left out; nothing is admitted by it")).ok()
}
