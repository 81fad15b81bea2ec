//! The keys of clients, fetched when one of them proves itself by its own key (RFC 7523).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::source::{Fetch, Held, Source};
use super::{Error, Fetcher, MIN_INTERVAL, Networks, Observer, url};
use crate::token::KeySet;

/// The most URLs that are remembered; the one that was asked for longest ago goes first.
const MAX_URLS: usize = 1000;

/// How old keys may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ages {
    /// Until then they are used as they are.
    pub fresh: Duration,
    /// Until then they are used when they cannot be fetched.
    pub stale: Duration,
    /// The least time between two fetches from one URL.
    pub interval: Duration,
}

const AGES: Ages = Ages { fresh: Duration::from_secs(300), stale: Duration::from_secs(3600), interval: MIN_INTERVAL };

/// The keys of clients by their URLs.
pub struct ClientKeySets {
    networks: Networks,
    fetch: Fetch,
    observer: Observer,
    ages: Ages,
    runtime: Handle,
    sources: Mutex<Sources>,
}

#[derive(Default)]
struct Sources {
    by_url: HashMap<Arc<str>, Used>,
    /// How many questions there have been.
    asked: u64,
}

struct Used {
    source: Arc<Source>,
    last: u64,
}

impl std::fmt::Debug for ClientKeySets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClientKeySets({} URLs)", self.sources.lock().by_url.len())
    }
}

impl ClientKeySets {
    /// No keys yet. Within the runtime that fetches are to run on.
    #[must_use]
    pub fn new(fetcher: Fetcher) -> Self {
        Self::with(fetcher.networks().clone(), fetcher.into_fetch(), AGES)
    }

    pub(super) fn with(networks: Networks, fetch: Fetch, ages: Ages) -> Self {
        // There may be as many URLs as clients: none has a metric of its own.
        Self { networks, fetch, observer: Arc::new(|_| {}), ages, runtime: Handle::current(), sources: Mutex::default() }
    }

    /// The keys behind `url`, and how often they have changed. They are at most 5 minutes old, or an hour if they cannot be
    /// fetched. `unknown_to`: a key was looked for in the set of that number and is not there, so they are fetched now, unless
    /// a fetch began less than [`MIN_INTERVAL`] ago. Takes 6 seconds at most, and may be dropped: a fetch goes on.
    ///
    /// # Errors
    /// [`Error`] says why there are none. After a fetch that failed the same is said until [`MIN_INTERVAL`] is over.
    pub async fn keys(&self, url: &str, unknown_to: Option<u64>) -> Result<(Arc<KeySet>, u64), Error> {
        let source = self.source(url)?;
        let held = |longest| {
            let Held { keys, generation } = source.held(longest);
            keys.map(|keys| (keys, generation))
        };
        if let Some(fresh) = held(self.ages.fresh)
            && unknown_to != Some(fresh.1)
        {
            return Ok(fresh);
        }
        source.refresh(self.ages.interval).await;
        held(self.ages.stale).ok_or_else(|| source.failed().unwrap_or(Error::Slow))
    }

    fn source(&self, url: &str) -> Result<Arc<Source>, Error> {
        let mut sources = self.sources.lock();
        sources.asked += 1;
        let last = sources.asked;
        if let Some(used) = sources.by_url.get_mut(url) {
            used.last = last;
            return Ok(Arc::clone(&used.source));
        }
        // What is not fetched is not remembered either.
        url::check(url, &self.networks)?;
        if sources.by_url.len() >= MAX_URLS {
            let oldest = sources.by_url.iter().min_by_key(|(_, used)| used.last).map(|(url, _)| Arc::clone(url));
            oldest.map(|url| sources.by_url.remove(&url));
        }
        let url: Arc<str> = url.into();
        let source = Source::new(Arc::clone(&url), Arc::clone(&self.fetch), Arc::clone(&self.observer), self.runtime.clone());
        sources.by_url.insert(url, Used { source: Arc::clone(&source), last });
        Ok(source)
    }
}
