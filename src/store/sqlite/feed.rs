//! A node's line to the change log.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;

use super::barrier::wait_for;
use super::changes::{batch, read_all};
use super::connections::Line;
use super::fault::{explain, is_busy, unusable};
use super::lock::{ServeLock, Watched, beside};
use super::written::Written;
use super::{LEASE, Shared, tokens, write};
use crate::clock::{BootTime, boot_time, now};
use crate::id::Revision;
use crate::store::{Changes, Error, Feed, Fill};

/// How long a feed waits for another transaction while it serves. Short: a shell in which somebody forgot a `COMMIT`
/// may delay receipts, but must not keep the feed from proving itself current.
const SERVING_BUSY: &str = "PRAGMA busy_timeout = 20";
/// The most logged changes that are read as changes.
const BATCH: i64 = 50_000;
/// How often what is over is forgotten.
const CHORES: Duration = Duration::from_secs(60);
const STARTING_BUSY: &str = "PRAGMA busy_timeout = 5000";

/// A dedicated connection, and what is known of the database through it.
pub(super) struct SqliteFeed {
    shared: Arc<Shared>,
    conn: Line,
    /// This node's row, once registered.
    node: Option<String>,
    /// The serve lock, which must stay what it was at registration.
    lock: Option<Watched>,
    /// Says when to look; once registered.
    written: Option<Written>,
    /// What the last complete reading saw.
    seen: Option<Seen>,
    /// An acknowledgement that another transaction was in the way of.
    unacknowledged: Option<Revision>,
    /// How much longer than its lease this node would answer, and how much of that the register says.
    grace: (Duration, Duration),
    /// When what is over was last forgotten.
    forgot: Option<BootTime>,
}

#[derive(Clone, Copy)]
struct Seen {
    /// `PRAGMA data_version`: another value as soon as another connection has committed. `None`: this one has.
    data: Option<i64>,
    /// `PRAGMA schema_version`: another value after any change of the schema.
    schema: i64,
    head: Revision,
}

impl SqliteFeed {
    /// Opens the connection; nobody waits for this node yet.
    pub(super) async fn open(shared: Arc<Shared>) -> Result<Self, Error> {
        let mut conn = shared.connections.line().await?;
        // An acknowledgement need not survive a power cut, so it need not wait for the disk. What others commit is synced by them.
        // And it reads everything once, in order, and then what is new: what it keeps in memory of it is of no use.
        sqlx::raw_sql("PRAGMA synchronous = NORMAL; PRAGMA cache_size = -256").execute(&mut *conn).await?;
        Ok(Self {
            shared,
            conn,
            node: None,
            lock: None,
            written: None,
            seen: None,
            unacknowledged: None,
            grace: Default::default(),
            forgot: None,
        })
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
        self.shared.connections.check()?;
        let lock = self.lock().await?;
        sqlx::raw_sql(STARTING_BUSY).execute(&mut *self.conn).await?;
        // The lock proves that nodes that held the same lock file are dead. A row from another lock file (removed, or
        // copied along with the database) may be a node that still answers: outwait its lease, which it can no longer
        // renew, since a feed that finds its lock file replaced fails.
        let other: Option<i64> =
            sqlx::query_scalar("SELECT max(lease_ms) FROM nodes WHERE lock_file <> ?").bind(&lock).fetch_one(&mut *self.conn).await?;
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
        sqlx::raw_sql(SERVING_BUSY).execute(&mut *self.conn).await?;
        self.lock = Some(Watched::new(ServeLock::path(&self.shared.path))?);
        self.written = Some(Written::to(&beside(&self.shared.path, "-wal")?));
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
        self.shared.sound.so_far()?;
        self.shared.connections.check()?;
        self.lock.iter().try_for_each(Watched::check)
    }

    async fn data_version(&mut self) -> Result<i64, Error> {
        Ok(sqlx::query_scalar("PRAGMA data_version").fetch_one(&mut *self.conn).await?)
    }

    async fn read_changes(&mut self, after: Revision) -> Result<Changes, Error> {
        self.check_files()?;
        if let Some(applied) = self.unacknowledged {
            self.mark_applied(applied).await?;
        }
        if self.grace.0 != self.grace.1 {
            self.write_grace().await?;
        }
        self.forget().await?;
        let data = self.data_version().await?;
        if self.seen.is_some_and(|seen| seen.data == Some(data) && seen.head == after) {
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
        self.seen = Some(Seen { data: Some(data), schema, head });
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
        self.seen = Some(Seen { data: Some(data), schema, head });
        // From now on there is time for it. What comes of it is seen by the next poll.
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            if let Err(error) = shared.sound.check().await {
                let error = explain(&shared.path, error);
                tracing::error!(%error, "the database could not be looked at as a whole, or is not sound");
            }
        });
        Ok(head)
    }

    /// Writes down what is applied. If another transaction is in the way the next poll tries again: that delays
    /// receipts, and is no reason to stop serving.
    async fn mark_applied(&mut self, applied: Revision) -> Result<(), Error> {
        let result = sqlx::query("UPDATE nodes SET applied = max(applied, ?) WHERE node_id = ?")
            .bind(as_integer(applied))
            .bind(&self.node)
            .execute(&mut *self.conn)
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
        match result.bind(lease_ms(wanted)).bind(&self.node).execute(&mut *self.conn).await {
            Ok(_) => self.grace.1 = wanted,
            Err(error) if is_busy(&error) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Once a minute forgets what is over. If another transaction is in the way, there is another minute.
    async fn forget(&mut self) -> Result<(), Error> {
        let now = boot_time();
        if self.forgot.is_some_and(|forgot| now.since(forgot) < CHORES) {
            return Ok(());
        }
        self.forgot = Some(now);
        // Before it is tried: of two statements the first may be committed when the second fails.
        if let Some(seen) = &mut self.seen {
            seen.data = None;
        }
        match tokens::forget(&mut self.conn).await {
            // The rest with the next poll.
            Ok(true) => self.forgot = None,
            Ok(false) => {}
            Err(Error::Database(error)) if is_busy(&error) => {}
            Err(error) => return Err(error),
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
        if let Some(written) = &mut self.written {
            written.due().await;
        }
    }

    fn patience(&self) -> Duration {
        LEASE
    }

    async fn leave(&mut self) -> Result<(), Error> {
        let Some(node) = self.node.take() else { return Ok(()) };
        let result = sqlx::query("DELETE FROM nodes WHERE node_id = ?").bind(node).execute(&mut *self.conn).await;
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

fn lease_ms(grace: Duration) -> i64 {
    i64::try_from((LEASE + grace).as_millis()).unwrap_or(i64::MAX)
}

fn as_integer(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

fn no_longer_registered() -> Error {
    Error::Deposed("this node is no longer in the register".to_owned())
}
