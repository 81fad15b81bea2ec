//! Issuers that are trusted beside ourselves, as long as the route map names them and their keys are theirs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use super::Unread;
use crate::jwks::Remote;
use crate::token::{Algorithm, Compact, Invalid, Issuer, KeySet, KeySource, PublicKey, Trust, Verified, verify};

/// An issuer that is trusted, until it is not.
#[derive(Debug)]
pub struct Trusted {
    issuer: Arc<Issuer>,
    keys: Keys,
    retired: AtomicBool,
}

/// The keys of an issuer as they are now.
#[derive(Debug)]
pub(super) enum Keys {
    Here(Arc<KeySet>),
    There(Arc<Followed>),
}

/// Keys that are kept current until they are let go.
#[derive(Debug)]
pub(super) struct Followed {
    remote: Arc<Remote>,
    let_go: watch::Sender<bool>,
}

impl Followed {
    fn new(remote: Arc<Remote>) -> Arc<Self> {
        let let_go = watch::Sender::new(false);
        let mut told = let_go.subscribe();
        tokio::spawn(Arc::clone(&remote).run(async move {
            // Dropped without a word means the same.
            let _ = told.wait_for(|let_go| *let_go).await;
        }));
        Arc::new(Self { remote, let_go })
    }
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
    fn new(set: Arc<KeySet>, kid: Option<&str>) -> Option<Self> {
        let key = set.find(kid)?.clone();
        Some(Self { set, key })
    }
}

impl Keys {
    /// The keys of an issuer, kept current with `follow` if they are at a URL. Within a runtime then.
    pub(super) fn new(trust: &Trust, follow: impl FnOnce(&Trust, &Arc<str>) -> Arc<Remote>) -> Self {
        match &trust.keys {
            KeySource::Set(set) => Self::Here(Arc::clone(set)),
            KeySource::Url(url) => Self::There(Followed::new(follow(trust, url))),
        }
    }

    /// They now; `None` if none could be fetched yet.
    fn now(&self) -> Option<Arc<KeySet>> {
        match self {
            Self::Here(set) => Some(Arc::clone(set)),
            Self::There(followed) => followed.remote.keys(),
        }
    }

    /// Verifies a token, which is signed by one of them.
    pub(super) fn verify(&self, compact: &Compact<'_>, algorithms: &[Algorithm]) -> Result<(Verified, SignedBy), Unread> {
        let keys = self.now();
        let want = |invalid| self.want(keys.as_ref()).map_or(Unread::Invalid(invalid), Unread::KeyWanted);
        let Some(set) = &keys else { return Err(want(Invalid::UnknownKey)) };
        let verified = match verify(compact, set, algorithms) {
            Err(Invalid::UnknownKey) if compact.kid().is_some() => return Err(want(Invalid::UnknownKey)),
            verified => verified?,
        };
        let key = SignedBy::new(Arc::clone(set), compact.kid()).ok_or(Invalid::UnknownKey)?;
        Ok((verified, key))
    }

    /// What can be done about a key that is not in `without`; `None`: nothing.
    fn want(&self, without: Option<&Arc<KeySet>>) -> Option<Wanted> {
        let Self::There(followed) = self else { return None };
        let remote = &followed.remote;
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
}

impl Trusted {
    /// Trusts an issuer, and keeps its keys current with `follow` if they are at a URL, unless those of `before` are the same.
    /// Within a runtime then.
    pub(super) fn new(issuer: Arc<Issuer>, before: Option<&Self>, follow: impl FnOnce(&Trust, &Arc<str>) -> Arc<Remote>) -> Self {
        let (trust, same) = (&issuer.trust, |old: &Trust| old.keys == issuer.trust.keys && old.refresh == issuer.trust.refresh);
        let keys = match before.filter(|before| same(&before.issuer.trust)).map(|same| &same.keys) {
            Some(Keys::There(followed)) => Keys::There(Arc::clone(followed)),
            _ => Keys::new(trust, follow),
        };
        Self { issuer, keys, retired: AtomicBool::new(false) }
    }

    /// What is believed of it.
    #[must_use]
    pub const fn issuer(&self) -> &Arc<Issuer> {
        &self.issuer
    }

    /// Its keys.
    pub(super) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether a key is still one of its own.
    #[must_use]
    pub fn vouches_for(&self, signed: &SignedBy) -> bool {
        let Some(keys) = self.keys.now() else { return false };
        Arc::ptr_eq(&keys, &signed.set) || keys.find(signed.key.kid()) == Some(&signed.key)
    }

    /// Whether it is no longer trusted.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// It is no longer trusted; its keys are let go unless somebody goes on with them.
    pub(super) fn retire(&self, keys_go_on: bool) {
        self.retired.store(true, Ordering::Release);
        if let Keys::There(followed) = &self.keys
            && !keys_go_on
        {
            followed.let_go.send_replace(true);
        }
    }

    pub(super) fn shares_keys_with(&self, other: &Self) -> bool {
        matches!((&self.keys, &other.keys), (Keys::There(one), Keys::There(other)) if Arc::ptr_eq(one, other))
    }
}
