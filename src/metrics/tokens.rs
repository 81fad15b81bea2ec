//! Access tokens: issued, revoked, known again.

use parking_lot::Mutex;
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

use super::{Source, add};
use crate::jwks::Fetched;

/// Figures that others keep, read when the metrics are. None ever falls, but `remembered` and `signing_keys`.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokenFigures {
    /// Tokens issued.
    pub issued: u64,
    /// Tokens revoked by themselves.
    pub revoked: u64,
    /// Bearer tokens that were known already.
    pub hits: u64,
    /// Bearer tokens that had to be verified, or were not genuine.
    pub misses: u64,
    /// Verified tokens that are remembered.
    pub remembered: u64,
    /// Signing keys that are not revoked.
    pub signing_keys: usize,
}

pub(super) struct Tokens {
    issued: IntCounter,
    revoked: IntCounter,
    lookups: [IntCounter; 2],
    remembered: IntGauge,
    signing_keys: IntGauge,
    fetches: IntCounterVec,
    pub(super) source: Mutex<Option<Source<TokenFigures>>>,
}

impl Tokens {
    pub(super) fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| add(registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| add(registry, IntGauge::new(name, help));
        let lookups = Opts::new("sigmagate_bearer_lookups_total", "Bearer tokens: hit, known already; miss, verified or not genuine.");
        let lookups = add(registry, IntCounterVec::new(lookups, &["result"]));
        let fetches = Opts::new("sigmagate_key_fetches_total", "Fetches of the keys of a trusted issuer, by what they have brought.");
        Self {
            fetches: add(registry, IntCounterVec::new(fetches, &["issuer", "result"])),
            issued: counter("sigmagate_tokens_issued_total", "Access tokens issued by this node."),
            revoked: counter("sigmagate_tokens_revoked_total", "Access tokens revoked by themselves through this node."),
            lookups: ["hit", "miss"].map(|result| lookups.with_label_values(&[result])),
            remembered: gauge("sigmagate_bearer_remembered", "Verified bearer tokens that are remembered."),
            signing_keys: gauge("sigmagate_signing_keys", "Signing keys that are not revoked; without one no tokens are issued."),
            source: Mutex::new(None),
        }
    }

    pub(super) fn fetched(&self, issuer: &str, fetched: Fetched) {
        self.fetches.with_label_values(&[issuer, fetched.as_str()]).inc();
    }

    pub(super) fn read(&self) {
        let Some(figures) = self.source.lock().as_ref().map(|source| source()) else { return };
        let [hits, misses] = &self.lookups;
        for (counter, figure) in
            [(&self.issued, figures.issued), (&self.revoked, figures.revoked), (hits, figures.hits), (misses, figures.misses)]
        {
            counter.inc_by(figure.saturating_sub(counter.get()));
        }
        self.remembered.set(i64::try_from(figures.remembered).unwrap_or(i64::MAX));
        self.signing_keys.set(i64::try_from(figures.signing_keys).unwrap_or(i64::MAX));
    }
}
