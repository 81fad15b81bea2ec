//! `sigmagate practice`: practices and their API access.

use std::io;

use super::Context;
use super::output::{print_json, print_receipt, print_table, table};
use crate::id::PracticeId;

/// Manage practices and their API access
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create a practice, without API access, or rename it
    Create {
        /// SigmaMD's id of the practice
        practice: PracticeId,
        /// Its name; the id if none is given
        #[arg(long)]
        name: Option<String>,
    },
    /// List every practice
    List,
    /// Show one practice
    Show {
        /// The practice
        practice: PracticeId,
    },
    /// Ask for API access
    Request {
        /// The practice
        practice: PracticeId,
    },
    /// Grant API access
    Approve {
        /// The practice
        practice: PracticeId,
    },
    /// Switch API access off, for every client of the practice
    Disable {
        /// The practice
        practice: PracticeId,
    },
    /// Switch API access on again
    Enable {
        /// The practice
        practice: PracticeId,
    },
}

/// Runs the verb.
///
/// # Errors
/// What the life cycle or the store says.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (lifecycle, by) = (&context.lifecycle, &context.actor);
    let (done, receipt) = match args.verb {
        Verb::List => {
            let practices = context.store.practices().await?;
            let out = &mut io::stdout().lock();
            if context.json {
                return print_json(out, &practices);
            }
            let mut table = table(&["PRACTICE", "NAME", "API ACCESS"]);
            for practice in practices {
                table.add_row([practice.id.as_str(), &*practice.name, practice.api_access.as_str()]);
            }
            return print_table(out, &table, "There is no practice yet: `sigmagate practice create ID --name NAME` makes one.");
        }
        Verb::Show { practice } => {
            let practice = context.store.practice(&practice).await?;
            let out = &mut io::stdout().lock();
            if context.json {
                return print_json(out, &practice);
            }
            let mut table = table(&["PRACTICE", "NAME", "API ACCESS"]);
            table.add_row([practice.id.as_str(), &*practice.name, practice.api_access.as_str()]);
            return print_table(out, &table, "");
        }
        Verb::Create { practice, name } => {
            let receipt = lifecycle.put_practice(&practice, name.as_deref().unwrap_or(practice.as_str()), by).await?;
            (format!("Practice `{practice}` is kept."), receipt)
        }
        Verb::Request { practice } => {
            (format!("API access of practice `{practice}` is requested."), lifecycle.request(&practice, by).await?)
        }
        Verb::Approve { practice } => (format!("API access of practice `{practice}` is on."), lifecycle.approve(&practice, by).await?),
        Verb::Disable { practice } => (format!("API access of practice `{practice}` is off."), lifecycle.disable(&practice, by).await?),
        Verb::Enable { practice } => (format!("API access of practice `{practice}` is on."), lifecycle.enable(&practice, by).await?),
    };
    print_receipt(&mut io::stdout().lock(), context.json, &done, &receipt)
}
