//! The command line: one file per verb.

mod api;
pub mod audit;
pub mod check;
pub mod client;
pub mod completions;
pub mod explain;
pub mod gateway;
pub mod management_token;
mod migrate;
pub mod output;
pub mod practice;
pub mod routes;
pub mod schema;
pub mod serve;
pub mod signing_key;
pub mod user;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::admin::Local;
use crate::config::{self, Config, Sources};
use crate::lifecycle::Lifecycle;
use crate::manage::Api;
use crate::scope::ScopeRegistry;
use crate::store::{self, Actor, Store};

/// What the verbs work with that manage access.
pub struct Management {
    /// Whom they ask.
    pub api: Api,
    /// JSON for programs instead of tables for people.
    pub json: bool,
}

/// What the verbs work with that are about the store itself.
pub struct Context {
    /// Where things are looked up.
    pub store: Arc<dyn Store>,
    /// What changes them.
    pub lifecycle: Lifecycle,
    /// What signing keys are made by.
    pub oauth: Option<config::OAuth>,
    /// JSON for programs instead of tables for people.
    pub json: bool,
    /// Who does it, for the audit.
    pub actor: Actor,
}

/// The API gateway of SigmaMD: decides who may pass, now, and revokes at once
#[derive(Debug, Parser)]
#[command(name = "sigmagate", version)]
struct Cli {
    /// The gateway's settings; left out: `config/gateway.toml` if there is one, else the defaults
    #[arg(long, global = true, value_name = "FILE", env = "SIGMAGATE_CONFIG")]
    config: Option<PathBuf>,
    /// The route map; left out: `routes.toml` beside the settings
    #[arg(long, global = true, value_name = "FILE", env = "SIGMAGATE_ROUTES")]
    routes: Option<PathBuf>,
    /// The store to work on, in the place of the one that the settings name: `sqlite://PATH` or `postgres://…`
    #[arg(long, global = true, value_name = "URL", env = "SIGMAGATE_DATABASE")]
    database: Option<String>,
    /// Answer in JSON, for programs
    #[arg(long, global = true)]
    json: bool,
    #[command(flatten)]
    management: api::Options,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the gateway
    Serve,
    /// Run the gateway on an embedded store, in front of an example service, with a practice to try things on
    Demo(crate::demo::Args),
    /// Run several gateways on one PostgreSQL, each a process of its own, with a practice to try things on
    Fleet(crate::demo::fleet::Args),
    /// Run the example service of the demo alone
    Upstream {
        /// Where; port 0 takes a free one
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9001")]
        listen: std::net::SocketAddr,
    },
    /// Prove the configuration without running it
    Check(check::Args),
    /// List the routes
    Routes(routes::Args),
    /// Say what each check would find for a request
    Explain(explain::Args),
    /// Print the JSON Schema of a configuration file
    Schema(schema::Args),
    /// Create the database or bring its schema up to date
    Migrate(migrate::Args),
    #[command(flatten)]
    Manage(Manage),
    /// The keys that sign access tokens
    SigningKey(signing_key::Args),
    /// Mint a token for the management API
    ManagementToken(management_token::Args),
    /// The ledger of changes
    Audit(audit::Args),
    /// Print the completions of a shell
    Completions(completions::Args),
}

/// Those that call the management API.
#[derive(Debug, Subcommand)]
enum Manage {
    /// Practices and their API access
    Practice(practice::Args),
    /// Team members and their API access
    User(user::Args),
    /// Clients and their secrets
    Client(client::Args),
    /// Who the caller is, and how their own API access stands
    Me,
    /// The gateways of the fleet, and what is in force on each
    Nodes,
    /// Why a request was refused
    Decision(gateway::DecisionArgs),
    /// The route map of a running gateway
    Config(gateway::ConfigArgs),
}

impl Manage {
    async fn run(self, management: &Management) -> anyhow::Result<()> {
        match self {
            Self::Practice(args) => practice::run(args, management).await,
            Self::User(args) => user::run(args, management).await,
            Self::Client(args) => client::run(args, management).await,
            Self::Me => gateway::me(management).await,
            Self::Nodes => gateway::nodes(management).await,
            Self::Decision(args) => gateway::decision(args, management).await,
            Self::Config(args) => gateway::config(args, management).await,
        }
    }
}

/// Runs the command line; returns the exit code: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 conflict.
pub fn run(args: impl IntoIterator<Item = OsString>) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed pipe leaves nobody to tell.
            let _ = error.print();
            return u8::try_from(error.exit_code()).unwrap_or(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("control").enable_all().build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(error) => Err(anyhow::Error::from(error).context("cannot start the runtime")),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr(), "error: {error:#}");
        output::exit_code(&error)
    })
}

impl Cli {
    async fn run(self) -> anyhow::Result<u8> {
        let sources = self.sources();
        let mut stdout = std::io::stdout();
        match self.verb {
            Verb::Serve => serve::run(&sources, self.database.as_deref()).await.map(|()| 0),
            Verb::Demo(args) => crate::demo::run(args).await.map(|()| 0),
            Verb::Fleet(args) => crate::demo::fleet::run(args, self.database.as_deref()).await.map(|()| 0),
            Verb::Upstream { listen } => crate::demo::fleet::run_upstream(listen).await.map(|()| 0),
            Verb::Check(args) => check::run(&args, &sources, self.json, &mut stdout),
            Verb::Routes(args) => routes::run(&args, &sources, self.json, &mut stdout),
            Verb::Schema(args) => schema::run(&args, &mut stdout),
            Verb::Completions(args) => completions::run::<Self>(&args, &mut stdout),
            Verb::Migrate(args) => migrate::run(
                args,
                &config::load_gateway(sources.gateway.as_deref(), environment(self.database.as_deref()))?.store,
                self.json,
            )
            .await
            .map(|()| 0),
            Verb::Explain(args) => {
                let registry = Arc::new(ScopeRegistry::default());
                let config = config::load_to_tell(&sources, environment(self.database.as_deref()), &registry)?;
                let store = store::open(&config.gateway.store.url, &config.gateway.store.fleet, false).await?;
                let admitted = explain::run(&args, &config.routes.table, registry, &*store, self.json, &mut stdout).await?;
                Ok(u8::from(!admitted))
            }
            Verb::Manage(verb) => {
                let management = management(&self.management, self.database.as_deref(), &sources, self.json).await?;
                verb.run(&management).await.map(|()| 0)
            }
            Verb::SigningKey(args) => signing_key::run(args, &context(self.database, &sources, self.json).await?).await.map(|()| 0),
            Verb::ManagementToken(args) => {
                management_token::run(args, &context(self.database, &sources, self.json).await?).await.map(|()| 0)
            }
            Verb::Audit(args) => audit::run(args, &context(self.database, &sources, self.json).await?).await.map(|()| 0),
        }
    }

    fn sources(&self) -> Sources {
        let usual = PathBuf::from("config/gateway.toml");
        let gateway = self.config.clone().or_else(|| usual.exists().then_some(usual));
        let beside = gateway.as_deref().and_then(Path::parent).unwrap_or(Path::new("config")).join("routes.toml");
        Sources { routes: self.routes.clone().unwrap_or(beside), gateway }
    }
}

/// The environment, with `--database` as what it is: an override of one setting.
fn environment(database: Option<&str>) -> impl Iterator<Item = (OsString, OsString)> {
    let given = database.map(|url| (config::DATABASE_VARIABLE.into(), url.into()));
    let overridden = given.is_some();
    // Not `vars`, which panics at the first variable that is not UTF-8, whoever it is for.
    std::env::vars_os().filter(move |(name, _)| !overridden || name != config::DATABASE_VARIABLE).chain(given)
}

/// Both files, and the environment over them.
fn load(sources: &Sources, database: Option<&str>, registry: &ScopeRegistry) -> anyhow::Result<Config> {
    Ok(config::load(sources, environment(database), registry)?)
}

/// The management API: of a running gateway, or in process.
async fn management(options: &api::Options, database: Option<&str>, sources: &Sources, json: bool) -> anyhow::Result<Management> {
    let api = if let Some(remote) = options.remote()? {
        Api::Remote(remote)
    } else {
        let lifecycle = context(database.map(str::to_owned), sources, json).await?.lifecycle;
        Api::Local(Box::new(match options.user() {
            Some(user) => Local::user(lifecycle, user).await?,
            None => Local::operator(lifecycle),
        }))
    };
    Ok(Management { api, json })
}

/// The store that a verb works on. The route map need not be there for that.
async fn context(database: Option<String>, sources: &Sources, json: bool) -> anyhow::Result<Context> {
    let gateway = config::load_gateway(sources.gateway.as_deref(), environment(database.as_deref()))?;
    let store = store::open(&gateway.store.url, &gateway.store.fleet, gateway.store.migrate).await?;
    let lifecycle = Lifecycle::new(Arc::clone(&store), gateway.store.secret_pepper).with_key_networks(&gateway.key_networks);
    Ok(Context { store, lifecycle, oauth: gateway.oauth, json, actor: Actor { name: "operator".into(), origin: "cli".into() } })
}

#[cfg(test)]
mod tests;
