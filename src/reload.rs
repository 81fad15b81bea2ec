//! Takes up a new route map and new certificates: on SIGHUP, when asked for, and when a file changes.

mod certificates;
mod watch;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::config::{self, Config, Mistakes};
use crate::digest::sha256;
use crate::gate::Gate;
use crate::jwks::{Fetched, Fetcher, Remote};
use crate::metrics::Metrics;
use crate::scope::ScopeRegistry;
use crate::telemetry::Observer;
use crate::token::Trust;
use crate::upstream::Upstream;

pub use certificates::Certificates;
pub use watch::{Watch, watch};

/// What it takes to put a route map in the place of another.
pub struct Reloader {
    routes: PathBuf,
    gateway: config::Gateway,
    registry: Arc<ScopeRegistry>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    observer: Arc<Observer>,
    fetcher: Fetcher,
    certificates: Certificates,
    take_up: TakeUp,
    last: Mutex<Last>,
}

/// Begins to look after an upstream, if nobody does so far.
pub type TakeUp = Box<dyn Fn(&Arc<Upstream>) + Send + Sync>;

#[derive(Default)]
struct Last {
    /// What the route file said, and then each of the files beside it: private keys are among them, so their digests.
    texts: Vec<[u8; 32]>,
    beside: Vec<PathBuf>,
    upstreams: config::Upstreams,
    generation: u64,
}

impl Last {
    fn read(routes: &Path, beside: &[PathBuf]) -> Vec<[u8; 32]> {
        let digest = |path| sha256(Zeroizing::new(std::fs::read(path).unwrap_or_default()));
        std::iter::once(routes).chain(beside.iter().map(PathBuf::as_path)).map(digest).collect()
    }
}

impl Reloader {
    /// A reloader that has installed the route map of `config` as its first generation. Within the runtime on which keys of
    /// issuers are to be fetched, and upstreams looked after.
    #[must_use]
    pub fn new(
        config: Config,
        routes: PathBuf,
        registry: Arc<ScopeRegistry>,
        gate: Arc<Gate>,
        metrics: Arc<Metrics>,
        observer: Arc<Observer>,
        fetcher: Fetcher,
        take_up: TakeUp,
    ) -> Self {
        let beside = config.routes.beside.clone();
        let texts = Last::read(&routes, &beside);
        let last = Mutex::new(Last { texts, beside, ..Last::default() });
        let reloader = Self {
            routes,
            gateway: config.gateway,
            registry,
            gate,
            metrics,
            observer,
            fetcher,
            certificates: Certificates::default(),
            take_up,
            last,
        };
        reloader.install(config.routes, &mut reloader.last.lock());
        reloader
    }

    /// The same, which takes up the certificates of listeners too.
    #[must_use]
    pub fn with_certificates(self, certificates: Certificates) -> Self {
        Self { certificates, ..self }
    }

    /// Reads every file again and takes up what it says: the route map, whole, and the certificates of each listener. What is
    /// wrong changes nothing. Blocks on the files and on DNS.
    ///
    /// # Errors
    /// Everything that is wrong with the files.
    pub fn reload(&self) -> Result<(), Vec<String>> {
        let mut wrong = self.certificates.reload(&self.metrics).err().unwrap_or_default();
        if let Err(mistakes) = self.reload_routes() {
            wrong.extend(mistakes.0.iter().map(ToString::to_string));
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    fn reload_routes(&self) -> Result<(), Mistakes> {
        let mut last = self.last.lock();
        last.texts = Last::read(&self.routes, &last.beside);
        let load = |last: &Last| config::load_routes(&self.routes, &self.gateway, &self.registry, &last.upstreams);
        let mut loaded = load(&last);
        if let Ok(routes) = &loaded
            && last.beside != routes.beside
        {
            // What is compared later is what was there before it was loaded: no change can fall in between.
            last.beside.clone_from(&routes.beside);
            last.texts = Last::read(&self.routes, &last.beside);
            loaded = load(&last);
        }
        match loaded {
            Ok(routes) => {
                let count = routes.table.routes().len();
                self.install(routes, &mut last);
                tracing::info!(file = %self.routes.display(), routes = count, generation = last.generation, "route map taken up");
                Ok(())
            }
            Err(mistakes) => {
                self.metrics.reload(false, last.generation);
                tracing::error!(file = %self.routes.display(), mistakes = %mistakes, "route map refused; the one before stays in force");
                Err(mistakes)
            }
        }
    }

    /// Whether a file of this name is one of those that are read.
    fn concerned_by(&self, name: Option<&OsStr>) -> bool {
        let mounted = || name.is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
        let beside = || self.last.lock().beside.iter().any(|path| name == path.file_name());
        // A mounted volume may be changed behind its file names, at `..data`.
        name == self.routes.file_name() || mounted() || beside() || self.certificates.files().any(|path| name == path.file_name())
    }

    /// Reloads what says something else than when it was last read.
    fn reload_if_changed(&self) {
        self.certificates.reload_if_changed(&self.metrics);
        let changed = {
            let last = self.last.lock();
            last.texts != Last::read(&self.routes, &last.beside)
        };
        if changed {
            // What is wrong has been logged.
            let _ = self.reload_routes();
        }
    }

    /// How many route maps have been taken up, the one at the start included.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.last.lock().generation
    }

    fn install(&self, routes: config::RouteMap, last: &mut Last) {
        last.generation += 1;
        last.upstreams = routes.upstreams;
        last.upstreams.values().for_each(|upstream| (self.take_up)(upstream));
        self.metrics.watch_upstreams(last.upstreams.values());
        let table = Arc::new(routes.table);
        self.observer.install_routes(&table);
        self.gate.declare(routes.scopes);
        self.gate.install(table, routes.tiers.into_values());
        self.gate.bearers().trust(&routes.issuers, |issuer, url| self.follow(issuer, url));
        self.metrics.reload(true, last.generation);
    }
}

impl Reloader {
    /// What fetches the keys of an issuer. When they change, whatever was begun with a token of it is asked about again.
    pub fn follow(&self, issuer: &Trust, url: &Arc<str>) -> Arc<Remote> {
        let (name, metrics, replica) = (Arc::clone(&issuer.name), Arc::clone(&self.metrics), Arc::clone(self.gate.replica()));
        let observer = Arc::new(move |fetched| {
            metrics.keys_fetched(&name, fetched);
            if fetched == Fetched::Changed {
                replica.touch();
            }
        });
        Remote::new(Arc::clone(url), issuer.refresh, self.fetcher.clone(), observer)
    }
}
