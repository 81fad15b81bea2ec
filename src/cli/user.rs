//! `sigmagate user`: team members and their API access.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};

use super::Management;
use super::output::{Failed, print_changed, print_json, print_table, table, text};
use crate::entity::Role;
use crate::id::{PracticeId, UserId};

/// Manage team members and their API access
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Put a user on the team of a practice, with API access off, or change what they are
    Put {
        /// SigmaMD's id of the user
        user: UserId,
        /// The practice
        #[arg(long)]
        practice: PracticeId,
        /// `admin` or `member`
        #[arg(long, default_value = "member")]
        role: Role,
        /// Their name; left out: not known
        #[arg(long)]
        name: Option<String>,
        /// Where mail reaches them; left out: nowhere
        #[arg(long)]
        email: Option<String>,
    },
    /// Take in a whole team: a line of JSON for each, `{"user_id", "role", "name", "email"}` or `{"user_id", "removed": true}`
    Sync {
        /// The practice
        #[arg(long)]
        practice: PracticeId,
        /// The file; `-`: standard input
        file: PathBuf,
    },
    /// List the users of a practice
    List {
        /// The practice
        #[arg(long)]
        practice: PracticeId,
    },
    /// Turn a user's API access on or off
    Access {
        /// The user
        user: UserId,
        /// `on` or `off`
        #[arg(value_enum)]
        access: Access,
        /// The practice
        #[arg(long)]
        practice: PracticeId,
    },
    /// Take a user off the team; their personal clients stop
    Remove {
        /// The user
        user: UserId,
        /// The practice
        #[arg(long)]
        practice: PracticeId,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Access {
    /// Personal clients of the user work
    On,
    /// They do not
    Off,
}

/// Runs the verb.
///
/// # Errors
/// What the API says; [`Failed`] if some line of a team was not taken in.
pub async fn run(args: Args, management: &Management) -> anyhow::Result<()> {
    let (api, json) = (&management.api, management.json);
    let member = |practice: &PracticeId, user: &UserId| format!("/v1/practices/{practice}/team/{user}");
    let (done, changed) = match args.verb {
        Verb::List { practice } => return list(management, &practice).await,
        Verb::Sync { practice, file } => return sync(management, &practice, file).await,
        Verb::Put { user, practice, role, name, email } => {
            let body = json!({ "role": role, "name": name, "email": email });
            let changed = api.send(Method::PUT, &member(&practice, &user), Some(&body)).await?;
            (format!("User `{user}` is `{role}` of practice `{practice}`."), changed)
        }
        Verb::Access { user, access, practice } => {
            let on = matches!(access, Access::On);
            let path = format!("{}/api-access", member(&practice, &user));
            let changed = api.send(Method::PUT, &path, Some(&json!({ "api_access": on }))).await?;
            (format!("API access of user `{user}` is {}.", if on { "on" } else { "off" }), changed)
        }
        Verb::Remove { user, practice } => {
            (format!("User `{user}` is off the team."), api.send(Method::DELETE, &member(&practice, &user), None).await?)
        }
    };
    print_changed(&mut io::stdout().lock(), json, &done, &changed)
}

async fn list(management: &Management, practice: &PracticeId) -> anyhow::Result<()> {
    let users = management.api.list(&format!("/v1/practices/{practice}/team"), usize::MAX).await?;
    let out = &mut io::stdout().lock();
    if management.json {
        return print_json(out, &users);
    }
    let mut table = table(&["USER", "NAME", "E-MAIL", "ROLE", "API ACCESS", "LEFT"]);
    for user in users {
        let access = if user["api_access"] == true { "on" } else { "off" };
        let of = |name: &str| text(&user[name]);
        table.add_row([of("user_id"), of("name"), of("email"), of("role"), access.to_owned(), of("left_at")]);
    }
    print_table(out, &table, "The practice has no user yet: `sigmagate user put ID --practice PRACTICE` adds one.")
}

async fn sync(management: &Management, practice: &PracticeId, file: PathBuf) -> anyhow::Result<()> {
    let lines = if file.as_os_str() == "-" {
        io::read_to_string(io::stdin()).context("cannot read standard input")?.into_bytes()
    } else {
        std::fs::read(&file).with_context(|| format!("cannot read `{}`", file.display()))?
    };
    let mut answers = management.api.lines(&format!("/v1/practices/{practice}/team/sync"), lines).await?;
    let last = answers.pop().unwrap_or_default();
    let out = &mut io::stdout().lock();
    if management.json {
        print_json(
            out,
            &json!({ "lines": answers, "done": last["done"], "ok": last["ok"], "failed": last["failed"], "receipt": last["receipt"] }),
        )?;
    } else {
        for failed in answers.iter().filter(|answer| answer["ok"] != true) {
            let of = |value: &Value| text(value);
            writeln!(out, "line {}: {}: {}", failed["line"], of(&failed["user_id"]), of(&failed["detail"]))?;
        }
        writeln!(out, "{} taken in, {} not.", last["ok"], last["failed"])?;
    }
    if last["done"] != true {
        return Err(Failed(format!("not all was taken in: {}", text(&last["detail"]))).into());
    }
    if last["failed"] != 0 {
        return Err(Failed(format!("{} of the lines were not taken in: mend them, and send them again", last["failed"])).into());
    }
    Ok(())
}
