//! The connections of this process to the database, and the files that they have open.
//!
//! All of them share one index of the log (`-shm`), that of the first, while each opens the log itself (`-wal`) by its name.
//! One that is opened after those files were replaced reads another log by the old index: what others commit is never seen, and
//! what is written is lost. And SQLite removes both files itself with the last connection. So one connection is open as long
//! as the store is, and none is believed in once the files at their names are not those of the first.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection, Sqlite, Transaction};

use super::fault::unusable;
use super::lock::Watched;
use crate::store::Error;

/// The database and the two files beside it, and all that is open to them.
#[derive(Debug)]
pub(super) struct Connections {
    files: [Watched; 3],
    /// Why none is believed in any more. For good: which files a connection has open cannot be asked.
    lost: OnceLock<String>,
    pool: SqlitePool,
    options: SqliteConnectOptions,
    /// Open while no [`Line`] is.
    spare: Mutex<Option<Spare>>,
}

#[derive(Debug)]
enum Spare {
    /// Has read the schema, and nothing else happened to it.
    Fresh(SqliteConnection),
    /// Was a line.
    Used(SqliteConnection),
}

impl Connections {
    /// Begins with the first connection, which has read from the database; `database` was looked at before it was opened.
    pub(super) fn new(path: &Path, database: Watched, first: SqliteConnection, options: SqliteConnectOptions) -> Result<Self, Error> {
        let [log, index] = Watched::beside(path)?;
        let pool = SqlitePoolOptions::new().max_connections(4).acquire_timeout(Duration::from_secs(10)).connect_lazy_with(options.clone());
        Ok(Self { files: [database, log, index], lost: OnceLock::new(), pool, options, spare: Mutex::new(Some(Spare::Fresh(first))) })
    }

    /// Whether the files are those of the first connection. To be asked before what was read is relied on, and after a commit:
    /// in a file that was moved away nobody would find it.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.lost.get() {
            Some(lost) => Err(unusable(lost.clone())),
            None => self.files.iter().try_for_each(Watched::check),
        }
    }

    /// The same once a connection may have been opened.
    fn check_opened(&self) -> Result<(), Error> {
        self.check().inspect_err(|error| {
            let _ = self.lost.set(error.to_string());
        })
    }

    /// The pool, for what concerns no one row.
    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// A connection of the pool.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Sqlite>, Error> {
        self.check()?;
        let conn = self.pool.acquire().await?;
        self.check_opened()?;
        Ok(conn)
    }

    /// A transaction that has the lock for writing.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        self.check()?;
        let transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        self.check_opened()?;
        Ok(transaction)
    }

    /// A connection outside the pool: the first one, or one that is opened for it.
    pub(super) async fn line(self: &Arc<Self>) -> Result<Line, Error> {
        self.check()?;
        let fresh = self.spare.lock().take_if(|spare| matches!(spare, Spare::Fresh(_)));
        let conn = if let Some(Spare::Fresh(conn)) = fresh {
            conn
        } else {
            let conn = self.options.connect().await?;
            self.check_opened()?;
            *self.spare.lock() = None;
            conn
        };
        Ok(Line { conn: Some(conn), connections: Arc::clone(self) })
    }

    /// Closes all of them but the lines.
    pub(super) async fn close(&self) {
        let spare = self.spare.lock().take();
        if let Some(Spare::Fresh(conn) | Spare::Used(conn)) = spare {
            // What cannot be closed in order is closed all the same.
            let _ = conn.close().await;
        }
        self.pool.close().await;
    }
}

/// A connection of its own, which stays open in its connections when it is dropped.
pub(super) struct Line {
    /// Until it is dropped.
    conn: Option<SqliteConnection>,
    connections: Arc<Connections>,
}

impl Deref for Line {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.conn.as_ref().expect("there until it is dropped")
    }
}

impl DerefMut for Line {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.conn.as_mut().expect("there until it is dropped")
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.connections.pool.is_closed() {
            *self.connections.spare.lock() = self.conn.take().map(Spare::Used);
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::open;
    use super::*;

    async fn connections() -> (TempDir, Arc<Connections>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.db");
        open::prepare(&path, true).unwrap();
        let options = open::options(&path, Duration::from_millis(20));
        let database = Watched::new(path.clone()).unwrap();
        let mut first = options.connect().await.unwrap();
        sqlx::raw_sql("CREATE TABLE things (n); CREATE TEMP TABLE mark (n)").execute(&mut first).await.unwrap();
        (dir, Arc::new(Connections::new(&path, database, first, options).unwrap()))
    }

    #[tokio::test]
    async fn the_first_line_is_the_first_connection_and_the_next_one_is_not() {
        let (_dir, connections) = connections().await;
        for marked in [1, 0, 0] {
            let mut line = connections.line().await.unwrap();
            let marks: i64 = sqlx::query_scalar("SELECT count(*) FROM temp.sqlite_master").fetch_one(&mut *line).await.unwrap();
            assert_eq!(marks, marked);
        }
    }

    #[tokio::test]
    async fn the_files_stay_while_nothing_else_is_open() {
        let (dir, connections) = connections().await;
        for _ in 0..3 {
            drop(connections.line().await.unwrap());
            // The last one that is closed takes them with it.
            connections.options.connect().await.unwrap().close().await.unwrap();
            connections.check().unwrap();
        }
        connections.close().await;
        assert!(!dir.path().join("gateway.db-wal").exists());
    }

    #[tokio::test]
    async fn nothing_is_opened_once_a_file_is_gone_or_another_one() {
        let (dir, connections) = connections().await;
        let refused = async |why: &str, file: &str| {
            let line = connections.line().await.err().map(|error| error.to_string());
            let acquired = connections.acquire().await.err().map(|error| error.to_string());
            let begun = connections.begin().await.err().map(|error| error.to_string());
            for error in [line, acquired, begun] {
                assert!(error.is_some_and(|error| error.contains(why)), "{file}");
            }
        };
        let moved = dir.path().join("moved");
        for file in ["gateway.db", "gateway.db-wal", "gateway.db-shm"] {
            let path = dir.path().join(file);
            std::fs::rename(&path, &moved).unwrap();
            refused("was removed", file).await;
            std::fs::copy(&moved, &path).unwrap();
            refused("was replaced", file).await;
            std::fs::rename(&moved, &path).unwrap();
            connections.acquire().await.unwrap();
        }
        // What was opened meanwhile may have another file open, whatever is put back.
        std::fs::rename(dir.path().join("gateway.db-wal"), &moved).unwrap();
        assert!(connections.check_opened().is_err());
        std::fs::rename(&moved, dir.path().join("gateway.db-wal")).unwrap();
        refused("was removed", "gateway.db-wal").await;
    }
}
