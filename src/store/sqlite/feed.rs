//! A node's line to the change log.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};

use super::barrier::wait_for;
use super::fault::{explain, is_busy, unusable};
use super::lock::{ServeLock, Watched};
use super::{LEASE, Shared, open, rows, write};
use crate::clock::now;
use crate::entity::{Client, Practice, User};
use crate::id::{ClientId, PracticeId, Revision, UserId};
use crate::store::{Change, Changes, Error, Feed, Fill};

/// How long a feed waits for another transaction while it serves. Short: a shell in which somebody forgot a `COMMIT`
/// may delay receipts, but must not keep the feed from proving itself current.
const SERVING_BUSY: &str = "PRAGMA busy_timeout = 20";
/// How long after a change was committed elsewhere it is looked for at the latest.
const POLL: Duration = Duration::from_millis(5);
/// The most logged changes that are read as changes.
const BATCH: i64 = 50_000;
const STARTING_BUSY: &str = "PRAGMA busy_timeout = 5000";

/// A dedicated connection, and what is known of the database through it.
pub(super) struct SqliteFeed {
    shared: Arc<Shared>,
    conn: SqliteConnection,
    /// This node's row, once registered.
    node: Option<String>,
    /// The files that must stay what they were at registration.
    watched: Vec<Watched>,
    /// What the last complete reading saw.
    seen: Option<Seen>,
    /// An acknowledgement that another transaction was in the way of.
    unacknowledged: Option<Revision>,
    /// How much longer than its lease this node would answer, and how much of that the register says.
    grace: (Duration, Duration),
}

#[derive(Clone, Copy)]
struct Seen {
    /// `PRAGMA data_version`: another value as soon as another connection has committed.
    data: i64,
    /// `PRAGMA schema_version`: another value after any change of the schema.
    schema: i64,
    head: Revision,
}

impl SqliteFeed {
    /// Opens the connection; nobody waits for this node yet.
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self, Error> {
        shared.file.check()?;
        // NORMAL: an acknowledgement need not survive a power cut, so it need not wait for the disk. What others
        // commit is synced by them.
        let conn = open::options(&shared.path, super::BUSY).synchronous(SqliteSynchronous::Normal).row_buffer_size(1024).connect().await?;
        Ok(Self { shared, conn, node: None, watched: Vec::new(), seen: None, unacknowledged: None, grace: Default::default() })
    }

    /// Takes the serve lock, or finds that this process has it.
    async fn lock(&self) -> Result<String, Error> {
        // A barrier may be trying the lock this very moment; it lets go at once.
        for _ in 0..100 {
            {
                let mut serving = self.shared.serving.lock();
                if serving.is_none() {
                    *serving = ServeLock::take(&self.shared.path)?;
                }
                if let Some(lock) = &*serving {
                    return Ok(lock.identity().to_string());
                }
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Err(unusable(format!(
            "another gateway is already serving this database (it holds `{}`): stop it, or use PostgreSQL for a fleet",
            ServeLock::path(&self.shared.path).display()
        )))
    }

    async fn enter(&mut self) -> Result<String, Error> {
        self.shared.file.check()?;
        let lock = self.lock().await?;
        sqlx::raw_sql(STARTING_BUSY).execute(&mut self.conn).await?;
        // The lock proves that nodes that held the same lock file are dead. A row from another lock file (removed, or
        // copied along with the database) may be a node that still answers: outwait its lease, which it can no longer
        // renew, since a feed that finds its lock file replaced fails.
        let other: Option<i64> =
            sqlx::query_scalar("SELECT max(lease_ms) FROM nodes WHERE lock_file <> ?").bind(&lock).fetch_one(&mut self.conn).await?;
        if let Some(lease) = other.and_then(|lease| u64::try_from(lease).ok()) {
            tokio::time::sleep(wait_for(Duration::from_millis(lease))).await;
        }
        let node = uuid::Uuid::new_v4().to_string();
        // In one transaction, so that no barrier can see the register empty between a node and its successor.
        let mut transaction = self.conn.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM nodes").execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO nodes (node_id, started_at, applied, lease_ms, lock_file) VALUES (?, ?, 0, ?, ?)")
            .bind(&node)
            .bind(now().0)
            .bind(lease_ms(Duration::ZERO))
            .bind(&lock)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        sqlx::raw_sql(SERVING_BUSY).execute(&mut self.conn).await?;
        // Were the log beside the database removed, others would write a new one that this connection never reads.
        self.watched = watched(&self.shared)?;
        self.node = Some(node.clone());
        self.seen = None;
        self.unacknowledged = None;
        self.grace.1 = Duration::ZERO;
        Ok(node)
    }

    /// What has to be true before anything is read.
    fn check_files(&self) -> Result<(), Error> {
        if self.node.is_none() {
            return Err(unusable("the node is not registered: register it first".to_owned()));
        }
        self.watched.iter().try_for_each(Watched::check)
    }

    async fn data_version(&mut self) -> Result<i64, Error> {
        Ok(sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut self.conn).await?)
    }

    async fn read_changes(&mut self, after: Revision) -> Result<Changes, Error> {
        self.check_files()?;
        if let Some(applied) = self.unacknowledged {
            self.mark_applied(applied).await?;
        }
        if self.grace.0 != self.grace.1 {
            self.write_grace().await?;
        }
        let data = self.data_version().await?;
        if self.seen.is_some_and(|seen| seen.data == data && seen.head == after) {
            return Ok(Changes::Unchanged);
        }
        let mut transaction = self.conn.begin().await?;
        let schema = standing(&self.shared, self.node.as_deref(), &mut transaction).await?;
        let head = write::head(&mut transaction).await?;
        // A trigger may have been away between two readings: whatever changed then was not logged.
        let schema_changed = self.seen.is_some_and(|seen| seen.schema != schema);
        if head < after || schema_changed {
            return Ok(Changes::Gap);
        }
        let (mut changes, mut age) = (Vec::new(), Duration::ZERO);
        if head > after {
            let (first, last) = (as_integer(after), as_integer(head));
            // Revisions have no holes, so fewer rows than numbers means that some were pruned, or deleted by hand. And
            // beyond a certain length a snapshot is the quicker reading.
            let (kept, oldest): (i64, Option<i64>) =
                sqlx::query_as("SELECT count(*), min(at) FROM changes WHERE revision > ?").bind(first).fetch_one(&mut *transaction).await?;
            age = oldest.map_or(Duration::ZERO, |at| Duration::from_millis(u64::try_from(now().0 - at).unwrap_or(0)));
            if kept != last - first || kept > BATCH {
                return Ok(Changes::Gap);
            }
            changes = batch(&mut transaction, first).await?;
        }
        transaction.commit().await?;
        // `data` was read before the transaction began. A commit in between is in this batch already, and makes the
        // next call look once more, in vain; remembering the version of after the reading could instead cover a commit
        // that the reading did not see.
        self.seen = Some(Seen { data, schema, head });
        if changes.is_empty() && head == after { Ok(Changes::Unchanged) } else { Ok(Changes::Batch { head, age, changes }) }
    }

    async fn read_everything(&mut self, fill: &mut dyn Fill) -> Result<Revision, Error> {
        self.check_files()?;
        let data = self.data_version().await?;
        let mut transaction = self.conn.begin().await?;
        let schema = standing(&self.shared, self.node.as_deref(), &mut transaction).await?;
        let head = write::head(&mut transaction).await?;
        read_all(&mut transaction, fill).await?;
        transaction.commit().await?;
        self.seen = Some(Seen { data, schema, head });
        Ok(head)
    }

    /// Writes down what is applied. If another transaction is in the way the next poll tries again: that delays
    /// receipts, and is no reason to stop serving.
    async fn mark_applied(&mut self, applied: Revision) -> Result<(), Error> {
        let result = sqlx::query("UPDATE nodes SET applied = max(applied, ?) WHERE node_id = ?")
            .bind(as_integer(applied))
            .bind(&self.node)
            .execute(&mut self.conn)
            .await;
        self.unacknowledged = None;
        match result {
            Ok(done) if done.rows_affected() == 0 => Err(no_longer_registered()),
            Ok(_) => Ok(()),
            Err(error) if is_busy(&error) => {
                self.unacknowledged = Some(applied);
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// As above: what cannot be written now is at the next poll, and does not count before.
    async fn write_grace(&mut self) -> Result<(), Error> {
        let (wanted, result) = (self.grace.0, sqlx::query("UPDATE nodes SET lease_ms = ? WHERE node_id = ?"));
        match result.bind(lease_ms(wanted)).bind(&self.node).execute(&mut self.conn).await {
            Ok(_) => self.grace.1 = wanted,
            Err(error) if is_busy(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn explained<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| explain(&self.shared.path, error))
    }
}

#[async_trait]
impl Feed for SqliteFeed {
    async fn register(&mut self, _instead_of: Option<&str>) -> Result<String, Error> {
        // There is but one node: whoever was in the register is replaced in any case.
        let result = self.enter().await;
        self.explained(result)
    }

    async fn snapshot(&mut self, fill: &mut dyn Fill) -> Result<Revision, Error> {
        let result = self.read_everything(fill).await;
        self.explained(result)
    }

    async fn poll(&mut self, after: Revision) -> Result<Changes, Error> {
        let result = self.read_changes(after).await;
        self.explained(result)
    }

    fn want_grace(&mut self, grace: Duration) {
        self.grace.0 = grace;
    }

    fn known_grace(&self) -> Duration {
        self.grace.1
    }

    async fn acknowledge(&mut self, applied: Revision) -> Result<(), Error> {
        let result = self.mark_applied(self.unacknowledged.map_or(applied, |waiting| waiting.max(applied))).await;
        self.explained(result)
    }

    async fn due(&mut self) {
        tokio::time::sleep(POLL).await;
    }

    fn patience(&self) -> Duration {
        LEASE
    }

    async fn leave(&mut self) -> Result<(), Error> {
        let Some(node) = self.node.take() else { return Ok(()) };
        let result = sqlx::query("DELETE FROM nodes WHERE node_id = ?").bind(node).execute(&mut self.conn).await;
        // Only whoever was in the register until now gives up the lock: a feed that another one of this process has
        // replaced must not. (If the row could not be deleted, the end of the process will say that it is dead.)
        if result.as_ref().is_ok_and(|done| done.rows_affected() > 0) {
            *self.shared.serving.lock() = None;
        }
        self.explained(result.map(drop).map_err(Error::from))
    }
}

/// Proves that the log can be relied on and that barriers wait for this node, in the transaction that reads; gives the
/// version of the schema. A snapshot needs it as much as a batch: the poll after it may find that nothing has changed.
async fn standing(shared: &Shared, node: Option<&str>, conn: &mut SqliteConnection) -> Result<i64, Error> {
    shared.schema.verify(&shared.path, conn).await?;
    let registered: bool =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM nodes WHERE node_id = ?)").bind(node).fetch_one(&mut *conn).await?;
    if !registered {
        return Err(no_longer_registered());
    }
    Ok(sqlx::query_scalar("PRAGMA schema_version").fetch_one(conn).await?)
}

/// The database, the two files that SQLite keeps beside it, and the serve lock.
fn watched(shared: &Shared) -> Result<Vec<Watched>, Error> {
    // SQLite follows links before it names the files beside the database.
    let real = shared.path.canonicalize().map_err(|error| unusable(format!("`{}` is gone: {error}", shared.path.display())))?;
    let beside = |suffix: &str| -> PathBuf {
        let mut path = real.as_os_str().to_owned();
        path.push(suffix);
        path.into()
    };
    let mut files = vec![shared.file.clone()];
    for path in [beside("-wal"), beside("-shm"), ServeLock::path(&shared.path)] {
        files.push(Watched::new(path)?);
    }
    Ok(files)
}

/// What changed after a revision, each entity once, as it is now.
async fn batch(conn: &mut SqliteConnection, after: i64) -> Result<Vec<Change>, Error> {
    let keys: Vec<(String, String)> =
        sqlx::query_as("SELECT DISTINCT kind, key FROM changes WHERE revision > ?").bind(after).fetch_all(&mut *conn).await?;
    let mut practices: BTreeMap<PracticeId, Option<Practice>> = BTreeMap::new();
    let mut users: BTreeMap<UserId, Option<User>> = BTreeMap::new();
    let mut clients: BTreeMap<ClientId, Option<Client>> = BTreeMap::new();
    let mut kinds = BTreeSet::new();
    for (kind, key) in &keys {
        // Absent until its row is found and understood.
        let known = match kind.as_str() {
            "practice" => key.parse().map(|id| drop(practices.insert(id, None))),
            "user" => key.parse().map(|id| drop(users.insert(id, None))),
            _ => key.parse().map(|id| drop(clients.insert(id, None))),
        };
        kinds.insert(kind.as_str());
        if let Err(error) = known {
            // What has no valid id was never taken in, so there is nothing to take out.
            tracing::error!(%error, kind, "a changed row has no valid id; nothing is admitted by it");
        }
    }
    let changed = |select: &str, column: &str, kind: &str| {
        AssertSqlSafe(format!("{select} WHERE {column} IN (SELECT key FROM changes WHERE revision > ? AND kind = '{kind}')"))
    };
    if kinds.contains("practice") {
        let sql = changed(rows::PRACTICE, "practice_id", "practice");
        for row in &sqlx::query(sql).bind(after).fetch_all(&mut *conn).await? {
            practices.extend(understood(rows::practice(row)).map(|practice| (practice.id.clone(), Some(practice))));
        }
    }
    if kinds.contains("user") {
        let sql = changed(rows::USER, "user_id", "user");
        for row in &sqlx::query(sql).bind(after).fetch_all(&mut *conn).await? {
            users.extend(understood(rows::user(row)).map(|user| (user.id.clone(), Some(user))));
        }
    }
    if kinds.contains("client") {
        let sql = changed(rows::CLIENT, "client_id", "client");
        for row in &sqlx::query(sql).bind(after).fetch_all(&mut *conn).await? {
            clients.extend(understood(rows::client(row)).map(|client| (client.id, Some(client))));
        }
        let sql = changed(rows::SECRET, "client_id", "client");
        for row in &sqlx::query(sql).bind(after).fetch_all(&mut *conn).await? {
            let Some((id, secret)) = understood(rows::secret(row)) else { continue };
            if let Some(Some(client)) = clients.get_mut(&id) {
                client.secrets.push(secret);
            }
        }
        for client in clients.values_mut().flatten() {
            client.secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.generation));
        }
    }
    let practices = practices.into_iter().map(|(id, practice)| Change::Practice(id, practice));
    let users = users.into_iter().map(|(id, user)| Change::User(id, user));
    let clients = clients.into_iter().map(|(id, client)| Change::Client(id, client));
    Ok(practices.chain(users).chain(clients).collect())
}

/// Reads the tables a page at a time: a million rows at once would take far more memory than what is made of them.
async fn read_all(conn: &mut SqliteConnection, fill: &mut dyn Fill) -> Result<(), Error> {
    let mut page = Page::new(rows::PRACTICE, "practice_id");
    while let Some(found) = page.next(conn).await? {
        found.iter().filter_map(|row| understood(rows::practice(row))).for_each(|practice| fill.practice(practice));
    }
    let mut page = Page::new(rows::USER, "user_id");
    while let Some(found) = page.next(conn).await? {
        found.iter().filter_map(|row| understood(rows::user(row))).for_each(|user| fill.user(user));
    }
    let secrets = format!("{} WHERE client_id > ? AND client_id <= ? ORDER BY client_id, generation DESC", rows::SECRET);
    let mut page = Page::new(rows::CLIENT, "client_id");
    loop {
        let after = page.after.clone();
        let Some(found) = page.next(conn).await? else { return Ok(()) };
        let mut clients: Vec<Client> = found.iter().filter_map(|row| understood(rows::client(row))).collect();
        // Both come in the order of the ids, so one walk along the clients finds each secret its place.
        let mut walk = clients.iter_mut().peekable();
        for row in &sqlx::query(AssertSqlSafe(secrets.as_str())).bind(after).bind(&page.after).fetch_all(&mut *conn).await? {
            let Some((id, secret)) = understood(rows::secret(row)) else { continue };
            while walk.next_if(|client| client.id < id).is_some() {}
            if let Some(client) = walk.peek_mut().filter(|client| client.id == id) {
                client.secrets.push(secret);
            }
        }
        for client in clients {
            fill.client(client);
        }
    }
}

/// A walk through a table in the order of its key.
struct Page {
    sql: String,
    key: &'static str,
    after: String,
    done: bool,
}

impl Page {
    const ROWS: usize = 4096;

    fn new(select: &str, key: &'static str) -> Self {
        let sql = format!("{select} WHERE {key} > ? ORDER BY {key} LIMIT {}", Self::ROWS);
        Self { sql, key, after: String::new(), done: false }
    }

    async fn next(&mut self, conn: &mut SqliteConnection) -> Result<Option<Vec<SqliteRow>>, Error> {
        if self.done {
            return Ok(None);
        }
        let found = sqlx::query(AssertSqlSafe(self.sql.as_str())).bind(&self.after).fetch_all(conn).await?;
        self.done = found.len() < Self::ROWS;
        let Some(last) = found.last() else { return Ok(None) };
        self.after = last.try_get(self.key)?;
        Ok(Some(found))
    }
}

/// A row that is not understood is as good as absent: whatever it says, nothing is admitted by it.
fn understood<T>(row: Result<T, Error>) -> Option<T> {
    row.inspect_err(|error| tracing::error!(%error, "a row is left out; nothing is admitted by it")).ok()
}

fn lease_ms(grace: Duration) -> i64 {
    i64::try_from((LEASE + grace).as_millis()).unwrap_or(i64::MAX)
}

fn as_integer(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn no_longer_registered() -> Error {
    Error::Deposed("this node is no longer in the register".to_owned())
}
