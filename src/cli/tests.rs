use clap::{Parser, Subcommand};

use super::*;
use crate::id::ClientId;
use crate::store::SqliteStore;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    #[command(flatten)]
    Manage(Manage),
    SigningKey(signing_key::Args),
    Audit(audit::Args),
}

async fn call(context: &Context, line: &str) -> u8 {
    let Ok(cli) = Cli::try_parse_from(std::iter::once("sigmagate").chain(line.split(' '))) else { return 2 };
    let lifecycle = context.lifecycle.clone();
    let result = match cli.verb {
        Verb::Manage(verb) => verb.run(&Management { api: Api::Local(Box::new(Local::operator(lifecycle))), json: context.json }).await,
        Verb::SigningKey(args) => signing_key::run(args, context).await,
        Verb::Audit(args) => audit::run(args, context).await,
    };
    result.map_or_else(|error| output::exit_code(&error), |()| 0)
}

#[test]
fn the_verbs_hang_together() {
    <Cli as clap::CommandFactory>::command().debug_assert();
}

#[tokio::test]
async fn every_verb_works_and_its_exit_code_says_how_it_went() {
    let dir = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(dir.path().join("gateway.db").to_str().unwrap(), true).await.unwrap());
    let actor = Actor { name: "operator".into(), origin: "cli".into() };
    let mut context = Context { lifecycle: Lifecycle::new(store.clone(), None), store: store.clone(), oauth: None, json: false, actor };
    for (line, want) in [
        ("practice list", 0),
        ("practice show p", 3),
        ("practice approve p", 3),
        ("practice create p --name Practice", 0),
        ("practice create p/q", 2),
        ("client create --practice p --name n --scope billing", 4),
        ("practice request p", 0),
        ("practice enable p", 4),
        ("practice approve p", 0),
        ("practice disable p", 0),
        ("practice approve p", 4),
        ("practice enable p", 0),
        ("user put u --practice p --role admin", 0),
        ("user put u --practice p --role owner", 2),
        ("client create --practice p --own --name n --scope all", 2),
        ("client create --own --name n --scope all", 1),
        ("user access u on --practice p", 0),
        ("user access nobody on --practice p", 3),
        ("user access u on", 2),
        ("client create --practice p --name n", 2),
        ("client create --practice p --name n --scope Billing", 2),
        ("client create --practice p --name n --scope billing --expires 2001-01-01T00:00:00Z", 2),
        ("client create --practice p --name n --scope billing tasks --allow 192.0.2.7 --tier gold --expires 2999-01-01T00:00:00Z", 0),
        ("client list --practice p", 0),
        ("client list --practice q", 3),
        ("user list --practice p", 0),
        ("user remove u --practice p", 0),
        ("nodes", 0),
        ("me", 1),
        ("practice disable p --dry-run", 0),
        ("practice usage p --from 2026-01-01 --to 2026-01-31", 0),
        ("practice usage p --from yesterday", 2),
        ("practice usage p --from 2026-02-01 --to 2026-01-31", 2),
        ("practice denials p", 0),
        ("practice ledger p --limit 3", 0),
        ("practice ledger q", 3),
        ("decision nobody-knows", 3),
        ("decision a/b", 2),
        ("config show", 4),
        ("config reload", 4),
        ("signing-key list", 0),
        ("signing-key rotate", 2),
        ("signing-key revoke short", 2),
        ("signing-key revoke AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 3),
        ("signing-key revoke -AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 3),
        ("signing-key revoke --hAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", 3),
        ("audit list", 0),
        ("audit verify --practice p", 0),
    ] {
        context.json = !context.json;
        assert_eq!(call(&context, line).await, want, "{line}");
    }
    let clients = store.clients(None, None).await.unwrap();
    let id = clients.iter().find(|client| client.owner.is_none()).unwrap().id;
    let unknown = ClientId::from_random([7; ClientId::RANDOM]);
    for (line, want) in [
        (format!("client show {id}"), 0),
        (format!("client show {unknown}"), 3),
        (format!("client edit {id}"), 2),
        (format!("client edit {id} --name m --allow-any --standard-tier --never-expires"), 0),
        (format!("client edit {id} --allow 192.0.2.0/24 --allow-any"), 2),
        (format!("client rotate {id} --overlap 24h"), 0),
        (format!("client rotate {id} --overlap 2h"), 2),
        (format!("client end-secret {id} 1"), 0),
        (format!("client end-secret {id} 9"), 3),
        (format!("client revoke {id}"), 0),
        (format!("client revoke {id}"), 0),
        (format!("client rotate {id}"), 4),
    ] {
        assert_eq!(call(&context, &line).await, want, "{line}");
    }
    let client = store.client(id).await.unwrap();
    assert!(client.revoked_at.is_some() && client.tier.is_none() && client.allowed_addresses.is_empty());
    assert_eq!(client.secrets.len(), 2);
    assert!(client.secrets[1].expires_at <= client.revoked_at, "the first secret was ended before its overlap");
}
