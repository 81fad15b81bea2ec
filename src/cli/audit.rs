//! `sigmagate audit`: read the ledger, and prove that it holds together.

use std::io::{self, Write};

use super::Context;
use super::output::{print_json, print_table, table};
use crate::id::PracticeId;
use crate::store::audit;

/// Read and verify the ledger of changes
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show who changed what, oldest first
    List {
        /// Only the events of this practice
        #[arg(long)]
        practice: Option<PracticeId>,
    },
    /// Check that no event was altered or removed
    Verify {
        /// Only the events of this practice
        #[arg(long)]
        practice: Option<PracticeId>,
    },
}

/// Runs the verb.
///
/// # Errors
/// [`audit::Broken`] when the ledger does not hold together.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    match args.verb {
        Verb::List { practice } => {
            let events = context.store.audit(practice.as_ref()).await?;
            let out = &mut io::stdout().lock();
            if context.json {
                return print_json(out, &events);
            }
            let mut table = table(&["ID", "AT", "PRACTICE", "WHO", "FROM", "WHAT", "TARGET"]);
            for event in events {
                let practice = event.practice_id.map_or_else(|| "-".to_owned(), |id| id.to_string());
                table.add_row([
                    event.id.to_string(),
                    event.at.to_string(),
                    practice,
                    event.actor,
                    event.origin,
                    event.action,
                    event.target,
                ]);
            }
            print_table(out, &table, "Nothing was changed yet.")
        }
        Verb::Verify { practice } => {
            let events = context.store.audit(practice.as_ref()).await?;
            audit::verify(&events)?;
            let newest = events.last().map(|event| event.hash.to_string());
            let out = &mut io::stdout().lock();
            if context.json {
                return print_json(out, &serde_json::json!({ "events": events.len(), "newest_hash": newest }));
            }
            writeln!(out, "The ledger holds together: {} events, none altered.", events.len())?;
            if let Some(newest) = newest {
                writeln!(out, "Newest hash (keep it elsewhere to notice a shortened ledger): {newest}")?;
            }
            Ok(())
        }
    }
}
