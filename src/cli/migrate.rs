//! `sigmagate migrate`: create the database or bring its schema up to date.

use std::io::{self, Write};

use super::output::print_json;
use crate::store::SqliteStore;

/// Create the database or bring its schema up to date
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb. It alone works on a database that no store can be opened on yet, so it takes the store's URL.
///
/// # Errors
/// As for [`SqliteStore::migrate`].
pub async fn run(Args {}: Args, url: &str, json: bool) -> anyhow::Result<()> {
    SqliteStore::migrate(url).await?;
    let out = &mut io::stdout().lock();
    if json {
        return print_json(out, &serde_json::json!({ "migrated": url }));
    }
    writeln!(out, "The database `{url}` is up to date.")?;
    Ok(())
}
