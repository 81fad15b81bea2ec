//! `sigmagate demo`: the main job in one command, on the embedded store, in front of an example service.

pub mod fleet;
mod provision;
pub mod upstream;

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cache::KeyRing;
use crate::clock::now;
use crate::config::{self, Sources};
use crate::manage::{Api, Remote, Trust};
use crate::scope::ScopeRegistry;
use crate::server::{self, Server, Signals};
use crate::store::{SqliteStore, Store};
use crate::telemetry;
use crate::token::Manager;
use provision::Demo;

/// How long the token is good for with which the demo provisions.
const TOKEN_LIFETIME: Duration = Duration::from_mins(10);

/// The settings of `sigmagate demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep everything in this folder, and go on with what it holds; left out: a temporary one, removed at the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Where applications connect; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where operators connect; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8081")]
    management_listen: SocketAddr,
    /// A service of your own to stand in front of, in the place of the example.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting, with what to do about it.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let (_temporary, dir) = if let Some(dir) = &args.data {
        fs::create_dir_all(dir).with_context(|| format!("cannot make the folder `{}`: choose another with --data", dir.display()))?;
        (None, dir.canonicalize()?)
    } else {
        let temporary =
            tempfile::Builder::new().prefix("sigmagate-demo-").tempdir().context("cannot make a temporary folder: give one with --data")?;
        let dir = temporary.path().to_owned();
        (Some(temporary), dir)
    };
    let stop_upstream = tokio::sync::oneshot::channel::<()>();
    let upstream_url = if let Some(url) = &args.upstream {
        url.trim_end_matches('/').to_owned()
    } else {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.context("no free port for the example service")?;
        let url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(upstream::serve(listener, async {
            let _ = stop_upstream.1.await;
        }));
        url
    };
    let sources = write_config(&dir, &args, &upstream_url)?;
    let registry = Arc::new(ScopeRegistry::default());
    let config = config::load(&sources, std::iter::empty(), &registry)?;
    // Whoever edits the route file is told what is wrong with it.
    telemetry::init(&config.gateway.telemetry)?;
    let database = dir.join("gateway.db");
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(&format!("sqlite://{}", database.display()), true).await?);
    let oauth = config.gateway.oauth.clone();
    let keys = Arc::clone(&store);
    let mut signals = Signals::new()?;
    let server = tokio::select! {
        started = Server::start(config, &sources, registry, store) => started?,
        () = signals.stop() => return Ok(()),
    };
    // With tokens as `sigmagate management-token` mints them, at the listener where operators connect.
    let management_url = format!("http://{}", server.management_address());
    let ring = oauth.map(|oauth| async move { anyhow::Ok(KeyRing::opened(keys.signing_keys().await?, &oauth.master_key)) });
    let ring = ring.context("the demo has a master key")?.await?;
    let calling = |manager: Manager| {
        let token = ring.management_token(&manager, now(), TOKEN_LIFETIME)?;
        let (token, _) = token.context("no signing key signs yet")?;
        Ok(Api::Remote(Remote::new(&management_url, &token, &Trust::default())?))
    };
    let operator = calling(Manager::Operator { name: "demo".into() })?;
    let as_user = async |id, practice| calling(Manager::User { id, practice, admin: false });
    let mut demo = provision::provision(&operator, as_user, &dir).await?;
    demo.gateway_url = format!("http://{}", server.addresses()[0]);
    demo.management_url = management_url;
    demo.upstream_url = upstream_url;
    demo.database_url = format!("sqlite://{}", database.display());
    save(&dir, "demo.json", &demo)?;
    let mut stdout = std::io::stdout().lock();
    write!(stdout, "{}", instructions(&demo, &dir))?;
    stdout.flush()?;
    drop(stdout);
    server::until_stopped(server, signals, None).await;
    drop(stop_upstream.0);
    Ok(())
}

/// Writes the configuration that the demo runs on, unless the folder has one: an operator may have edited it.
fn write_config(dir: &Path, args: &Args, upstream_url: &str) -> anyhow::Result<Sources> {
    let gateway = dir.join("gateway.toml");
    let text = format!(
        "[[listeners]]\naddress = \"{}\"\n\n[management]\naddress = \"{}\"\n\n[store]\nurl = \"sqlite://{}\"\n\n[oauth]\nmaster_key = {{ file = \"master.key\" }}\n\n[telemetry]\nlog = \"warn\"\nformat = \"text\"\naccess_log = false\n",
        args.listen,
        args.management_listen,
        dir.join("gateway.db").display()
    );
    fs::write(&gateway, text).with_context(|| format!("cannot write `{}`", gateway.display()))?;
    write_master_key(&dir.join("master.key"))?;
    let routes = dir.join("routes.toml");
    let text = match fs::read_to_string(&routes) {
        Ok(text) => with_upstream(&text, upstream_url),
        Err(_) => with_upstream(include_str!("demo/routes.toml"), upstream_url),
    };
    fs::write(&routes, text).with_context(|| format!("cannot write `{}`", routes.display()))?;
    Ok(Sources { gateway: Some(gateway), routes })
}

/// What signing keys are sealed with, unless the folder has it; for the owner's eyes only.
fn write_master_key(path: &Path) -> anyhow::Result<()> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).context("the operating system gives no random numbers")?;
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => Ok(file.write_all(STANDARD.encode(key).as_bytes())?),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot write `{}`", path.display())),
    }
}

/// The route file with the upstream where it is now; everything else as it was.
fn with_upstream(text: &str, url: &str) -> String {
    let Ok(mut document) = text.parse::<toml_edit::DocumentMut>() else { return text.to_owned() };
    document["upstreams"]["core"]["servers"] = toml_edit::value(toml_edit::Array::from_iter([url]));
    document.to_string()
}

/// Written whole and renamed, so that whoever waits for the file never reads half of it; for the owner's eyes only.
fn save(dir: &Path, name: &str, what: &impl serde::Serialize) -> anyhow::Result<()> {
    let (path, aside) = (dir.join(name), dir.join(format!("{name}.new")));
    let _ = fs::remove_file(&aside);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    file.write_all(serde_json::to_string_pretty(what)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(&aside, &path).with_context(|| format!("cannot write `{}`", path.display()))
}

fn instructions(demo: &Demo, dir: &Path) -> String {
    let mut text = String::new();
    let api = format!("{}/api/public/v1", demo.gateway_url);
    let client = |name: &str| &demo.clients[name];
    let basic = |name: &str| format!("-u {}:{}", client(name).client_id, client(name).client_secret);
    let wrong = crate::credential::Secret::generate();
    let database = &demo.database_url;
    let program = std::env::current_exe().map_or_else(|_| "sigmagate".into(), |path| path.display().to_string());
    let mut say = |what: &str, command: String| {
        let _ = writeln!(text, "# {what}\n{command}\n");
    };
    say("200: an app with the scope `billing` gets invoices", format!("curl -i {} {api}/billing/invoices", basic("billing")));
    say("403: the same app asks for clinical data", format!("curl -i {} {api}/patients", basic("billing")));
    say("200: an app with the scope `clinical`", format!("curl -i {} {api}/patients", basic("clinical")));
    say("200: a team member's personal key", format!("curl -i {} {api}/billing/invoices", basic("personal")));
    say(
        "200: an access token (OAuth 2.0), good for 15 minutes",
        format!(
            "TOKEN=$(curl -s {} -d grant_type=client_credentials {}/oauth/token | sed 's/.*\"access_token\":\"\\([^\"]*\\)\".*/\\1/')\ncurl -i -H \"Authorization: Bearer $TOKEN\" {api}/billing/invoices",
            basic("billing"),
            demo.gateway_url
        ),
    );
    say("401: a wrong secret", format!("curl -i -u {}:{} {api}/billing/invoices", client("billing").client_id, wrong.reveal()));
    say("401: a revoked app", format!("curl -i {} {api}/billing/invoices", basic("revoked")));
    say("401: no credential", format!("curl -i {api}/billing/invoices"));
    say("200: a public route", format!("curl -i {api}/docs"));
    say("404: no such route", format!("curl -i {} {}/nowhere", basic("all"), demo.gateway_url));
    say(
        "turn the member off and on: 403 and 200 for the personal key",
        format!(
            "{program} --database {database} user access {} off --practice {}\n{program} --database {database} user access {} on --practice {}",
            demo.users.member, demo.practice_id, demo.users.member, demo.practice_id
        ),
    );
    say(
        "turn the whole practice off and on",
        format!(
            "{program} --database {database} practice disable {}\n{program} --database {database} practice enable {}",
            demo.practice_id, demo.practice_id
        ),
    );
    say(
        "revoke an app for good: the very next request is a 401",
        format!("{program} --database {database} client revoke {}", client("all").client_id),
    );
    say(
        "why would a request be refused?",
        format!(
            "{program} --database {database} explain --routes {}/routes.toml --client {} /api/public/v1/patients",
            dir.display(),
            client("billing").client_id
        ),
    );
    say(
        "the management API, as an operator",
        format!(
            "MANAGE=$({program} --config {}/gateway.toml management-token)\ncurl -i -H \"Authorization: Bearer $MANAGE\" {}/v1/practices/{}/clients",
            dir.display(),
            demo.management_url,
            demo.practice_id
        ),
    );
    format!(
        "sigmagate demo\n  gateway     {}\n  management  {}  (/v1, /openapi.json, /metrics, /healthz, /readyz)\n  upstream    {}\n  data        {}  (demo.json; edit routes.toml and it takes effect)\n\n{text}",
        demo.gateway_url,
        demo.management_url,
        demo.upstream_url,
        dir.display()
    )
}
