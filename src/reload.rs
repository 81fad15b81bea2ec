//! Takes up a new route map: on SIGHUP, and when the file changes.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::config::{self, Config, Mistakes};
use crate::gate::Gate;
use crate::jwks::{Fetched, Fetcher, Remote};
use crate::metrics::Metrics;
use crate::scope::ScopeRegistry;
use crate::telemetry::Observer;
use crate::token::Trust;

/// How long a file must be left alone before it is read: an editor may write it in several steps.
const QUIET: Duration = Duration::from_millis(30);

/// What it takes to put a route map in the place of another.
pub struct Reloader {
    routes: PathBuf,
    gateway: config::Gateway,
    registry: Arc<ScopeRegistry>,
    gate: Arc<Gate>,
    metrics: Arc<Metrics>,
    observer: Arc<Observer>,
    fetcher: Fetcher,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    /// What the route file said, and then each of the key files.
    texts: Vec<Vec<u8>>,
    key_files: Vec<PathBuf>,
    generation: u64,
}

impl Last {
    fn read(routes: &Path, key_files: &[PathBuf]) -> Vec<Vec<u8>> {
        let paths = std::iter::once(routes).chain(key_files.iter().map(PathBuf::as_path));
        paths.map(|path| std::fs::read(path).unwrap_or_default()).collect()
    }
}

impl Reloader {
    /// A reloader that has installed the route map of `config` as its first generation. Within the runtime on which keys of
    /// issuers are to be fetched.
    #[must_use]
    pub fn new(
        config: Config,
        routes: PathBuf,
        registry: Arc<ScopeRegistry>,
        gate: Arc<Gate>,
        metrics: Arc<Metrics>,
        observer: Arc<Observer>,
        fetcher: Fetcher,
    ) -> Self {
        let key_files = config.routes.key_files.clone();
        let last = Mutex::new(Last { texts: Last::read(&routes, &key_files), key_files, generation: 0 });
        let reloader = Self { routes, gateway: config.gateway, registry, gate, metrics, observer, fetcher, last };
        reloader.install(config.routes, &mut reloader.last.lock());
        reloader
    }

    /// Reads the route file and takes it up, whole; a wrong one changes nothing. Blocks on the file and on DNS.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn reload(&self) -> Result<(), Mistakes> {
        let mut last = self.last.lock();
        last.texts = Last::read(&self.routes, &last.key_files);
        let load = || config::load_routes(&self.routes, &self.gateway, &self.registry);
        let mut loaded = load();
        if let Ok(routes) = &loaded
            && last.key_files != routes.key_files
        {
            // What is compared later is what was there before it was loaded: no change can fall in between.
            last.key_files.clone_from(&routes.key_files);
            last.texts = Last::read(&self.routes, &last.key_files);
            loaded = load();
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

    /// Whether a file of this name is one of those that the route map is made from.
    fn concerned_by(&self, name: Option<&OsStr>) -> bool {
        name == self.routes.file_name() || self.last.lock().key_files.iter().any(|path| name == path.file_name())
    }

    /// Reloads if a file says something else than when it was last read.
    fn reload_if_changed(&self) {
        let changed = {
            let last = self.last.lock();
            last.texts != Last::read(&self.routes, &last.key_files)
        };
        if changed {
            // What is wrong has been logged.
            let _ = self.reload();
        }
    }

    /// How many route maps have been taken up, the one at the start included.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.last.lock().generation
    }

    fn install(&self, routes: config::RouteMap, last: &mut Last) {
        last.generation += 1;
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

/// Reloads on every change of the route file, and of key files beside it, for as long as the returned watcher lives.
///
/// # Errors
/// When the operating system cannot watch the folder.
pub fn watch(reloader: &Arc<Reloader>) -> anyhow::Result<RecommendedWatcher> {
    let (sender, mut changes) = mpsc::channel::<()>(1);
    let file = reloader.routes.clone();
    // The folder, not the file: editors write another file and rename it.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let concerned = Arc::downgrade(reloader);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error may hide a change; a full channel has one to look at already.
        let concerns = event.map_or(true, |event| {
            let named = |path: &PathBuf| concerned.upgrade().is_some_and(|reloader| reloader.concerned_by(path.file_name()));
            !event.kind.is_access() && (event.need_rescan() || event.paths.iter().any(named))
        });
        if concerns {
            let _ = sender.try_send(());
        }
    })
    .context("cannot watch files for changes")?;
    watcher.watch(&folder, RecursiveMode::NonRecursive).with_context(|| format!("cannot watch `{}` for changes", folder.display()))?;
    let reloader = Arc::clone(reloader);
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            while tokio::time::timeout(QUIET, changes.recv()).await.is_ok_and(|change| change.is_some()) {}
            let reloader = Arc::clone(&reloader);
            let _ = tokio::task::spawn_blocking(move || reloader.reload_if_changed()).await;
        }
    });
    Ok(watcher)
}
