//! `sigmagate management-token`: what scripts show the management API.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::json;

use super::Context;
use super::output::{Usage, print_json};
use crate::cache::KeyRing;
use crate::clock::now;
use crate::id::{PracticeId, UserId};
use crate::token::Manager;

/// Mint a token for the management API
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who the operator is, for the ledger
    #[arg(long, value_name = "NAME", default_value = "cli", conflicts_with = "user")]
    operator: String,
    /// A user, in the place of an operator
    #[arg(long, value_name = "USER", requires = "practice")]
    user: Option<UserId>,
    /// The practice of the user
    #[arg(long, value_name = "PRACTICE", requires = "user")]
    practice: Option<PracticeId>,
    /// The user acts as an admin of the practice, which they have to be
    #[arg(long, requires = "user")]
    admin: bool,
    /// How long it is good for, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u32).range(60..=86_400))]
    lifetime: u32,
}

/// Runs the verb.
///
/// # Errors
/// What the store says; [`Usage`] without a master key or a signing key.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let oauth = context.oauth.as_ref().ok_or_else(|| {
        Usage(
            "management tokens are signed with keys under `oauth.master_key`, which the settings do not have: name them with --config"
                .into(),
        )
    })?;
    let manager = match (args.user, args.practice) {
        (Some(id), Some(practice)) => Manager::User { id, practice, admin: args.admin },
        _ => Manager::Operator { name: args.operator },
    };
    let ring = KeyRing::opened(context.store.signing_keys().await?, &oauth.master_key);
    let lifetime = Duration::from_secs(args.lifetime.into());
    let (token, expires_at) = ring.management_token(&manager, now(), lifetime)?.ok_or_else(|| {
        Usage("there is no signing key that this master key opens: `sigmagate signing-key rotate --at-once` makes one".into())
    })?;
    let out = &mut io::stdout().lock();
    if context.json {
        return print_json(out, &json!({ "token": token, "expires_at": expires_at }));
    }
    writeln!(out, "{token}")?;
    Ok(())
}
