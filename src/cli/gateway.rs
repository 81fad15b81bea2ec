//! `sigmagate nodes`, `decision`, `config` and `me`: what a gateway tells, and who somebody is to it.

use std::io::{self, Write};

use super::Management;
use super::output::{print_json, print_table, table, text};

/// Look at the route map of a running gateway, or have it read again
#[derive(Debug, clap::Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    verb: ConfigVerb,
}

#[derive(Debug, clap::Subcommand)]
enum ConfigVerb {
    /// Show the route map in force
    Show,
    /// Take up the route file as it is now; a wrong one changes nothing
    Reload,
}

/// Why was a request refused?
#[derive(Debug, clap::Args)]
pub struct DecisionArgs {
    /// `X-Request-Id` of its answer
    #[arg(value_parser = request_id)]
    request_id: String,
}

fn request_id(text: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { Ok(text.to_owned()) } else { Err("a request id has 1 to 64 letters, digits and hyphens".to_owned()) }
}

/// Lists the gateways of the fleet.
///
/// # Errors
/// What the API says.
pub async fn nodes(management: &Management) -> anyhow::Result<()> {
    let nodes = management.api.get("/v1/nodes").await?;
    let out = &mut io::stdout().lock();
    if management.json {
        return print_json(out, &nodes["items"]);
    }
    let mut table = table(&["NODE", "NAME", "VERSION", "SINCE", "APPLIED", "BEHIND", "MAY ANSWER FOR"]);
    for node in nodes["items"].as_array().into_iter().flatten() {
        let of = |name: &str| text(&node[name]);
        let bound = format!("{} ms", node["bound_ms"]);
        table.add_row([of("node_id"), of("name"), of("version"), of("started_at"), of("applied"), of("behind"), bound]);
    }
    print_table(out, &table, "No gateway is running.")
}

/// Tells why a request was refused.
///
/// # Errors
/// What the API says.
pub async fn decision(args: DecisionArgs, management: &Management) -> anyhow::Result<()> {
    let decision = management.api.get(&format!("/v1/decisions/{}", args.request_id)).await?;
    let out = &mut io::stdout().lock();
    if management.json {
        return print_json(out, &decision);
    }
    let denial = &decision["denial"];
    for (label, value) in [
        ("practice", &decision["practice_id"]),
        ("client", &denial["client_id"]),
        ("user", &denial["user_id"]),
        ("at", &denial["at"]),
        ("from", &denial["address"]),
        ("method", &denial["method"]),
        ("path", &denial["path"]),
        ("route", &denial["route"]),
        ("status", &denial["status"]),
        ("reason", &denial["reason"]),
        ("revision", &denial["revision"]),
    ] {
        writeln!(out, "{label:<10} {}", text(value))?;
    }
    writeln!(out)?;
    let mut table = table(&["CHECK", "PASSED"]);
    for check in decision["checks"].as_array().into_iter().flatten() {
        table.add_row([text(&check["check"]), if check["passed"] == true { "yes" } else { "no" }.to_owned()]);
    }
    print_table(out, &table, "")
}

/// Shows or reloads the route map.
///
/// # Errors
/// What the API says.
pub async fn config(args: ConfigArgs, management: &Management) -> anyhow::Result<()> {
    let out = &mut io::stdout();
    match args.verb {
        ConfigVerb::Reload => {
            let reloaded = management.api.post("/v1/config/reload", None).await?;
            if management.json {
                return print_json(out, &reloaded);
            }
            writeln!(out, "The route map is in force: the {}th since the start.", reloaded["generation"])?;
            Ok(())
        }
        ConfigVerb::Show => {
            let config = management.api.get("/v1/config").await?;
            if management.json {
                return print_json(out, &config);
            }
            let mut table = table(&["PREFIX", "SCOPES", "UPSTREAM"]);
            for route in config["routes"].as_array().into_iter().flatten() {
                let scopes = if route["public"] == true { "public".to_owned() } else { text(&route["scopes"]) };
                table.add_row([text(&route["prefix"]), scopes, text(&route["upstream"])]);
            }
            print_table(out, &table, "There is no route.")
        }
    }
}

/// Says who the caller is, and how their own access stands.
///
/// # Errors
/// What the API says.
pub async fn me(management: &Management) -> anyhow::Result<()> {
    let me = management.api.get("/v1/me/api-access").await?;
    let out = &mut io::stdout().lock();
    if management.json {
        return print_json(out, &me);
    }
    let (user, practice) = (&me["user"], &me["practice"]);
    for (label, value) in [
        ("user", text(&user["user_id"])),
        ("name", text(&user["name"])),
        ("role", text(&user["role"])),
        ("practice", text(&practice["practice_id"])),
        ("practice's API access", text(&practice["api_access"])),
        ("own API access", if user["api_access"] == true { "on" } else { "off" }.to_owned()),
    ] {
        writeln!(out, "{label:<22} {value}")?;
    }
    Ok(())
}
