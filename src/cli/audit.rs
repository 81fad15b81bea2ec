//! `sigmagate audit`: read the ledger, and prove that it holds together.

use std::io::{self, Write};

use super::Context;
use super::output::{print_json, print_table, table};
use crate::id::PracticeId;
use crate::store::audit;

/// How many events are held at a time; of all practices there may be more than memory.
const CHUNK: u32 = 5000;

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
            let (mut verifier, mut count, mut newest) = (audit::Verifier::default(), 0, None);
            loop {
                let events = match &practice {
                    Some(_) => context.store.audit(practice.as_ref()).await?,
                    None => context.store.audit_chunk(verifier.last_id(), CHUNK).await?,
                };
                events.iter().try_for_each(|event| verifier.take(event))?;
                count += events.len();
                newest = events.last().map(|event| event.hash.to_string()).or(newest);
                if practice.is_some() || events.is_empty() {
                    break;
                }
            }
            let out = &mut io::stdout().lock();
            if context.json {
                return print_json(out, &serde_json::json!({ "events": count, "newest_hash": newest }));
            }
            writeln!(out, "The ledger holds together: {count} events, none altered.")?;
            if let Some(newest) = newest {
                writeln!(out, "Newest hash (keep it elsewhere to notice a shortened ledger): {newest}")?;
            }
            Ok(())
        }
    }
}
