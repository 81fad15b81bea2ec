//! `sigmagate explain`: every check that a request would meet, and what it would find.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

use crate::access::{CredentialFault, Denial, MalformedRequest, steps};
use crate::cache::Replica;
use crate::clock;
use crate::id::{ClientId, Revision};
use crate::route::{Method, NotFound, RequestTarget, Requirement, RouteTable};
use crate::scope::ScopeRegistry;
use crate::store::{self, Change, Store};

/// What to explain.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The method.
    #[arg(long, short = 'X', default_value = "GET")]
    method: String,
    /// The path, and the query if there is one, as the caller sends it.
    target: String,
    /// The client that calls; left out: a request without a credential.
    #[arg(long)]
    client: Option<ClientId>,
    /// The address that it calls from.
    #[arg(long, default_value = "127.0.0.1")]
    address: IpAddr,
}

#[derive(Serialize)]
struct Line {
    check: &'static str,
    result: &'static str,
    detail: String,
}

/// Explains one request by the very functions that decide, on the rows as they are in the store now. The secret is taken
/// to be right; rate limits, which only a running gateway knows, are left out.
///
/// # Errors
/// What the store cannot be asked.
pub async fn run(
    args: &Args,
    routes: &RouteTable,
    registry: Arc<ScopeRegistry>,
    store: &dyn Store,
    json: bool,
    out: &mut dyn Write,
) -> anyhow::Result<bool> {
    let (lines, denial) = explain(args, routes, registry, store).await?;
    let status = denial.as_ref().map_or("admitted".to_owned(), |denial| format!("{} {}", denial.status(), denial.code()));
    if json {
        let answer = serde_json::json!({
            "admitted": denial.is_none(),
            "status": denial.as_ref().map(Denial::status),
            "code": denial.as_ref().map(Denial::code),
            "reason": denial.as_ref().map(Denial::label),
            "checks": lines,
        });
        writeln!(out, "{}", serde_json::to_string_pretty(&answer)?)?;
    } else {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::NOTHING).set_header(["CHECK", "RESULT", "DETAIL"]);
        for line in &lines {
            table.add_row([line.check, line.result, &line.detail]);
        }
        writeln!(out, "{table}\n{} {} -> {status}", args.method, args.target)?;
    }
    Ok(denial.is_none())
}

async fn explain(
    args: &Args,
    routes: &RouteTable,
    registry: Arc<ScopeRegistry>,
    store: &dyn Store,
) -> anyhow::Result<(Vec<Line>, Option<Denial>)> {
    let mut lines = Vec::new();
    let mut end: Option<Denial> = None;
    let mut say = |check, denial: Option<&Denial>, detail: String| {
        lines.push(Line { check, result: if denial.is_none() { "pass" } else { "refuse" }, detail });
    };
    let target = match RequestTarget::parse(args.target.as_bytes()) {
        Ok(target) => target,
        Err(why) => {
            let denial = Denial::Malformed(MalformedRequest::Target(why.detail()));
            say("target", Some(&denial), why.to_string());
            return Ok((lines, Some(denial)));
        }
    };
    say("target", None, format!("canonical path `{}`", target.path()));
    let route = match routes.find(target.path(), Method::parse(args.method.as_bytes())) {
        Ok(route) => route,
        Err(why) => {
            let (check, denial) = match why {
                NotFound::NoRoute => ("route", Denial::NoRoute),
                NotFound::MethodNotAllowed(allow) => ("method", Denial::MethodNotAllowed(allow)),
            };
            let detail = if let Denial::MethodNotAllowed(allow) = &denial {
                format!("the prefix takes {allow}")
            } else {
                "no prefix covers it".into()
            };
            say(check, Some(&denial), detail);
            return Ok((lines, Some(denial)));
        }
    };
    say("route", None, format!("prefix `{}` of upstream `{}`, methods {}", route.prefix, route.upstream.name, route.methods));
    if matches!(route.requirement, Requirement::Public) {
        say("credential", None, "the route is public: nothing is asked for".into());
        return Ok((lines, None));
    }
    let Some(id) = args.client else {
        say("credential", Some(&Denial::CredentialMissing), "nothing presented".into());
        return Ok((lines, Some(Denial::CredentialMissing)));
    };
    let client = match store.client(id).await {
        Ok(client) => client,
        Err(store::Error::NotFound { .. }) => {
            let denial = Denial::CredentialInvalid(CredentialFault::UnknownClient);
            say("credential", Some(&denial), format!("there is no client `{id}`"));
            return Ok((lines, Some(denial)));
        }
        Err(error) => return Err(error.into()),
    };
    let now = clock::now();
    let usable: Vec<_> = client.secrets.iter().filter(|s| s.usable_at(now)).map(|s| s.generation.to_string()).collect();
    if usable.is_empty() {
        let denial = Denial::CredentialInvalid(CredentialFault::SecretEnded);
        say("credential", Some(&denial), "every secret of the client has ended".into());
        end = Some(denial);
    } else {
        say("credential", None, format!("secrets that work: generation {}", usable.join(", ")));
    }
    let mut changes = vec![Change::Client(id, Some(client.clone()))];
    let practice = store.practice(&client.practice_id).await.ok();
    let owner = match &client.owner {
        Some(owner) => store.user(owner).await.ok(),
        None => None,
    };
    changes.push(Change::Practice(client.practice_id.clone(), practice.clone()));
    if let Some(id) = &client.owner {
        changes.push(Change::User(id.clone(), owner.clone()));
    }
    let replica = Replica::new(registry, Arc::default());
    replica.apply(Revision(0), Revision(1), &changes);
    let facts = replica.peek(id).expect("it was applied just now").facts(args.address, now);
    let scopes = client.scopes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    for step in steps(route, &facts) {
        let detail = match step.check {
            crate::access::Check::Client => match (client.revoked_at, client.expires_at) {
                (Some(at), _) => format!("`{}`, revoked at {at}", client.name),
                (None, Some(at)) => format!("`{}`, expires at {at}", client.name),
                (None, None) => format!("`{}`, neither revoked nor expiring", client.name),
            },
            crate::access::Check::Practice => {
                format!(
                    "`{}` has API access `{}`",
                    client.practice_id,
                    practice.as_ref().map_or("none, since there is no such row", |p| p.api_access.as_str())
                )
            }
            crate::access::Check::Owner => match (&client.owner, facts.owner) {
                (Some(id), Some(owner)) => format!(
                    "`{id}`: API access {}, {}",
                    if owner.api_access { "on" } else { "off" },
                    if owner.on_team { "on the team" } else { "not on the team" }
                ),
                _ => "a practice-level client has no owner".into(),
            },
            crate::access::Check::Address if client.allowed_addresses.is_empty() => "any address".into(),
            crate::access::Check::Address => {
                format!(
                    "{} against {}",
                    args.address,
                    client.allowed_addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                )
            }
            crate::access::Check::Scope => format!("has `{scopes}`, the route asks for `{}`", route.scopes),
            // Of a moment, and seen by gateways: the tables do not tell.
            crate::access::Check::Fence => continue,
        };
        say(step.check.as_str(), step.denial.as_ref(), detail);
        end = end.or(step.denial);
    }
    Ok((lines, end))
}
