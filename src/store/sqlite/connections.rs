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

/// The database and the two files beside it, as the first connection found them.
#[derive(Debug)]
struct Files {
    watched: [Watched; 3],
    /// Why no connection is believed in any more. For good: which files one has open cannot be asked.
    lost: OnceLock<String>,
}

impl Files {
    fn check(&self) -> Result<(), Error> {
        match self.lost.get() {
            Some(lost) => Err(unusable(lost.clone())),
            None => self.watched.iter().try_for_each(Watched::check),
        }
    }

    /// The same right after a connection was opened, which may be to what is there now.
    fn check_opened(&self) -> Result<(), Error> {
        self.check().inspect_err(|error| {
            let _ = self.lost.set(error.to_string());
        })
    }
}

/// All that is open to the database.
#[derive(Debug)]
pub(super) struct Connections {
    files: Arc<Files>,
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
        let files = Arc::new(Files { watched: [database, log, index], lost: OnceLock::new() });
        let opened = Arc::clone(&files);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(10))
            .after_connect(move |_, _| {
                // Whoever waits for it may be gone by now, and the next one must not trust it either. An error would only have
                // the pool open more of them.
                let _ = opened.check_opened();
                Box::pin(std::future::ready(Ok(())))
            })
            .connect_lazy_with(options.clone());
        Ok(Self { files, pool, options, spare: Mutex::new(Some(Spare::Fresh(first))) })
    }

    /// Whether the files are those of the first connection. To be asked before what was read is relied on, and after a commit:
    /// in a file that was moved away nobody would find it.
    pub(super) fn check(&self) -> Result<(), Error> {
        self.files.check()
    }

    /// The pool, for what concerns no one row.
    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// A connection of the pool.
    pub(super) async fn acquire(&self) -> Result<PoolConnection<Sqlite>, Error> {
        self.check()?;
        let conn = self.pool.acquire().await?;
        self.check()?;
        Ok(conn)
    }

    /// A transaction that has the lock for writing.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, Error> {
        self.check()?;
        let transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        self.check()?;
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
            self.files.check_opened()?;
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
        let (_dir, connections) = connections().await;
        for _ in 0..3 {
            drop(connections.line().await.unwrap());
            // The last one that is closed takes them with it.
            connections.options.connect().await.unwrap().close().await.unwrap();
            connections.check().unwrap();
        }
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
    }

    #[tokio::test]
    async fn what_was_opened_to_another_file_is_not_believed_in_when_the_first_is_put_back() {
        let (dir, connections) = connections().await;
        let (log, moved) = (dir.path().join("gateway.db-wal"), dir.path().join("moved"));
        std::fs::rename(&log, &moved).unwrap();
        std::fs::copy(&moved, &log).unwrap();
        // Whoever asked for it does not look.
        drop(connections.pool().acquire().await.unwrap());
        std::fs::rename(&moved, &log).unwrap();
        assert!(connections.acquire().await.is_err());
        assert!(connections.check().is_err_and(|error| error.to_string().contains("start again")));
    }
}
