//! Config -> running services, bound addresses, shutdown. The only place that wires parts together.

mod files;
mod readiness;
mod signals;
mod takeover;
mod workers;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::admin;
use crate::bearer::{Bearers, Managers, Own};
use crate::cache::{Entries, Replica};
use crate::canary::{self, Canary};
use crate::clock;
use crate::config::{self, Config, Limits, Listener, Sources};
use crate::feed::{self, Heartbeat};
use crate::gate::{FailureBudget, Gate};
use crate::id::Revision;
use crate::jwks::{ClientKeySets, Fetcher};
use crate::lifecycle::Lifecycle;
use crate::limit::TierNames;
use crate::mail::Mailer;
use crate::metrics::{Metrics, TokenFigures};
use crate::oauth::OAuth;
use crate::proxy::{self, Active, Bound, Settings, Shared, Upkeep};
use crate::reload::{self, Certificates, Reloader};
use crate::scope::ScopeRegistry;
use crate::store::{self, Actor, Store};
use crate::tally::Tally;
use crate::telemetry::{AccessLog, Observer};
use crate::tls::{self, Listening};
use crate::token::Trust;
use signals::Asked;
pub use signals::Signals;
use takeover::Successor;
pub use takeover::{Program, Sockets};
use workers::Workers;

/// How often counts that nobody needs any more are forgotten.
const PRUNE: Duration = Duration::from_secs(60);

/// A running gateway.
pub struct Server {
    addresses: Vec<SocketAddr>,
    management: SocketAddr,
    reloader: Arc<Reloader>,
    status: watch::Receiver<Status>,
    stop: watch::Sender<bool>,
    data: proxy::Running,
    active: Arc<Active>,
    workers: Workers,
    feed: JoinHandle<()>,
    stop_feed: oneshot::Sender<()>,
    tally: JoinHandle<()>,
    stop_tally: oneshot::Sender<()>,
    mailer: JoinHandle<()>,
    admin: JoinHandle<()>,
    stop_admin: oneshot::Sender<()>,
    grace: Duration,
    delay: Duration,
    leaving: Arc<AtomicBool>,
    /// The listening sockets by their addresses in the settings, to be handed over.
    sockets: Vec<(SocketAddr, TcpListener)>,
    _watch: reload::Watch,
}

/// What the feed last said.
#[derive(Clone, Debug)]
enum Status {
    Joining,
    Live(Revision),
    Failed(String),
}

struct FeedObserver {
    status: watch::Sender<Status>,
    node: Arc<Mutex<Option<Arc<str>>>>,
    metrics: Arc<Metrics>,
    gate: Arc<Gate>,
}

impl feed::Observer for FeedObserver {
    fn joined(&self, node: &str) {
        *self.node.lock() = Some(node.into());
    }

    fn heartbeat(&self, heartbeat: Heartbeat) {
        match heartbeat {
            Heartbeat::Answered { asked, took, nodes } => {
                self.gate.share(nodes);
                self.metrics.heartbeat_answered(asked, took, nodes);
            }
            Heartbeat::Failed => self.metrics.heartbeat_failed(false),
            Heartbeat::Deposed => self.metrics.heartbeat_failed(true),
        }
    }

    fn live(&self, revision: Revision, took: Option<feed::Took>, entries: Option<Entries>) {
        self.metrics.feed_live(revision, entries);
        if let Some(took) = took {
            self.metrics.feed_took(took.asked, took.committed);
        }
        self.status.send_if_modified(|status| match status {
            Status::Live(known) if *known == revision => false,
            status => {
                *status = Status::Live(revision);
                true
            }
        });
    }

    fn hurried(&self, revision: Revision, took: feed::Took, entries: Entries) {
        self.metrics.feed_applied(revision, entries);
        self.metrics.feed_took(took.asked, took.committed);
        self.status.send_if_modified(|status| match status {
            Status::Live(known) if *known < revision => {
                *known = revision;
                true
            }
            // Only the line that vouches brings a node that was not live to life.
            _ => false,
        });
    }

    fn failed(&self, error: &store::Error) {
        let text = chain(error);
        self.metrics.feed_failed();
        tracing::warn!(error = %text, "the store cannot be followed");
        self.status.send_replace(Status::Failed(text));
    }

    fn stale(&self) {
        self.metrics.feed_stale();
        self.status.send_if_modified(|status| {
            let live = matches!(status, Status::Live(_));
            if live {
                *status = Status::Joining;
            }
            live
        });
    }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Server {
    /// Starts everything, and returns once the gateway is ready to admit.
    ///
    /// # Errors
    /// A port in use, a certificate that cannot be read, a store that cannot be followed: each says what to do. Nothing is
    /// left running.
    pub async fn start(config: Config, sources: &Sources, registry: Arc<ScopeRegistry>, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        Self::start_on(&mut Sockets::default(), config, sources, registry, store).await
    }

    /// The same, on the sockets of a gateway that is taken over.
    ///
    /// # Errors
    /// As of [`Self::start`].
    pub async fn start_on(
        inherited: &mut Sockets,
        config: Config,
        sources: &Sources,
        registry: Arc<ScopeRegistry>,
        store: Arc<dyn Store>,
    ) -> anyhow::Result<Self> {
        let gateway = config.gateway.clone();
        files::allow(&gateway.limits);
        let metrics = Metrics::new();
        let mut presented = Vec::new();
        let mut tls = |address: SocketAddr, listening: &Option<Listening>| {
            let live = listening.clone().map(|listening| tls::Live::load(listening).map(Arc::new)).transpose()?;
            presented.extend(live.clone().map(|live| (address.to_string(), live)));
            anyhow::Ok(live)
        };
        let mut sockets = Vec::new();
        let mut bind = |key: &str, address: SocketAddr| {
            let socket = bound(key, address, inherited.bind(address))?;
            sockets.push((address, socket.try_clone()?));
            anyhow::Ok(socket)
        };
        let mut listen = |listener: &Listener| {
            let socket = bind("listeners.address", listener.address)?;
            Ok(Bound::new(socket, tls(listener.address, &listener.tls)?)?)
        };
        let listeners = gateway.listeners.iter().map(&mut listen).collect::<anyhow::Result<Vec<_>>>()?;
        let management = bind("management.address", gateway.management)?;
        management.set_nonblocking(true)?;
        let management_tls = tls(gateway.management, &gateway.management_tls)?;
        if management_tls.is_none() && !gateway.management.ip().is_loopback() {
            tracing::warn!(address = %gateway.management, "operators connect in plain text, and their tokens with them: give [management] `tls`");
        }
        let certificates = Certificates::new(presented, &metrics);
        let tiers = Arc::new(TierNames::default());
        let master = gateway.oauth.as_ref().map(|oauth| Arc::clone(&oauth.master_key));
        let replica = Arc::new(Replica::new(Arc::clone(&registry), Arc::clone(&tiers)).with_master_key(master));
        let budget = FailureBudget { per_minute: gateway.limits.failures_per_minute, burst: gateway.limits.failures_burst };
        let own = gateway.oauth.as_ref().map(|oauth| own(oauth, &listeners));
        let bearers = Arc::new(Bearers::new(Arc::clone(&replica), Arc::clone(&registry), own.clone()));
        let fetcher = Fetcher::new(&gateway.key_networks);
        let pepper = gateway.store.secret_pepper.clone();
        let gate = Arc::new(Gate::new(Arc::clone(&replica), tiers, budget, pepper.clone(), Arc::clone(&bearers)));
        let tally = Arc::new(Tally::new(Arc::clone(&replica)));
        let untold = Arc::clone(&tally);
        metrics.set_untold_source(move || untold.untold());
        let access_log = gateway.telemetry.access_log.then(|| AccessLog::stdout(Arc::clone(&metrics)));
        let observer = Arc::new(Observer::new(Arc::clone(&metrics), access_log, Arc::clone(&tally)));
        let reloader = Reloader::new(
            config,
            sources.routes.clone(),
            registry,
            Arc::clone(&gate),
            Arc::clone(&metrics),
            Arc::clone(&observer),
            fetcher.clone(),
            upkeep(),
        );
        let reloader = Arc::new(reloader.with_certificates(certificates));
        let lease = Arc::clone(&replica);
        metrics.set_lease_source(move || lease.lease_until().since(clock::boot_time()).as_secs_f64());

        let (status, watched) = watch::channel(Status::Joining);
        let (stop_feed, feed_stopped) = oneshot::channel::<()>();
        let node = Arc::new(Mutex::new(None));
        let feed_observer =
            Arc::new(FeedObserver { status, node: Arc::clone(&node), metrics: Arc::clone(&metrics), gate: Arc::clone(&gate) });
        let lifecycle = Lifecycle::new(Arc::clone(&store), pepper).with_key_networks(&gateway.key_networks);
        let feed = tokio::spawn(feed::run(store, Arc::clone(&replica), feed_observer, async {
            // Dropped without a word means the same.
            let _ = feed_stopped.await;
        }));
        wait_until_live(watched.clone()).await?;
        let own = gateway.oauth.as_ref().zip(own).map(|(settings, own)| {
            let oauth = OAuth::new(Arc::clone(&gate), lifecycle.clone(), own, settings.clone(), ClientKeySets::new(fetcher));
            let oauth = Arc::new(oauth);
            let (counts, replica) = (oauth.counts(), Arc::clone(&replica));
            metrics.set_tokens_source(move || {
                let lookups = bearers.lookups();
                TokenFigures {
                    issued: counts.issued(),
                    revoked: counts.revoked(),
                    hits: lookups.hits,
                    misses: lookups.misses,
                    remembered: lookups.entries,
                    signing_keys: replica.ring().len(),
                }
            });
            oauth
        });
        if let Some(oauth) = &gateway.oauth
            && replica.ring().signer(clock::now()).is_none()
        {
            first_signing_key(&lifecycle, oauth).await;
        }

        let management_lifecycle = lifecycle.clone();
        let (stop, stopped) = watch::channel(false);
        let addresses = listeners.iter().map(Bound::address).collect();
        let shared = Shared::new(Arc::clone(&gate), observer, settings(&gateway.limits)).with_own(own);
        let active = shared.active();
        let counted = Arc::clone(&active);
        metrics.set_active_source(move || (counted.connections(), counted.requests()));
        let workers = Workers::start(gateway.threads)?;
        let runtimes: Vec<_> = workers.handles().iter().cloned().chain([tokio::runtime::Handle::current()]).collect();
        metrics.set_tasks_source(move || runtimes.iter().map(|runtime| runtime.metrics().num_alive_tasks()).sum());
        let data = proxy::start_on(listeners, shared, &stopped, workers.handles())?;
        if let Some(every) = gateway.canary {
            let canary = Canary::new(lifecycle, canary::at(Arc::clone(&gate)), metrics.canary(), every);
            let mut stopped = stopped.clone();
            tokio::spawn(canary.run(async move {
                // Dropped without a word means the same.
                let _ = stopped.wait_for(|stop| *stop).await;
            }));
        }
        let (stop_tally, tally_stopped) = oneshot::channel::<()>();
        let (tallied, written) = (Arc::clone(&tally), Arc::clone(management_lifecycle.store()));
        let tally = tokio::spawn(async move {
            tallied
                .run(&*written, async {
                    let _ = tally_stopped.await;
                })
                .await;
        });
        let outbox = Arc::clone(management_lifecycle.store());
        let mailer = Arc::new(Mailer::new(outbox, &gateway.mail, metrics.mail(), gateway.grace)?);
        let (mailing, mut stopping) = (Arc::clone(&mailer), stopped.clone());
        let mails = tokio::spawn(async move {
            mailing
                .run(async {
                    // Dropped without a word means the same.
                    let _ = stopping.wait_for(|stop| *stop).await;
                })
                .await;
        });
        let (stop_admin, admin_stopped) = oneshot::channel::<()>();
        let management_address = management.local_addr()?;
        let (told, standing) = (watched.clone(), Arc::clone(&replica));
        let reloading = Arc::clone(&reloader);
        let reload: admin::Reload = Arc::new(move || {
            reloading.reload()?;
            Ok(reloading.generation())
        });
        let follow = |trust: &Trust, url: &Arc<str>| reloader.follow(trust, url);
        let managers = Managers::new(Arc::clone(&replica), &gateway.management_issuers, follow);
        let running = admin::Running { gate: Arc::clone(&gate), managers, reload };
        let api = admin::Api::new(management_lifecycle, running).with_changed(move || mailer.nudge());
        let leaving = Arc::<AtomicBool>::default();
        let leaves = Arc::clone(&leaving);
        let ready = move || readiness::of(&told.borrow(), leaves.load(Ordering::Relaxed), &standing, node.lock().clone());
        let state = admin::State::new(metrics, ready, api);
        let admin = tokio::spawn(async move {
            let stopped = async {
                let _ = admin_stopped.await;
            };
            if let Err(error) = admin::serve(management, management_tls, state, stopped).await {
                tracing::error!(%error, "the management listener ended");
            }
        });
        let pruned = Arc::downgrade(&gate);
        tokio::spawn(async move {
            while let Some(gate) = pruned.upgrade() {
                gate.prune();
                drop(gate);
                tokio::time::sleep(PRUNE).await;
            }
        });
        let watch = reload::watch(&reloader)?;
        Ok(Self {
            addresses,
            management: management_address,
            reloader,
            status: watched,
            stop,
            data,
            active,
            workers,
            feed,
            stop_feed,
            tally,
            stop_tally,
            mailer: mails,
            admin,
            stop_admin,
            grace: gateway.grace,
            delay: gateway.stop_delay,
            leaving,
            sockets,
            _watch: watch,
        })
    }

    /// Where applications connect, in the order of the configuration.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where operators connect.
    #[must_use]
    pub const fn management_address(&self) -> SocketAddr {
        self.management
    }

    /// Waits until the gateway has applied `revision`.
    pub async fn applied(&mut self, revision: Revision) {
        // An error means that the feed has ended; then nothing is admitted either.
        let _ = self.status.wait_for(|status| matches!(status, Status::Live(applied) if *applied >= revision)).await;
    }

    /// Says that it is not ready any more, and after the delay of the settings takes no new connection, lets requests under way
    /// finish within the grace time, and stops.
    pub async fn stop(self) {
        self.leaving.store(true, Ordering::Relaxed);
        tokio::time::sleep(self.delay).await;
        self.end().await;
    }

    /// Stops once another process has taken over: whoever asks for operators finds that one.
    async fn leave(mut self) {
        let (told, _) = oneshot::channel();
        let _ = std::mem::replace(&mut self.stop_admin, told).send(());
        self.end().await;
    }

    async fn end(self) {
        // Else connections would go on being queued for nobody.
        drop(self.sockets);
        self.stop.send_replace(true);
        self.data.closed().await;
        if tokio::time::timeout(self.grace, self.active.idle()).await.is_err() {
            tracing::warn!(grace_ms = self.grace.as_millis(), "requests were still under way when the grace time ended");
        }
        // What was done up to here is written down, if the store takes it.
        let _ = self.stop_tally.send(());
        let _ = tokio::time::timeout(self.grace, self.tally).await;
        // It has been told to stop with everything else, and has its own grace time.
        let _ = self.mailer.await;
        let _ = self.stop_feed.send(());
        let _ = self.feed.await;
        let _ = self.stop_admin.send(());
        // A client that holds its connection to the management listener open must not hold up the end.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.admin).await;
        // Whatever is left of the requests ends here.
        drop(self.workers);
    }
}

/// What looks after upstreams, on this runtime.
fn upkeep() -> reload::TakeUp {
    let (upkeep, here) = (Upkeep::new(), tokio::runtime::Handle::current());
    Box::new(move |upstream| {
        let _inside = here.enter();
        upkeep.take_up(upstream);
    })
}

/// Who issues tokens here: the address that the settings give, or where the first listener is.
fn own(oauth: &config::OAuth, listeners: &[Bound]) -> Own {
    let derived = || {
        let first = listeners.first().expect("there is a listener");
        format!("{}://{}", if first.is_secure() { "https" } else { "http" }, first.address()).into()
    };
    let issuer = oauth.issuer.clone().unwrap_or_else(derived);
    Own { audience: oauth.audience.clone().unwrap_or_else(|| Arc::clone(&issuer)), issuer }
}

/// Sees to it that there is a key. Without one the gateway serves all the same, but for tokens.
async fn first_signing_key(lifecycle: &Lifecycle, oauth: &config::OAuth) {
    let by = Actor { name: "gateway".into(), origin: "start".into() };
    match lifecycle.first_signing_key(&oauth.master_key, oauth.algorithm, &by).await {
        Ok(true) => tracing::info!("a first signing key is made"),
        Ok(false) => {}
        Err(error) => tracing::error!(
            error = %chain(&error),
            "there is no signing key and none could be made, so no tokens are issued: run `sigmagate signing-key rotate --at-once`, or grant `gateway_management` to the role of this gateway"
        ),
    }
}

/// The socket, or what to do so that there is one.
fn bound<T>(key: &str, address: SocketAddr, socket: std::io::Result<T>) -> anyhow::Result<T> {
    socket.with_context(|| match () {
        () if TcpListener::bind(address).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse) => {
            format!("{address} is in use: end whatever listens there, or change `{key}`")
        }
        () => {
            format!("cannot listen on {address}: check that this machine has the address and that the port is allowed, or change `{key}`")
        }
    })
}

fn settings(limits: &Limits) -> Settings {
    Settings {
        max_connections: limits.connections,
        max_connections_per_address: limits.connections_per_address,
        max_requests: limits.requests,
        header_timeout: limits.header_timeout,
        handshake_timeout: limits.header_timeout,
        idle_timeout: limits.idle_timeout,
        body_timeout: limits.body_timeout,
        write_timeout: limits.response_timeout,
        request_timeout: limits.request_timeout,
        header_fields: limits.header_fields,
        header_bytes: limits.header_bytes,
        target_bytes: limits.target_bytes,
        upstream_pool: limits.upstream_connections,
        trusted_proxies: limits.trusted_proxies.clone(),
        ..Settings::default()
    }
}

async fn wait_until_live(mut status: watch::Receiver<Status>) -> anyhow::Result<()> {
    let reached = status.wait_for(|status| !matches!(status, Status::Joining)).await.context("the feed ended before it began")?;
    match &*reached {
        Status::Failed(why) => bail!("{why}"),
        Status::Joining | Status::Live(_) => Ok(()),
    }
}

/// Runs until SIGTERM or SIGINT; SIGHUP reloads the route map and the certificates, SIGUSR2 has `program` take over.
pub async fn until_stopped(server: Server, mut signals: Signals, program: Option<Program>) {
    let mut taking_over: Option<JoinHandle<anyhow::Result<Successor>>> = None;
    loop {
        let asked = tokio::select! {
            asked = signals.next() => asked,
            taken = async { taking_over.as_mut().expect("asked for").await }, if taking_over.is_some() => {
                taking_over = None;
                match taken {
                    Ok(Ok(successor)) => {
                        tracing::info!(pid = successor.pid, "another process has taken over; stopping");
                        // The successor may wait for the end of this process, so it is held until then.
                        server.leave().await;
                        drop(successor);
                        return;
                    }
                    Ok(Err(error)) => tracing::error!(error = format!("{error:#}"), "no other process has taken over; this one goes on"),
                    Err(error) => tracing::error!(%error, "no other process has taken over; this one goes on"),
                }
                continue;
            }
        };
        match (asked, &program) {
            (Asked::Stop, _) => break,
            (Asked::Reload, _) => {
                let reloader = Arc::clone(&server.reloader);
                // What is wrong has been logged.
                let _ = tokio::task::spawn_blocking(move || reloader.reload()).await;
            }
            (Asked::Upgrade, Some(program)) if taking_over.is_none() => {
                let cloned = server.sockets.iter().map(|(address, socket)| Ok((*address, socket.try_clone()?)));
                match cloned.collect::<std::io::Result<Vec<_>>>() {
                    Ok(sockets) => {
                        tracing::info!("starting another process to take over");
                        let program = program.clone();
                        taking_over = Some(tokio::task::spawn_blocking(move || program.take_over(&sockets)));
                    }
                    Err(error) => tracing::error!(%error, "the listeners cannot be handed over; this process goes on"),
                }
            }
            (Asked::Upgrade, _) => tracing::warn!("nothing is started: another process is about to take over, or none can"),
        }
    }
    tracing::info!("stopping");
    server.stop().await;
}
