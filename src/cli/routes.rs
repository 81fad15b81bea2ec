//! `sigmagate routes`: list the routes.

use std::io::Write;

use super::output::{print_json, print_table, table};
use crate::config::check::asks;
use crate::config::{self, Sources};
use crate::scope::ScopeRegistry;

/// Nothing to choose
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Runs the verb.
///
/// # Errors
/// The mistakes of the configuration.
pub fn run(Args {}: &Args, sources: &Sources, json: bool, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = config::load_to_tell(sources, std::env::vars_os(), &ScopeRegistry::default())?;
    let mut routes: Vec<_> = config.routes.table.routes().iter().collect();
    routes.sort_by(|a, b| a.prefix.cmp(&b.prefix));
    if json {
        let rows: Vec<_> = routes
            .iter()
            .map(|route| {
                serde_json::json!({
                    "prefix": route.prefix.as_str(),
                    "methods": route.methods.to_string().split(", ").collect::<Vec<_>>(),
                    "asks_for": asks(route),
                    "upstream": &*route.upstream.name,
                    "body_limit_bytes": route.body_limit_bytes,
                })
            })
            .collect();
        print_json(out, &rows)?;
    } else {
        let mut listed = table(&["PREFIX", "METHODS", "ASKS FOR", "UPSTREAM"]);
        for route in routes {
            listed.add_row([route.prefix.to_string(), route.methods.to_string(), asks(route), route.upstream.name.to_string()]);
        }
        print_table(out, &listed, "There are no routes.")?;
    }
    Ok(0)
}
