//! `sigmagate client`: the credentials of applications.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context as _;
use http::Method;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use super::Management;
use super::output::{Usage, in_force, print_changed, print_json, print_table, table, text};
use crate::clock::Timestamp;
use crate::id::{ClientId, PracticeId};
use crate::lifecycle::{Overlap, parse_network};
use crate::scope::ScopeToken;
use crate::token::KeySet;

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
    List(Whose),
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

/// Whose clients: a practice's, or the caller's own
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Whose {
    /// Those of this practice
    #[arg(long)]
    practice: Option<PracticeId>,
    /// The personal ones of whoever calls, which nobody else sees: by a token of theirs, or `--as USER`
    #[arg(long)]
    own: bool,
}

impl Whose {
    fn path(&self) -> String {
        self.practice.as_ref().map_or_else(|| "/v1/me/clients".to_owned(), |practice| format!("/v1/practices/{practice}/clients"))
    }
}

#[derive(Debug, clap::Args)]
struct Create {
    #[command(flatten)]
    whose: Whose,
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
    /// Says where they are, if that is given.
    fn say(self, body: &mut Map<String, Value>) -> anyhow::Result<()> {
        if let Some(url) = self.jwks_url {
            body.insert("jwks_uri".into(), url.into());
        }
        if let Some(path) = self.jwks {
            let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
            let refused = |why: &dyn std::fmt::Display| Usage(format!("the keys of the client are not taken: {why}"));
            // What is no set, or no set to everybody, is not to become one on the way.
            KeySet::from_jwks(text.as_bytes()).map_err(|error| refused(&error))?;
            let keys = serde_json::from_str(&text).map_err(|error| refused(&error))?;
            body.insert("jwks".into(), keys);
        }
        Ok(())
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

impl Create {
    fn body(self) -> anyhow::Result<Value> {
        let mut body = Map::new();
        body.insert("name".into(), self.name.into());
        body.insert("scopes".into(), texts(&self.scopes));
        body.insert("allowed_addresses".into(), texts(&self.allow));
        body.insert("tier".into(), self.tier.into());
        body.insert("expires_at".into(), json!(self.expires));
        self.keys.say(&mut body)?;
        Ok(body.into())
    }
}

impl Edit {
    fn body(self) -> anyhow::Result<Value> {
        let mut body = Map::new();
        if let Some(name) = self.name {
            body.insert("name".into(), name.into());
        }
        if !self.scopes.is_empty() {
            body.insert("scopes".into(), texts(&self.scopes));
        }
        if self.allow_any || !self.allow.is_empty() {
            body.insert("allowed_addresses".into(), texts(&self.allow));
        }
        if self.standard_tier || self.tier.is_some() {
            body.insert("tier".into(), self.tier.into());
        }
        if self.never_expires || self.expires.is_some() {
            body.insert("expires_at".into(), json!(self.expires));
        }
        if self.no_keys {
            body.insert("jwks".into(), Value::Null);
        }
        self.keys.say(&mut body)?;
        if body.is_empty() {
            let options = "--name, --scope, --allow, --allow-any, --tier, --standard-tier, --expires, --never-expires, --jwks, --jwks-url or --no-keys";
            return Err(Usage(format!("nothing to change: give {options}")).into());
        }
        Ok(body.into())
    }
}

fn texts<T: std::fmt::Display>(items: &[T]) -> Value {
    items.iter().map(ToString::to_string).collect()
}

/// Runs the verb.
///
/// # Errors
/// What the API says.
pub async fn run(args: Args, management: &Management) -> anyhow::Result<()> {
    let (api, json) = (&management.api, management.json);
    let of = |client: ClientId| format!("/v1/clients/{client}");
    let (done, changed) = match args.verb {
        Verb::Create(create) => return self::create(create, management).await,
        Verb::List(whose) => return print_clients(&api.list(&whose.path(), usize::MAX).await?, json),
        Verb::Show { client } => return show(&api.get(&of(client)).await?, json),
        Verb::Rotate { client, overlap } => return rotate(client, overlap, management).await,
        Verb::Edit(edit) => {
            let client = edit.client;
            let changed = api.send(Method::PATCH, &of(client), Some(&edit.body()?)).await?;
            (format!("Client `{client}` is changed."), changed)
        }
        Verb::EndSecret { client, generation } => {
            let changed = api.send(Method::DELETE, &format!("{}/secrets/{generation}", of(client)), None).await?;
            (format!("Secret {generation} of client `{client}` no longer works."), changed)
        }
        Verb::Revoke { client } => {
            let changed = api.post(&format!("{}/revoke", of(client)), None).await?;
            (format!("Client `{client}` is revoked and no longer works. This is final."), changed)
        }
    };
    print_changed(&mut io::stdout().lock(), json, &done, &changed)
}

async fn create(create: Create, management: &Management) -> anyhow::Result<()> {
    let path = create.whose.path();
    let created = management.api.post(&path, Some(&create.body()?)).await?;
    let out = &mut io::stdout().lock();
    if management.json {
        return print_json(out, &created);
    }
    writeln!(out, "client id  {}", text(&created["client"]["client_id"]))?;
    writeln!(out, "secret     {}", text(&created["client_secret"]))?;
    writeln!(out, "{ONCE}")?;
    writeln!(out, "{}", in_force(&created["receipt"]))?;
    Ok(())
}

async fn rotate(client: ClientId, overlap: Overlap, management: &Management) -> anyhow::Result<()> {
    let body = json!({ "overlap": overlap.as_str() });
    let rotated = management.api.post(&format!("/v1/clients/{client}/secrets"), Some(&body)).await?;
    let out = &mut io::stdout().lock();
    if management.json {
        return print_json(out, &rotated);
    }
    writeln!(out, "client id  {client}")?;
    writeln!(out, "secret     {}", text(&rotated["client_secret"]))?;
    writeln!(out, "{ONCE}")?;
    match overlap {
        Overlap::None => writeln!(out, "Every earlier secret has ended.")?,
        _ => writeln!(out, "Earlier secrets end at {} at the latest.", text(&rotated["others_end"]))?,
    }
    writeln!(out, "{}", in_force(&rotated["receipt"]))?;
    Ok(())
}

fn print_clients(clients: &[Value], json: bool) -> anyhow::Result<()> {
    let out = &mut io::stdout().lock();
    if json {
        return print_json(out, &clients);
    }
    let mut table = table(&["CLIENT", "NAME", "STATUS", "SCOPES", "CREATED", "LAST USED"]);
    for client in clients {
        let of = |name: &str| text(&client[name]);
        table.add_row([of("client_id"), of("name"), of("status"), of("scopes"), of("created_at"), text(&client["last_used"]["at"])]);
    }
    print_table(out, &table, "There is no such client: `sigmagate client create` makes one.")
}

fn show(client: &Value, json: bool) -> anyhow::Result<()> {
    let out = &mut io::stdout().lock();
    if json {
        return print_json(out, client);
    }
    let of = |name: &str, without: &str| match text(&client[name]) {
        nothing if nothing == "-" => without.to_owned(),
        text => text,
    };
    let keys = match (&client["jwks"], &client["jwks_uri"]) {
        (Value::Null, Value::Null) => "-".to_owned(),
        (Value::Null, url) => text(url),
        (set, _) => format!("{} here", set["keys"].as_array().map_or(0, Vec::len)),
    };
    for (label, value) in [
        ("client id", of("client_id", "-")),
        ("name", of("name", "-")),
        ("status", of("status", "-")),
        ("practice", of("practice_id", "-")),
        ("owner", of("owner", "- (the practice's)")),
        ("scopes", of("scopes", "-")),
        ("addresses", of("allowed_addresses", "any")),
        ("tier", of("tier", "standard")),
        ("own keys", keys),
        ("created", of("created_at", "-")),
        ("expires", of("expires_at", "-")),
        ("revoked", of("revoked_at", "-")),
    ] {
        writeln!(out, "{label:<10} {value}")?;
    }
    writeln!(out)?;
    let mut table = table(&["SECRET", "CREATED", "ENDS", "USABLE"]);
    for secret in client["secrets"].as_array().into_iter().flatten() {
        let usable = if secret["usable"] == true { "yes" } else { "no" };
        table.add_row([text(&secret["generation"]), text(&secret["created_at"]), text(&secret["expires_at"]), usable.to_owned()]);
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
