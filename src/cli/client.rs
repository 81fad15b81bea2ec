//! `sigmagate client`: the credentials of applications.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use ipnet::IpNet;
use serde_json::json;

use super::Context;
use super::output::{Usage, in_force, print_json, print_receipt, print_table, table};
use crate::clock::{Timestamp, now};
use crate::credential::usable_at;
use crate::entity::{Client, ClientKeys};
use crate::id::{ClientId, PracticeId, UserId};
use crate::lifecycle::{NewClientRequest, Overlap, parse_network};
use crate::scope::ScopeToken;
use crate::store::ClientEdit;

const ONCE: &str = "The secret will not be shown again: keep it somewhere safe now.";

/// Manage clients: the credentials of applications
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Create a client and show its secret, once
    Create(Create),
    /// List clients, newest first, the revoked ones too
    List {
        /// Only those of this practice
        #[arg(long)]
        practice: Option<PracticeId>,
        /// Only the personal ones of this user
        #[arg(long)]
        owner: Option<UserId>,
    },
    /// Show one client and its secrets' dates
    Show {
        /// The client
        client: ClientId,
    },
    /// Change what is given, and nothing else
    Edit(Edit),
    /// Make a new secret and show it, once
    Rotate {
        /// The client
        client: ClientId,
        /// How long the old secret goes on working: `none`, `1h`, `24h` or `7d`
        #[arg(long, default_value = "none")]
        overlap: Overlap,
    },
    /// End one secret now
    EndSecret {
        /// The client
        client: ClientId,
        /// Which secret: 1 was the first
        generation: u32,
    },
    /// Take a client out of use for good
    Revoke {
        /// The client
        client: ClientId,
    },
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The practice whose data it reaches
    #[arg(long)]
    practice: PracticeId,
    /// The user who owns it; without, it is the practice's
    #[arg(long)]
    owner: Option<UserId>,
    /// A name for people
    #[arg(long)]
    name: String,
    /// A scope, as `billing` or `all`; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", required = true, num_args = 1.., value_delimiter = ',')]
    scopes: Vec<ScopeToken>,
    /// An address or CIDR block it may call from; may be repeated; any if none is given
    #[arg(long = "allow", value_name = "CIDR", num_args = 1.., value_delimiter = ',', value_parser = parse_network)]
    allow: Vec<IpNet>,
    /// The rate limit, by the name of a tier in the route file
    #[arg(long)]
    tier: Option<String>,
    /// When it ends by itself, as `2027-01-31T00:00:00Z`
    #[arg(long, value_name = "RFC3339")]
    expires: Option<Timestamp>,
    #[command(flatten)]
    keys: Keys,
}

/// Keys of the client's own, with which it gets tokens by signing instead of by its secret
#[derive(Debug, clap::Args)]
struct Keys {
    /// Its public keys for signed assertions (`private_key_jwt`): a file with a JWK set
    #[arg(long, value_name = "FILE")]
    jwks: Option<PathBuf>,
    /// Where its public keys are (a JWK set), of https: they are fetched when it shows who it is, and kept for 5 minutes; tokens got with a key that is withdrawn there live to their end, and end at once with another URL or none
    #[arg(long, value_name = "URL", conflicts_with = "jwks")]
    jwks_url: Option<String>,
}

impl Keys {
    fn read(self) -> anyhow::Result<Option<ClientKeys>> {
        if let Some(url) = self.jwks_url {
            return Ok(Some(ClientKeys::Url(url.into())));
        }
        let Some(path) = self.jwks else { return Ok(None) };
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        Ok(Some(ClientKeys::Jwks(text.trim().into())))
    }
}

#[derive(Debug, clap::Args)]
struct Edit {
    /// The client
    client: ClientId,
    /// A name for people
    #[arg(long)]
    name: Option<String>,
    /// All its scopes from now on; may be repeated
    #[arg(long = "scope", value_name = "SCOPE", num_args = 1.., value_delimiter = ',')]
    scopes: Vec<ScopeToken>,
    /// All the addresses it may call from, from now on; may be repeated
    #[arg(long = "allow", value_name = "CIDR", num_args = 1.., value_delimiter = ',', value_parser = parse_network, conflicts_with = "allow_any")]
    allow: Vec<IpNet>,
    /// It may call from any address
    #[arg(long)]
    allow_any: bool,
    /// The rate limit, by the name of a tier in the route file
    #[arg(long, conflicts_with = "standard_tier")]
    tier: Option<String>,
    /// The rate limit of the tier `standard`
    #[arg(long)]
    standard_tier: bool,
    /// When it ends by itself, as `2027-01-31T00:00:00Z`
    #[arg(long, value_name = "RFC3339", conflicts_with = "never_expires")]
    expires: Option<Timestamp>,
    /// It does not end by itself
    #[arg(long)]
    never_expires: bool,
    #[command(flatten)]
    keys: Keys,
    /// It has no keys of its own
    #[arg(long, conflicts_with_all = ["jwks", "jwks_url"])]
    no_keys: bool,
}

impl Edit {
    fn changes(self) -> anyhow::Result<(ClientId, ClientEdit)> {
        let keys = if self.no_keys { Some(ClientKeys::None) } else { self.keys.read()? };
        let edit = ClientEdit {
            name: self.name,
            scopes: (!self.scopes.is_empty()).then_some(self.scopes),
            allowed_addresses: (self.allow_any || !self.allow.is_empty()).then_some(self.allow),
            tier: (self.standard_tier || self.tier.is_some()).then_some(self.tier),
            expires_at: (self.never_expires || self.expires.is_some()).then_some(self.expires),
            keys,
            only_if: None,
        };
        let nothing = edit.name.is_none()
            && edit.scopes.is_none()
            && edit.allowed_addresses.is_none()
            && edit.tier.is_none()
            && edit.expires_at.is_none()
            && edit.keys.is_none();
        if nothing {
            return Err(
                Usage("nothing to change: give --name, --scope, --allow, --tier, --expires, --jwks or --jwks-url".to_owned()).into()
            );
        }
        Ok((self.client, edit))
    }
}

/// Runs the verb.
///
/// # Errors
/// What the life cycle or the store says.
pub async fn run(args: Args, context: &Context) -> anyhow::Result<()> {
    let (lifecycle, by) = (&context.lifecycle, &context.actor);
    let (done, receipt) = match args.verb {
        Verb::Create(create) => return self::create(create, context).await,
        Verb::List { practice, owner } => {
            // A practice that does not exist is a slip, not an empty list.
            if let Some(practice) = &practice {
                context.store.practice(practice).await?;
            }
            if let Some(owner) = &owner {
                context.store.user(owner).await?;
            }
            let clients = context.store.clients(practice.as_ref(), owner.as_ref()).await?;
            return print_clients(&clients, context.json);
        }
        Verb::Show { client } => return show(&context.store.client(client).await?, context.json),
        Verb::Rotate { client, overlap } => return rotate(client, overlap, context).await,
        Verb::Edit(edit) => {
            let (client, edit) = edit.changes()?;
            (format!("Client `{client}` is changed."), lifecycle.edit(client, edit, by).await?)
        }
        Verb::EndSecret { client, generation } => {
            let receipt = lifecycle.end_secret(client, generation, by).await?;
            (format!("Secret {generation} of client `{client}` no longer works."), receipt)
        }
        Verb::Revoke { client } => {
            let receipt = lifecycle.revoke(client, by).await?;
            (format!("Client `{client}` is revoked and no longer works. This is final."), receipt)
        }
    };
    print_receipt(&mut io::stdout().lock(), context.json, &done, &receipt)
}

async fn create(create: Create, context: &Context) -> anyhow::Result<()> {
    let request = NewClientRequest {
        practice: create.practice,
        owner: create.owner,
        name: create.name,
        scopes: create.scopes,
        allowed_addresses: create.allow,
        tier: create.tier,
        expires_at: create.expires,
        keys: create.keys.read()?.unwrap_or_default(),
    };
    let issued = context.lifecycle.create_client(request, &context.actor).await?;
    let out = &mut io::stdout().lock();
    if context.json {
        let secret = issued.secret.reveal();
        return print_json(
            out,
            &json!({ "client_id": issued.client.id, "client_secret": secret, "client": issued.client, "receipt": issued.receipt }),
        );
    }
    writeln!(out, "client id  {}", issued.client.id)?;
    writeln!(out, "secret     {}", issued.secret.reveal())?;
    writeln!(out, "{ONCE}")?;
    writeln!(out, "{}", in_force(&issued.receipt))?;
    Ok(())
}

async fn rotate(client: ClientId, overlap: Overlap, context: &Context) -> anyhow::Result<()> {
    let rotated = context.lifecycle.rotate(client, overlap, &context.actor).await?;
    let out = &mut io::stdout().lock();
    if context.json {
        return print_json(
            out,
            &json!({
                "client_id": client,
                "generation": rotated.generation,
                "client_secret": rotated.secret.reveal(),
                "others_end": rotated.others_end,
                "receipt": rotated.receipt,
            }),
        );
    }
    writeln!(out, "client id  {client}")?;
    writeln!(out, "secret     {}", rotated.secret.reveal())?;
    writeln!(out, "{ONCE}")?;
    match overlap {
        Overlap::None => writeln!(out, "Every earlier secret has ended.")?,
        _ => writeln!(out, "Earlier secrets end at {} at the latest.", rotated.others_end)?,
    }
    writeln!(out, "{}", in_force(&rotated.receipt))?;
    Ok(())
}

/// What a list says of a client in one word.
fn status(client: &Client, now: Timestamp) -> &'static str {
    if client.revoked_at.is_some() {
        "revoked"
    } else if usable_at(client.expires_at, now) {
        "active"
    } else {
        "expired"
    }
}

fn as_json(client: &Client, now: Timestamp) -> serde_json::Value {
    let mut value = serde_json::to_value(client).expect("a client has text keys only");
    value["status"] = status(client, now).into();
    value
}

fn join<T: std::fmt::Display>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn print_clients(clients: &[Client], json: bool) -> anyhow::Result<()> {
    let now = now();
    let out = &mut io::stdout().lock();
    if json {
        return print_json(out, &clients.iter().map(|client| as_json(client, now)).collect::<Vec<_>>());
    }
    let mut table = table(&["CLIENT", "NAME", "STATUS", "PRACTICE", "OWNER", "SCOPES", "CREATED"]);
    for client in clients {
        table.add_row([
            client.id.to_string(),
            client.name.to_string(),
            status(client, now).to_owned(),
            client.practice_id.to_string(),
            client.owner.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            join(&client.scopes),
            client.created_at.to_string(),
        ]);
    }
    print_table(out, &table, "There is no such client: `sigmagate client create` makes one.")
}

fn show(client: &Client, json: bool) -> anyhow::Result<()> {
    let now = now();
    let out = &mut io::stdout().lock();
    if json {
        return print_json(out, &as_json(client, now));
    }
    let moment = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let addresses = if client.allowed_addresses.is_empty() { "any".to_owned() } else { join(&client.allowed_addresses) };
    for (label, value) in [
        ("client id", client.id.to_string()),
        ("name", client.name.to_string()),
        ("status", status(client, now).to_owned()),
        ("practice", client.practice_id.to_string()),
        ("owner", client.owner.as_ref().map_or_else(|| "- (the practice's)".to_owned(), ToString::to_string)),
        ("scopes", join(&client.scopes)),
        ("addresses", addresses),
        ("tier", client.tier.as_deref().unwrap_or("standard").to_owned()),
        ("created", client.created_at.to_string()),
        ("expires", moment(client.expires_at)),
        ("revoked", moment(client.revoked_at)),
    ] {
        writeln!(out, "{label:<10} {value}")?;
    }
    writeln!(out)?;
    let mut table = table(&["SECRET", "CREATED", "ENDS"]);
    for secret in &client.secrets {
        table.add_row([secret.generation.to_string(), secret.created_at.to_string(), moment(secret.expires_at)]);
    }
    print_table(out, &table, "It has no secret.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_read_as_rfc_3339() {
        assert_eq!("2023-11-14T22:13:20.123Z".parse(), Ok(Timestamp(1_700_000_000_123)));
        assert!("tomorrow".parse::<Timestamp>().is_err());
    }
}
