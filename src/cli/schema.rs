//! `sigmagate schema`: the JSON Schema of a configuration file.

use std::io::Write;

use super::output::print_json;
use crate::config;

/// Which file
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file
    #[arg(value_enum)]
    file: File,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum File {
    Gateway,
    Routes,
}

/// Runs the verb.
///
/// # Errors
/// When nobody reads what is printed.
pub fn run(args: &Args, out: &mut dyn Write) -> anyhow::Result<u8> {
    let schema = match args.file {
        File::Gateway => config::gateway_schema(),
        File::Routes => config::routes_schema(),
    };
    print_json(out, &schema)?;
    Ok(0)
}
