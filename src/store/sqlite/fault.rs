//! What a failure of the database file means, in words that say what to do.

use std::path::Path;

use crate::store::Error;

/// The error for a file that cannot be used.
pub(super) fn unusable(message: String) -> Error {
    Error::Unusable { message, source: None }
}

/// What was read shows that the file is damaged.
pub(super) fn damaged(how: &str) -> Error {
    unusable(format!("the database is damaged ({how}): stop sigmagate and put the newest backup in its place"))
}

/// Says what a database error means for this file; leaves every other error as it is.
pub(super) fn explain(path: &Path, error: Error) -> Error {
    let Error::Database(source) = error else { return error };
    let file = path.display();
    let text = source.as_database_error().map(|error| error.message().to_owned()).unwrap_or_default();
    let message = match primary_code(&source) {
        Some((5 | 6, _)) => {
            format!("the database `{file}` is locked by another process: end the transaction or the program that holds it, then try again")
        }
        // SQLITE_CONSTRAINT_TRIGGER: one of our own RAISE texts, which says what is final.
        Some((19, 1811)) => return Error::Conflict(text),
        Some((8, _)) => format!("the database `{file}` cannot be written ({text}): make the file and its directory writable for this user"),
        Some((11, _)) => format!("the database `{file}` is damaged ({text}): stop sigmagate and put the newest backup in its place"),
        Some((26, _)) => {
            format!("`{file}` is not a SQLite database: name another file, or move this one away and run `sigmagate migrate`")
        }
        Some((13, _)) => format!("the disk that holds the database `{file}` is full: free some space"),
        Some((10, _)) => format!("the database `{file}` cannot be read or written ({text}): look at the disk and the system's log"),
        Some((14, _)) => {
            format!("the database `{file}` cannot be opened ({text}): let this user read and write the file and its directory")
        }
        Some((1, _)) if text.starts_with("no such") => {
            format!("the database `{file}` lacks what it should have ({text}): put a backup in its place, or run `sigmagate migrate`")
        }
        _ => return Error::Database(source),
    };
    Error::Unusable { message, source: Some(source) }
}

/// Whether the database was busy with another connection's transaction.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some((5 | 6, _)))
}

/// Whether the file is not what it should be, which it will not be the next time either.
pub(super) fn is_damage(error: &sqlx::Error) -> bool {
    matches!(primary_code(error), Some((11 | 26, _)))
}

/// SQLite's primary result code, and the extended one.
fn primary_code(error: &sqlx::Error) -> Option<(u32, u32)> {
    let extended: u32 = error.as_database_error()?.code()?.parse().ok()?;
    Some((extended & 0xff, extended))
}
