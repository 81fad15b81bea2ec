//! `sigmagate practice`: practices and their API access, what their clients did and what was refused.

use std::io::{self, Write};

use http::Method;
use serde_json::{Value, json};

use super::Management;
use super::output::{join, print_changed, print_json, print_table, table, text};
use crate::clock::Day;
use crate::id::{ClientId, PracticeId};

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
        /// Only say what would stop: what was used in the last 24 hours
        #[arg(long)]
        dry_run: bool,
    },
    /// Switch API access on again
    Enable {
        /// The practice
        practice: PracticeId,
    },
    /// Show what its clients did, by day, client and scope
    Usage {
        /// The practice
        practice: PracticeId,
        /// The first day (UTC), as `2027-01-31`; left out: 29 days before the last
        #[arg(long)]
        from: Option<Day>,
        /// The last day; left out: today
        #[arg(long)]
        to: Option<Day>,
        /// Only this client
        #[arg(long)]
        client: Option<ClientId>,
    },
    /// Show which requests were refused, and why, the newest first
    Denials {
        /// The practice
        practice: PracticeId,
        /// How many at most
        #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
    },
    /// Show who changed what, the newest first; that it was read is in it as well
    Ledger {
        /// The practice
        practice: PracticeId,
        /// How many at most
        #[arg(long, default_value = "100", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
        limit: u32,
    },
}

/// Runs the verb.
///
/// # Errors
/// What the API says.
pub async fn run(args: Args, management: &Management) -> anyhow::Result<()> {
    let (api, json) = (&management.api, management.json);
    let access = |practice: &PracticeId, what: &str| format!("/v1/practices/{practice}/api-access{what}");
    let (done, changed) = match args.verb {
        Verb::List => return print_practices(&api.list("/v1/practices", usize::MAX).await?.into(), json),
        Verb::Show { practice } => {
            let practice = api.get(&access(&practice, "")).await?;
            return if json { print_json(&mut io::stdout().lock(), &practice) } else { print_practices(&json!([practice]), false) };
        }
        Verb::Usage { practice, from, to, client } => return usage(management, &practice, from, to, client).await,
        Verb::Denials { practice, limit } => return denials(management, &practice, limit).await,
        Verb::Ledger { practice, limit } => return ledger(management, &practice, limit).await,
        Verb::Disable { practice, dry_run: true } => {
            return preview(&api.post(&access(&practice, "/disable?dry_run=true"), None).await?, json);
        }
        Verb::Create { practice, name } => {
            let body = json!({ "name": name.as_deref().unwrap_or(practice.as_str()) });
            (format!("Practice `{practice}` is kept."), api.send(Method::PUT, &format!("/v1/practices/{practice}"), Some(&body)).await?)
        }
        Verb::Request { practice } => {
            (format!("API access of practice `{practice}` is requested."), api.post(&access(&practice, "/request"), None).await?)
        }
        Verb::Approve { practice } => {
            (format!("API access of practice `{practice}` is on."), api.post(&access(&practice, "/approve"), None).await?)
        }
        Verb::Disable { practice, dry_run: false } => {
            (format!("API access of practice `{practice}` is off."), api.post(&access(&practice, "/disable"), None).await?)
        }
        Verb::Enable { practice } => {
            (format!("API access of practice `{practice}` is on."), api.post(&access(&practice, "/enable"), None).await?)
        }
    };
    print_changed(&mut io::stdout().lock(), json, &done, &changed)
}

fn print_practices(practices: &Value, json: bool) -> anyhow::Result<()> {
    let out = &mut io::stdout().lock();
    if json {
        return print_json(out, practices);
    }
    let mut table = table(&["PRACTICE", "NAME", "API ACCESS"]);
    for practice in practices.as_array().into_iter().flatten() {
        table.add_row(["practice_id", "name", "api_access"].map(|name| text(&practice[name])));
    }
    print_table(out, &table, "There is no practice yet: `sigmagate practice create ID --name NAME` makes one.")
}

fn preview(preview: &Value, json: bool) -> anyhow::Result<()> {
    let out = &mut io::stdout().lock();
    if json {
        return print_json(out, preview);
    }
    let mut table = table(&["WOULD STOP", "NAME", "LAST USED"]);
    for client in preview["clients"].as_array().into_iter().flatten() {
        table.add_row([text(&client["client_id"]), text(&client["name"]), text(&client["last_used"]["at"])]);
    }
    print_table(out, &table, "No client of the practice was used in the last 24 hours.")?;
    writeln!(out, "People who used keys of their own: {}. Nothing was changed.", preview["people"])?;
    Ok(())
}

async fn usage(
    management: &Management,
    practice: &PracticeId,
    from: Option<Day>,
    to: Option<Day>,
    client: Option<ClientId>,
) -> anyhow::Result<()> {
    let parts = [from.map(|day| format!("from={day}")), to.map(|day| format!("to={day}")), client.map(|id| format!("client_id={id}"))];
    let query: Vec<String> = parts.into_iter().flatten().collect();
    let usage = management.api.get(&format!("/v1/practices/{practice}/usage?{}", query.join("&"))).await?;
    let out = &mut io::stdout().lock();
    if management.json {
        return print_json(out, &usage);
    }
    let mut table = table(&["DAY", "CLIENT", "SCOPE", "REQUESTS", "REFUSED"]);
    for row in usage["rows"].as_array().into_iter().flatten() {
        table.add_row(["day", "client_id", "scope", "requests", "refused"].map(|name| text(&row[name])));
    }
    print_table(out, &table, "Nothing was asked for on these days.")
}

async fn denials(management: &Management, practice: &PracticeId, limit: u32) -> anyhow::Result<()> {
    let denials = management.api.list(&format!("/v1/practices/{practice}/denials"), limit as usize).await?;
    let out = &mut io::stdout().lock();
    if management.json {
        return print_json(out, &denials);
    }
    let mut table = table(&["AT", "REASON", "STATUS", "CLIENT", "REQUEST", "FROM", "REQUEST ID"]);
    for denial in denials {
        let request = join(&[text(&denial["method"]), text(&denial["path"])]);
        let of = |name: &str| text(&denial[name]);
        table.add_row([of("at"), of("reason"), of("status"), of("client_id"), request, of("address"), of("request_id")]);
    }
    print_table(out, &table, "No request was refused.")
}

async fn ledger(management: &Management, practice: &PracticeId, limit: u32) -> anyhow::Result<()> {
    let events = management.api.list(&format!("/v1/practices/{practice}/audit"), limit as usize).await?;
    let out = &mut io::stdout().lock();
    if management.json {
        return print_json(out, &events);
    }
    let mut table = table(&["ID", "AT", "WHO", "FROM", "WHAT", "TARGET"]);
    for event in events {
        table.add_row(["id", "at", "actor", "origin", "action", "target"].map(|name| text(&event[name])));
    }
    print_table(out, &table, "Nothing was changed yet.")
}
