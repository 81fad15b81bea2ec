//! `sigmagate check`: prove the configuration without running it.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use super::output::print_json;
use crate::config::check::{Finding, Level, check, check_openapi};
use crate::config::{self, Sources};
use crate::scope::ScopeRegistry;

/// What to hold the route map against
#[derive(Debug, clap::Args)]
pub struct Args {
    /// An upstream's OpenAPI document, in JSON: every operation must have a route
    #[arg(long, value_name = "UPSTREAM=FILE")]
    openapi: Vec<String>,
}

/// Runs the verb; 1 when something is wrong.
///
/// # Errors
/// The mistakes of the configuration; an OpenAPI document that cannot be read.
pub fn run(args: &Args, sources: &Sources, json: bool, out: &mut dyn Write) -> anyhow::Result<u8> {
    let config = match config::load(sources, std::env::vars_os(), &ScopeRegistry::default()) {
        Ok(config) => config,
        // A program reads one list, whether what is in it keeps the gateway from starting or not.
        Err(mistakes) if json => {
            let findings: Vec<Finding> = mistakes.0.into_iter().map(Finding::from).collect();
            print_json(out, &serde_json::json!({ "findings": findings }))?;
            return Ok(1);
        }
        Err(mistakes) => return Err(mistakes.into()),
    };
    let mut findings = check(&config);
    for pair in &args.openapi {
        let (upstream, file) = pair.split_once('=').with_context(|| format!("`{pair}` is not of the form UPSTREAM=FILE"))?;
        if !config.routes.upstreams.contains_key(upstream) {
            anyhow::bail!("no upstream is called `{upstream}`");
        }
        let file = PathBuf::from(file);
        let text = std::fs::read(&file).with_context(|| format!("`{}` cannot be read", file.display()))?;
        let document = serde_json::from_slice(&text).with_context(|| format!("`{}` is not JSON", file.display()))?;
        findings.extend(check_openapi(&config.routes, upstream, &document));
    }
    let wrong = findings.iter().any(|finding| finding.level == Level::Error);
    if json {
        let answer = serde_json::json!({ "routes": config.routes.table.routes().len(), "issuers": config.routes.issuers.len(), "findings": findings });
        print_json(out, &answer)?;
    } else {
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.level));
        for finding in &findings {
            writeln!(out, "{finding}")?;
        }
        let issuers = match config.routes.issuers.len() {
            0 => String::new(),
            1 => ", 1 issuer".to_owned(),
            count => format!(", {count} issuers"),
        };
        writeln!(out, "{}: {} routes{issuers}", if wrong { "refused" } else { "ok" }, config.routes.table.routes().len())?;
    }
    Ok(u8::from(wrong))
}
