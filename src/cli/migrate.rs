//! `sigmagate migrate`: create the database or bring its schema up to date.

use std::io::{self, Write};

use super::output::print_json;
use crate::config::StoreSettings;
use crate::store;

/// Create the database or bring its schema up to date
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb. It alone works on a database that no store can be opened on yet, so it opens the store by itself.
///
/// # Errors
/// As for [`store::open`].
pub async fn run(Args {}: Args, settings: &StoreSettings, json: bool) -> anyhow::Result<()> {
    store::open(&settings.url, &settings.fleet, true).await?;
    // Of a URL with a password, which may also stand among the parameters, only what names the database.
    let place = settings.url.split_once('?').map_or(settings.url.as_str(), |(place, _)| place);
    let name = place.rsplit_once('@').map_or(place, |(_, place)| place);
    let out = &mut io::stdout().lock();
    if json {
        return print_json(out, &serde_json::json!({ "migrated": name }));
    }
    writeln!(out, "The database `{name}` is up to date.")?;
    Ok(())
}
