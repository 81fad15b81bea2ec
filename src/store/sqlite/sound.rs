//! Whether the database is what was written to it.
//!
//! What is admitted if it is missing is looked at before anything is read of it. The whole, which grows with the ledger and the
//! usage of years, is looked at beside that, once: a gateway does not wait for it to answer, for it has just read every row that
//! it decides by. But nothing is told or changed before it is known, and a gateway whose database is damaged stops admitting.

use std::path::{Path, PathBuf};

use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;
use tokio::sync::OnceCell;

use super::fault::{explain, is_damage, unusable};
use crate::store::Error;

/// Looks at the tokens that are revoked: what is missing there is admitted. Without its row, everybody else is refused.
pub(super) async fn refusals(path: &Path, conn: &mut SqliteConnection) -> Result<(), Error> {
    look(path, conn, "PRAGMA quick_check('revoked_tokens')").await
}

/// Looks at all of it.
pub(super) async fn whole(path: &Path, conn: &mut SqliteConnection) -> Result<(), Error> {
    look(path, conn, "PRAGMA quick_check(1)").await
}

async fn look(path: &Path, conn: &mut SqliteConnection, sql: &'static str) -> Result<(), Error> {
    let found: String = sqlx::query_scalar(sql).fetch_one(conn).await?;
    if found == "ok" {
        return Ok(());
    }
    let file = path.display();
    Err(unusable(format!("the database `{file}` is damaged ({found}): stop sigmagate and put the newest backup in its place")))
}

/// What is known of the whole.
#[derive(Debug)]
pub(super) struct Sound {
    path: PathBuf,
    pool: SqlitePool,
    /// What is wrong, in words for whoever asks.
    known: OnceCell<Result<(), String>>,
}

impl Sound {
    /// Nothing is known yet.
    pub(super) fn new(path: PathBuf, pool: SqlitePool) -> Self {
        Self { path, pool, known: OnceCell::new() }
    }

    /// Whether it is sound, when that is known.
    pub(super) async fn check(&self) -> Result<(), Error> {
        let known = self.known.get_or_try_init(|| async {
            let error = match self.look().await {
                Ok(()) => return Ok(Ok(())),
                // That it could not be looked at says nothing; whoever asks next looks again.
                Err(Error::Database(error)) if !is_damage(&error) => return Err(Error::Database(error)),
                Err(error) => error,
            };
            match explain(&self.path, error) {
                Error::Unusable { message, .. } => Ok(Err(message)),
                error => Err(error),
            }
        });
        known.await?.clone().map_err(unusable)
    }

    /// Whether it is, as far as is known.
    pub(super) fn so_far(&self) -> Result<(), Error> {
        self.known.get().cloned().unwrap_or(Ok(())).map_err(unusable)
    }

    /// On a connection that is closed behind it: it has read much that nobody else will.
    async fn look(&self) -> Result<(), Error> {
        let mut conn = self.pool.acquire().await?;
        sqlx::raw_sql("PRAGMA cache_size = -256").execute(&mut *conn).await?;
        whole(&self.path, &mut conn).await?;
        Ok(conn.close().await?)
    }
}
