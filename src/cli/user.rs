//! `sigmagate user`: team members and their API access.

use std::io;

use super::Context;
use super::output::{print_json, print_receipt, print_table, table};
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
    /// Put a user on the team of a practice, with API access off, or change their role
    Put {
        /// SigmaMD's id of the user
        user: UserId,
        /// The practice
        #[arg(long)]
        practice: PracticeId,
        /// `admin` or `member`
        #[arg(long, default_value = "member")]
        role: Role,
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
    },
    /// Take a user off the team; their personal clients stop
    Remove {
        /// The user
        user: UserId,
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
/// What the life cycle or the store says.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (lifecycle, by) = (&context.lifecycle, &context.actor);
    let (done, receipt) = match args.verb {
        Verb::List { practice } => {
            let users = context.store.users(&practice).await?;
            let out = &mut io::stdout().lock();
            if context.json {
                return print_json(out, &users);
            }
            let mut table = table(&["USER", "ROLE", "API ACCESS", "LEFT"]);
            for user in users {
                let left = user.left_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
                let access = if user.api_access { "on" } else { "off" };
                table.add_row([user.id.as_str(), user.role.as_str(), access, &left]);
            }
            return print_table(out, &table, "The practice has no user yet: `sigmagate user put ID --practice PRACTICE` adds one.");
        }
        Verb::Put { user, practice, role } => {
            let receipt = lifecycle.put_user(&practice, &user, role, by).await?;
            (format!("User `{user}` is `{role}` of practice `{practice}`."), receipt)
        }
        Verb::Access { user, access } => {
            let on = matches!(access, Access::On);
            let receipt = lifecycle.set_user_access(&user, on, by).await?;
            (format!("API access of user `{user}` is {}.", if on { "on" } else { "off" }), receipt)
        }
        Verb::Remove { user } => (format!("User `{user}` is off the team."), lifecycle.remove_user(&user, by).await?),
    };
    print_receipt(&mut io::stdout().lock(), context.json, &done, &receipt)
}
