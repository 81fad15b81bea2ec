//! `sigmagate signing-key`: the keys that sign access tokens.

use std::io;
use std::time::Duration;

use super::Context;
use super::output::{Usage, print_json, print_receipt, print_table, table};
use crate::clock::now;
use crate::id::KeyId;

/// Manage the keys that sign access tokens
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List every key
    List,
    /// Make a key that takes over after `oauth.publish_ahead_secs`, so that those who check tokens know it by then
    Rotate {
        /// It signs at once, as after the key before it has leaked
        #[arg(long)]
        at_once: bool,
    },
    /// Take a key out of use for good, and every token that it has signed
    Revoke {
        /// The key
        // A thumbprint may begin with a hyphen.
        #[arg(allow_hyphen_values = true)]
        key: KeyId,
    },
}

/// Runs the verb.
///
/// # Errors
/// What the life cycle or the store says; [`Usage`] without a master key.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (lifecycle, by, out) = (&context.lifecycle, &context.actor, &mut io::stdout().lock());
    match args.verb {
        Verb::List => {
            let keys = context.store.signing_keys().await?;
            if context.json {
                return print_json(out, &keys);
            }
            let mut table = table(&["KEY", "ALGORITHM", "STATE", "CREATED", "SIGNS FROM"]);
            for key in keys {
                let state = match (key.revoked_at, key.signs_from) {
                    (Some(at), _) => format!("revoked {at}"),
                    (None, None) => "published".to_owned(),
                    (None, Some(from)) if from > now() => "planned".to_owned(),
                    (None, Some(_)) => "in use".to_owned(),
                };
                let from = key.signs_from.map_or_else(|| "-".to_owned(), |from| from.to_string());
                table.add_row([key.id.to_string(), key.algorithm.to_string(), state, key.created_at.to_string(), from]);
            }
            print_table(out, &table, "There is no signing key yet: a gateway with `oauth.master_key` makes one when it starts.")
        }
        Verb::Rotate { at_once } => {
            let oauth = context.oauth.as_ref().ok_or_else(|| {
                Usage("keys are sealed with `oauth.master_key`, which the settings do not have: name them with --config".to_owned())
            })?;
            let ahead = if at_once { Duration::ZERO } else { oauth.publish_ahead };
            let key = lifecycle.rotate_signing_key(&oauth.master_key, oauth.algorithm, ahead, by).await?;
            if context.json {
                return print_json(out, &key);
            }
            print_receipt(out, false, &format!("Key `{}` is published, and signs from {} on.", key.id, key.signs_from), &key.receipt)
        }
        Verb::Revoke { key } => {
            let receipt = lifecycle.revoke_signing_key(&key, by).await?;
            let done = format!(
                "Key `{key}` is revoked, and every token that it has signed. This is final. `signing-key rotate --at-once` makes another."
            );
            print_receipt(out, context.json, &done, &receipt)
        }
    }
}
