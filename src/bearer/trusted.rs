//! Issuers that are trusted beside ourselves, as long as the route map names them and their keys are theirs.

use std::sync::Arc;

use tokio::sync::watch;

use crate::jwks::Remote;
use crate::token::{Issuer, KeySet, KeySource, PublicKey};

/// An issuer that is trusted, until it is not.
#[derive(Debug)]
pub struct Trusted {
    issuer: Arc<Issuer>,
    keys: Keys,
    retired: watch::Sender<bool>,
}

#[derive(Debug)]
enum Keys {
    Here(Arc<KeySet>),
    There(Arc<Remote>),
}

/// What a signature was checked with.
#[derive(Debug)]
pub struct SignedBy {
    set: Arc<KeySet>,
    key: PublicKey,
}

/// A token may be signed by a key that nobody here knows yet.
#[derive(Debug)]
pub struct Wanted {
    remote: Arc<Remote>,
    /// The number of the set without it.
    seen: u64,
    /// Whether there is a set at all.
    pub(super) has_keys: bool,
}

impl Wanted {
    /// Has the keys fetched, unless that was tried a moment ago. Takes 6 seconds at most.
    pub async fn fetch(self) {
        self.remote.refresh_for_unknown(self.seen).await;
    }
}

impl SignedBy {
    pub(super) fn new(set: Arc<KeySet>, kid: Option<&str>) -> Option<Self> {
        let key = set.find(kid)?.clone();
        Some(Self { set, key })
    }
}

impl Trusted {
    /// Trusts an issuer, and keeps its keys current with `follow` if they are at a URL. Within a runtime then.
    pub(super) fn new(issuer: Arc<Issuer>, follow: impl FnOnce(&Issuer, &Arc<str>) -> Arc<Remote>) -> Self {
        let retired = watch::Sender::new(false);
        let keys = match &issuer.keys {
            KeySource::Set(set) => Keys::Here(Arc::clone(set)),
            KeySource::Url(url) => {
                let remote = follow(&issuer, url);
                let mut retired = retired.subscribe();
                tokio::spawn(Arc::clone(&remote).run(async move {
                    // Dropped without a word means the same.
                    let _ = retired.wait_for(|retired| *retired).await;
                }));
                Keys::There(remote)
            }
        };
        Self { issuer, keys, retired }
    }

    /// What is believed of it.
    #[must_use]
    pub const fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Its keys now; `None` if none could be fetched yet.
    pub(super) fn keys(&self) -> Option<Arc<KeySet>> {
        match &self.keys {
            Keys::Here(set) => Some(Arc::clone(set)),
            Keys::There(remote) => remote.keys(),
        }
    }

    /// What can be done about a key that is not in `without`; `None`: nothing.
    pub(super) fn want(&self, without: Option<&Arc<KeySet>>) -> Option<Wanted> {
        let Keys::There(remote) = &self.keys else { return None };
        let (current, generation) = remote.current();
        let same = match (without, &current) {
            (Some(without), Some(current)) => Arc::ptr_eq(without, current),
            (None, None) => true,
            _ => false,
        };
        // If they have changed meanwhile, that has been done.
        let seen = if same { generation } else { generation.wrapping_sub(1) };
        Some(Wanted { remote: Arc::clone(remote), seen, has_keys: without.is_some() })
    }

    /// Whether a key is still one of its own.
    #[must_use]
    pub fn vouches_for(&self, signed: &SignedBy) -> bool {
        let Some(keys) = self.keys() else { return false };
        Arc::ptr_eq(&keys, &signed.set) || keys.find(signed.key.kid()) == Some(&signed.key)
    }

    /// Whether it is no longer trusted.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        *self.retired.borrow()
    }

    pub(super) fn retire(&self) {
        self.retired.send_replace(true);
    }
}
