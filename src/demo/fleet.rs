//! `sigmagate fleet`: several gateways on one PostgreSQL, each a process of its own, in front of the example service.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::provision::{self, Credential, Users};
use super::{save, upstream, with_upstream};
use crate::admin::Local;
use crate::lifecycle::Lifecycle;
use crate::manage::Api;
use crate::store;

/// The settings of `sigmagate fleet`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep settings, logs and `fleet.json` in this folder.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// How many gateways.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    gateways: u8,
    /// Where each gateway's settings come from besides: a file whose text goes into each of theirs.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
}

/// What `fleet.json` says. Its shape is documented in the README and kept.
#[derive(Serialize)]
struct Fleet {
    gateway_urls: Vec<String>,
    management_urls: Vec<String>,
    upstream_url: String,
    database_url: String,
    practice_id: String,
    users: Users,
    clients: BTreeMap<String, Credential>,
    processes: Processes,
}

/// Process ids.
#[derive(Serialize)]
struct Processes {
    gateways: Vec<u32>,
    upstream: u32,
}

/// Serves the example service alone until SIGTERM or SIGINT, and says where.
///
/// # Errors
/// The address cannot be used.
pub async fn run_upstream(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("{listen} cannot be used"))?;
    print_line(&format!("http://{}", listener.local_addr()?))?;
    upstream::serve(listener, stopped()?).await?;
    Ok(())
}

/// Runs until SIGTERM or SIGINT, or until one of the processes ends by itself.
///
/// # Errors
/// Whatever keeps it from starting, with what to do about it.
pub async fn run(args: Args, database: Option<&str>) -> anyhow::Result<()> {
    let Some(url) = database.filter(|url| store::is_fleet(url)) else {
        bail!("a fleet needs a PostgreSQL of yours: give --database postgres://…, or run scripts/fleet, which starts one");
    };
    fs::create_dir_all(&args.data).with_context(|| format!("cannot make the folder `{}`", args.data.display()))?;
    let dir = args.data.canonicalize()?;
    let stop = stopped()?;
    let mut upstream = Process::start(&dir, "upstream", &["upstream", "--listen", "127.0.0.1:0"])?;
    let upstream_url = upstream.said(|line| line.starts_with("http://").then(|| line.to_owned())).await?;
    fs::write(dir.join("routes.toml"), with_upstream(include_str!("routes.toml"), &upstream_url))?;
    let more =
        args.settings.as_ref().map(fs::read_to_string).transpose().context("cannot read the file of --settings")?.unwrap_or_default();
    // Brought up to date once, before several would do it.
    let store = store::open(url, &store::Fleet::default(), true).await?;
    let mut gateways = Vec::new();
    for n in 1..=args.gateways {
        let settings = dir.join(format!("gateway-{n}.toml"));
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[management]\naddress = \"127.0.0.1:0\"\n[telemetry]\naccess_log = false\n[store]\nurl = {}\n{more}",
            toml_edit::Value::from(url)
        );
        fs::write(&settings, text)?;
        let settings = settings.to_string_lossy().into_owned();
        gateways.push(Process::start(&dir, &format!("gateway-{n}"), &["serve", "--config", &settings])?);
    }
    let (mut gateway_urls, mut management_urls) = (Vec::new(), Vec::new());
    for gateway in &mut gateways {
        gateway_urls.push(gateway.said(|line| address(line, "listening for applications")).await?);
        management_urls.push(gateway.said(|line| address(line, "listening for operators")).await?);
    }
    // In process: whether the gateways have a master key, so that there are management tokens, is for --settings to say.
    let lifecycle = Lifecycle::new(store, None);
    let operator = Api::Local(Box::new(Local::operator(lifecycle.clone())));
    let as_user = async |id, _| Ok(Api::Local(Box::new(Local::user(lifecycle.clone(), &id).await?)));
    let demo = provision::provision(&operator, as_user, &dir).await?;
    let processes = Processes { gateways: gateways.iter().map(|process| process.id).collect(), upstream: upstream.id };
    let fleet = Fleet {
        gateway_urls,
        management_urls,
        upstream_url,
        database_url: url.to_owned(),
        practice_id: demo.practice_id,
        users: demo.users,
        clients: demo.clients,
        processes,
    };
    save(&dir, "fleet.json", &fleet)?;
    say(&fleet, &dir)?;
    let ended = async {
        let mut waits: Vec<_> = gateways.iter_mut().chain(std::iter::once(&mut upstream)).map(|p| Box::pin(p.child.wait())).collect();
        std::future::poll_fn(|cx| {
            let any = waits.iter_mut().any(|wait| wait.as_mut().poll(cx).is_ready());
            if any { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    };
    let by_itself = tokio::select! {
        () = stop => false,
        () = ended => true,
    };
    for process in gateways.iter().chain(std::iter::once(&upstream)) {
        process.terminate();
    }
    let mut clean = true;
    for process in gateways.iter_mut().chain(std::iter::once(&mut upstream)) {
        clean &= process.child.wait().await?.success();
    }
    if by_itself || !clean {
        bail!("a process of the fleet ended by itself, or badly: see the logs in `{}`", dir.display());
    }
    Ok(())
}

/// One process of the fleet, and what it says.
struct Process {
    child: Child,
    id: u32,
    log: PathBuf,
}

impl Process {
    fn start(dir: &Path, name: &str, args: &[&str]) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let out = File::create(&log).with_context(|| format!("cannot write `{}`", log.display()))?;
        let child = Command::new(std::env::current_exe()?)
            .args(args)
            .stdin(Stdio::null())
            .stderr(out.try_clone()?)
            .stdout(out)
            // Ctrl-C is for the whole group; the fleet ends its processes itself, in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a process of the fleet")?;
        let id = child.id().context("a process that has just been started has an id")?;
        Ok(Self { child, id, log })
    }

    /// Waits for a line of its log that `find` finds something in.
    async fn said(&mut self, find: impl Fn(&str) -> Option<String>) -> anyhow::Result<String> {
        loop {
            let ended = self.child.try_wait()?;
            let text = fs::read_to_string(&self.log)?;
            // The last line may be half written.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            if let Some(found) = whole.lines().find_map(&find) {
                return Ok(found);
            }
            if ended.is_some() {
                bail!("a process of the fleet ended before it was ready:\n{text}");
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn terminate(&self) {
        // A process that has ended already needs no telling; its id is not used again before it was waited for.
        if let Some(pid) = i32::try_from(self.id).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

/// The URL in a log line of a gateway's.
fn address(line: &str, message: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["message"] == message).then(|| line["address"].as_str().map(|address| format!("http://{address}")))?
}

fn stopped() -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn print_line(text: &str) -> std::io::Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

fn say(fleet: &Fleet, dir: &Path) -> std::io::Result<()> {
    let mut text = format!("sigmagate fleet\n  upstream    {}\n  data        {}  (fleet.json, logs)\n", fleet.upstream_url, dir.display());
    for ((gateway, management), id) in fleet.gateway_urls.iter().zip(&fleet.management_urls).zip(&fleet.processes.gateways) {
        let _ = writeln!(text, "  gateway     {gateway}  management {management}  process {id}");
    }
    let program = std::env::current_exe().map_or_else(|_| "sigmagate".into(), |path| path.display().to_string());
    let all = &fleet.clients["all"];
    text.push_str("\n# 200 from every gateway\n");
    for gateway in &fleet.gateway_urls {
        let _ = writeln!(text, "curl -i -u {}:{} {gateway}/api/public/v1/billing/invoices", all.client_id, all.client_secret);
    }
    let _ = writeln!(
        text,
        "\n# revoke it: when this has answered, the very next request to any of them is a 401\n{program} --database '{}' client revoke {}",
        fleet.database_url, all.client_id
    );
    print_line(&text)
}
