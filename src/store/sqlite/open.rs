//! From a path to a database that can be relied on.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};

use super::fault::unusable;
use super::sound;
use crate::store::Error;

/// The schema, one step after the other. `user_version` says how many a file has taken: unlike a table of migrations
/// it changes in the same transaction as the schema itself, so two processes cannot migrate at once.
const MIGRATIONS: &[&str] = &[
    include_str!("../../../migrations/sqlite/0001_access.sql"),
    include_str!("../../../migrations/sqlite/0002_tokens.sql"),
    include_str!("../../../migrations/sqlite/0003_records.sql"),
    include_str!("../../../migrations/sqlite/0004_retention.sql"),
];

/// `smgt`, at bytes 68..72 of every file of ours, so that another program's database is not taken for one.
const APPLICATION_ID: i64 = 0x736d_6774;

/// How many changes are kept; must be the number in the trigger `keep_change_delete`.
const CHANGES_KEPT: i64 = 100_000;

/// The path in a URL (`sqlite:`, `sqlite://`) or a plain path.
pub(super) fn path_of(url_or_path: &str) -> Result<PathBuf, Error> {
    let path = url_or_path.strip_prefix("sqlite://").or_else(|| url_or_path.strip_prefix("sqlite:")).unwrap_or(url_or_path);
    if path.is_empty() || path.contains(":memory:") || path.contains('?') {
        return Err(unusable(format!("`{url_or_path}` names no database file: give a path, as `sqlite:///var/lib/sigmagate/gateway.db`")));
    }
    Ok(path.into())
}

/// Looks at the file before SQLite does, whose errors tell less; creates it, for this user alone, if that is allowed.
pub(super) fn prepare(path: &Path, create: bool) -> Result<(), Error> {
    let file = path.display();
    if path.is_dir() {
        return Err(unusable(format!("`{file}` is a directory: name a file in it, as `{}`", path.join("gateway.db").display())));
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        let directory = directory.display();
        return Err(unusable(format!("the directory `{directory}` of the database does not exist: create it (`mkdir -p {directory}`)")));
    }
    let opened = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound && create => {
            // Private from its first moment; SQLite gives the files beside it the same mode.
            match OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => OpenOptions::new().read(true).write(true).open(path),
                other => other,
            }
        }
        other => other,
    };
    match opened {
        Ok(mut opened) => {
            warn_if_others_may_read(path, &opened);
            let mut header = [0; 16];
            let length = opened.metadata().map_or(0, |data| data.len());
            if length > 0 && (opened.read_exact(&mut header).is_err() || &header != b"SQLite format 3\0") {
                let advice = "name another file, or move this one away and run `sigmagate migrate`";
                return Err(unusable(format!("`{file}` is not a SQLite database: {advice}")));
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(unusable(format!("there is no database `{file}`: run `sigmagate migrate` to create it")))
        }
        Err(error) => {
            Err(unusable(format!("the database `{file}` cannot be read and written ({error}): give this user both rights on the file")))
        }
    }
}

fn warn_if_others_may_read(path: &Path, file: &File) {
    if let Ok(data) = file.metadata()
        && data.permissions().mode() & 0o077 != 0
    {
        tracing::warn!(path = %path.display(), mode = format!("{:o}", data.permissions().mode() & 0o777), "others may read the database file: `chmod 600` it");
    }
}

/// How every connection is opened.
pub(super) fn options(path: &Path, busy: Duration) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(busy)
}

/// Brings the schema up to date if `migrate`, and proves that the file is ours, and as new as the program.
pub(super) async fn make_ready(path: &Path, conn: &mut SqliteConnection, migrate: bool) -> Result<(), Error> {
    let file = path.display();
    let newest = i64::try_from(MIGRATIONS.len()).expect("few");
    let mut version = version(path, conn).await?;
    if version < newest && migrate {
        sound::whole(path, conn).await?;
        // The write lock comes first, so that of two programs the second finds the work done.
        let mut transaction = conn.begin_with("BEGIN IMMEDIATE").await?;
        version = self::version(path, &mut transaction).await?;
        for step in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(0)) {
            sqlx::raw_sql(*step).execute(&mut *transaction).await?;
        }
        sqlx::raw_sql(AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {newest}")))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        version = newest;
    }
    if version > newest {
        return Err(unusable(format!(
            "the database `{file}` has schema {version}, and this sigmagate knows only up to {newest}: use the newer sigmagate"
        )));
    }
    if version < newest {
        return Err(unusable(format!("the database `{file}` has schema {version} of {newest}: run `sigmagate migrate`")));
    }
    sound::refusals(path, conn).await?;
    // Nothing to delete is the usual case; asking first keeps a mere opening from waiting for the write lock.
    // Each end by itself is found at once; asked for both, SQLite reads the whole log.
    let spare = "SELECT (SELECT max(revision) FROM changes) - (SELECT min(revision) FROM changes)";
    let spare: Option<i64> = sqlx::query_scalar(spare).fetch_one(&mut *conn).await?;
    if spare.unwrap_or(0) >= CHANGES_KEPT {
        sqlx::query("DELETE FROM changes WHERE revision <= (SELECT max(revision) FROM changes) - ?")
            .bind(CHANGES_KEPT)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}

async fn version(path: &Path, conn: &mut SqliteConnection) -> Result<i64, Error> {
    let application: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *conn).await?;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *conn).await?;
    let objects: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_master").fetch_one(&mut *conn).await?;
    let empty = application == 0 && version == 0 && objects == 0;
    if application != APPLICATION_ID && !empty {
        return Err(unusable(format!("`{}` is the database of another program: name another file", path.display())));
    }
    Ok(version)
}

/// One table, index or trigger, and the statement that made it.
type Object = (String, String, String);

/// What the schema must contain for the promises of this module to hold: every table and trigger, with its very text.
#[derive(Debug)]
pub(super) struct Schema(Vec<Object>);

impl Schema {
    /// The schema that the migrations make, found by running them on a database in memory.
    pub(super) async fn expected() -> Result<Self, Error> {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await?;
        for step in MIGRATIONS {
            sqlx::raw_sql(*step).execute(&mut conn).await?;
        }
        let objects = Self::read(&mut conn).await?;
        conn.close().await?;
        Ok(Self(objects))
    }

    async fn read(conn: &mut SqliteConnection) -> Result<Vec<Object>, Error> {
        // Automatic indexes have no text; `sqlite_sequence` and the like are SQLite's own.
        Ok(sqlx::query_as("SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT GLOB 'sqlite_*'")
            .fetch_all(conn)
            .await?)
    }

    /// Whether the database still has all of it. A trigger that is missing would let a change by unnoticed.
    pub(super) async fn verify(&self, path: &Path, conn: &mut SqliteConnection) -> Result<(), Error> {
        let present = Self::read(conn).await?;
        for wanted in &self.0 {
            if wanted.0 == "index" {
                continue;
            }
            let found = present.iter().find(|object| object.1 == wanted.1);
            let what = match found {
                None => "is missing from",
                Some(found) if found != wanted => "is not the one that was made in",
                Some(_) => continue,
            };
            return Err(unusable(format!(
                "the {} `{}` {what} the database `{}`, so changes could go unnoticed: create it as in migrations/sqlite, or put a backup in place",
                wanted.0,
                wanted.1,
                path.display()
            )));
        }
        Ok(())
    }
}
