//! The keys of an issuer, kept current.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{Either, select};
use tokio::runtime::Handle;

use super::Fetcher;
use super::source::{Fetch, Source};
use crate::token::KeySet;

/// The least time between a fetch and the next one that a token asks for: tokens with unknown keys cost nothing to make.
pub const MIN_INTERVAL: Duration = Duration::from_secs(30);
/// How old the keys of an issuer that cannot be reached may get.
pub const MAX_AGE: Duration = Duration::from_hours(24);
/// The first pause after a fetch that has failed; each one after that is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// What a fetch has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Other keys than before.
    Changed,
    /// The same keys as before.
    Unchanged,
    /// Nothing: the last good keys are kept.
    Failed,
}

impl Fetched {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
        }
    }
}

/// Is told what each fetch has brought, once that is in force.
pub type Observer = Arc<dyn Fn(Fetched) + Send + Sync>;

/// The keys behind one URL, kept current.
pub struct Remote {
    source: Arc<Source>,
    refresh: Duration,
    interval: Duration,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({}, generation {})", self.source.url(), self.generation())
    }
}

impl Remote {
    /// The keys behind `url`, which are not fetched before [`Remote::run`]. Within the runtime that fetches are to run on.
    #[must_use]
    pub fn new(url: impl Into<Arc<str>>, refresh: Duration, fetcher: Fetcher, observer: Observer) -> Arc<Self> {
        Self::paced(url, refresh, MIN_INTERVAL, fetcher, observer)
    }

    /// The same with another time in place of [`MIN_INTERVAL`].
    #[must_use]
    pub fn paced(url: impl Into<Arc<str>>, refresh: Duration, interval: Duration, fetcher: Fetcher, observer: Observer) -> Arc<Self> {
        Self::with(url.into(), refresh, interval, fetcher.into_fetch(), observer)
    }

    pub(super) fn with(url: Arc<str>, refresh: Duration, interval: Duration, fetch: Fetch, observer: Observer) -> Arc<Self> {
        Arc::new(Self { source: Source::new(url, fetch, observer, Handle::current()), refresh, interval })
    }

    /// Where the keys are.
    #[must_use]
    pub fn url(&self) -> &str {
        self.source.url()
    }

    /// The last good set; `None` before the first one. While the issuer does not answer it stays as it is, but not for longer
    /// than [`MAX_AGE`]: a key that was withdrawn must not be believed for ever because nobody could hear of it.
    #[must_use]
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.current().0
    }

    /// How often the keys have changed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.current().1
    }

    /// Both, of one moment.
    #[must_use]
    pub fn current(&self) -> (Option<Arc<KeySet>>, u64) {
        let held = self.source.held(MAX_AGE);
        (held.keys, held.generation)
    }

    /// For a token whose key is not in the set of `seen`: fetches, unless a fetch began less than [`MIN_INTERVAL`] ago; if one
    /// is under way, waits for that. Whether the keys are others than those of `seen`. Takes 6 seconds at most, and may be
    /// dropped: the fetch goes on.
    pub async fn refresh_for_unknown(&self, seen: u64) -> bool {
        if self.generation() == seen {
            self.source.refresh(self.interval).await;
        }
        self.generation() != seen
    }

    /// Keeps the keys current until `stop`: fetches at once and then again and again, sooner after a fetch that has failed.
    pub async fn run(self: Arc<Self>, stop: impl Future) {
        let follow = async {
            let mut failures = 0;
            loop {
                self.source.refresh(Duration::ZERO).await;
                failures = if self.source.failed().is_some() { failures + 1 } else { 0 };
                tokio::time::sleep(pause(failures, self.refresh)).await;
            }
        };
        match select(pin!(stop), pin!(follow)).await {
            Either::Left(_) => {}
            Either::Right((never, _)) => never,
        }
    }
}

/// How long until the next fetch, after so many that have failed.
pub(super) fn pause(failures: u32, refresh: Duration) -> Duration {
    match failures {
        0 => refresh,
        failures => FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures - 1)).min(refresh),
    }
}
