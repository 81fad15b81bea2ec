//! One URL: what was last fetched from it, and at most one fetch at a time.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::{Error, Fetched, Fetcher, Observer, chain};
use crate::clock::{BootTime, boot_time};
use crate::token::KeySet;

/// The longest that anybody is kept waiting for a fetch, which ends before that by itself.
const PATIENCE: Duration = Duration::from_secs(6);

/// What fetches, as a value: tests have one without a network.
pub(super) type Fetch = Arc<dyn Fn(Arc<str>) -> Fetching + Send + Sync>;
pub(super) type Fetching = Pin<Box<dyn Future<Output = Result<KeySet, Error>> + Send>>;

impl Fetcher {
    pub(super) fn into_fetch(self) -> Fetch {
        Arc::new(move |url| {
            let fetcher = self.clone();
            Box::pin(async move { fetcher.fetch(&url).await })
        })
    }
}

/// One URL.
pub(super) struct Source {
    url: Arc<str>,
    fetch: Fetch,
    observer: Observer,
    /// Where fetches run, whoever asks for them.
    runtime: Handle,
    state: Mutex<State>,
}

/// What is known of it.
#[derive(Default)]
struct State {
    held: Held,
    /// When the fetch of `held.keys` began: what it says may be older than its end, but not than this.
    fetched: BootTime,
    /// When the last fetch began.
    began: Option<BootTime>,
    /// Closed when the fetch has ended, in whatever way.
    under_way: Option<watch::Receiver<()>>,
    /// What ended the last fetch, if it brought nothing.
    failed: Option<Error>,
}

/// The last good set.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    /// `None` before the first one.
    pub keys: Option<Arc<KeySet>>,
    /// One more with each change.
    pub generation: u64,
}

impl Source {
    pub fn new(url: Arc<str>, fetch: Fetch, observer: Observer, runtime: Handle) -> Arc<Self> {
        Arc::new(Self { url, fetch, observer, runtime, state: Mutex::default() })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The last good set, without its keys if it is older than `longest`.
    pub fn held(&self, longest: Duration) -> Held {
        let state = self.state.lock();
        let Held { keys, generation } = state.held.clone();
        Held { keys: keys.filter(|_| boot_time().since(state.fetched) < longest), generation }
    }

    /// What ended the last fetch, if it brought nothing.
    pub fn failed(&self) -> Option<Error> {
        self.state.lock().failed.clone()
    }

    /// Fetches, unless a fetch began less than `interval` ago; if one is under way, waits for that. Whoever waits may go:
    /// the fetch goes on.
    pub async fn refresh(self: &Arc<Self>, interval: Duration) {
        let Some(mut ended) = self.begin(interval) else { return };
        // Closed means ended. It ends by itself within the time; but where it runs may have been stopped for a while.
        let _ = tokio::time::timeout(PATIENCE, ended.changed()).await;
    }

    fn begin(self: &Arc<Self>, interval: Duration) -> Option<watch::Receiver<()>> {
        let mut state = self.state.lock();
        if let Some(ended) = state.under_way.as_ref().filter(|ended| ended.has_changed().is_ok()) {
            return Some(ended.clone());
        }
        let now = boot_time();
        if state.began.is_some_and(|began| now.since(began) < interval) {
            return None;
        }
        state.began = Some(now);
        let (end, ended) = watch::channel(());
        state.under_way = Some(ended.clone());
        drop(state);
        let source = Arc::clone(self);
        // A task of its own: the one who asked may hang up, and must not take the fetch away from those who wait for it, nor
        // keep it from being asked for again.
        self.runtime.spawn(async move {
            let result = (source.fetch)(Arc::clone(&source.url)).await;
            let fetched = source.take(result, now);
            (source.observer)(fetched);
            drop(end);
        });
        Some(ended)
    }

    fn take(&self, result: Result<KeySet, Error>, began: BootTime) -> Fetched {
        // Nothing is logged while others wait for the lock.
        let (fetched, failed, failed_before) = {
            let mut state = self.state.lock();
            let (fetched, failed) = match result {
                Ok(keys) => {
                    state.fetched = began;
                    let same = state.held.keys.as_deref() == Some(&keys);
                    if !same {
                        state.held = Held { keys: Some(Arc::new(keys)), generation: state.held.generation + 1 };
                    }
                    (if same { Fetched::Unchanged } else { Fetched::Changed }, None)
                }
                Err(error) => (Fetched::Failed, Some(error)),
            };
            let before = std::mem::replace(&mut state.failed, failed.clone());
            (fetched, failed, before.is_some())
        };
        match failed {
            None if failed_before => tracing::info!(url = &*self.url, "keys can be fetched again"),
            // Once, until it is over.
            Some(error) if !failed_before => {
                tracing::warn!(url = &*self.url, error = chain(&error), "keys cannot be fetched; the last ones are kept for a while");
            }
            _ => {}
        }
        fetched
    }
}
