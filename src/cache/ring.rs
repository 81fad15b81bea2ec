//! The keys that access tokens of ours are signed with, opened.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::clock::Timestamp;
use crate::entity::StoredKey;
use crate::id::KeyId;
use crate::token::{KeySet, MANAGEMENT_TOKEN_TYPE, Manager, MasterKey, PublicKey, SigningKey, Unsignable};

/// How long a key is published after another one has taken its place: longer than any token of it lives, and clocks differ.
const LINGER: Duration = Duration::from_mins(65);

/// Every key that can be opened with the master key. What cannot is not trusted either: a row by itself proves nothing.
#[derive(Debug, Default)]
pub struct KeyRing {
    keys: Vec<RingKey>,
    verifying: KeySet,
}

#[derive(Clone, Debug)]
struct RingKey {
    stored: StoredKey,
    key: Arc<SigningKey>,
}

impl KeyRing {
    fn new(keys: Vec<RingKey>) -> Self {
        let mut verifying = KeySet::default();
        for ring in keys.iter().filter(|ring| ring.stored.revoked_at.is_none()) {
            // A kid is a thumbprint and stands once.
            let _ = verifying.add(ring.key.public().clone());
        }
        Self { keys, verifying }
    }

    /// These keys, opened.
    #[must_use]
    pub fn opened(keys: Vec<StoredKey>, master: &MasterKey) -> Self {
        keys.into_iter().fold(Self::default(), |ring, key| ring.with(&key.id.clone(), Some(key), Some(master)))
    }

    /// The ring with this key as it is now; `None`: without it.
    pub(super) fn with(&self, id: &KeyId, stored: Option<StoredKey>, master: Option<&MasterKey>) -> Self {
        let mut keys = self.keys.clone();
        let known = keys.iter().position(|ring| ring.stored.id == *id).map(|at| keys.remove(at));
        let opened = stored.zip(master).and_then(|(mut stored, master)| {
            if known.as_ref().is_some_and(|known| known.stored.revoked_at.is_some()) && stored.revoked_at.is_none() {
                tracing::error!(key = %id, "timeline_regression: the database has forgotten that a signing key was revoked: revoke it again");
                stored.revoked_at = known.as_ref().and_then(|known| known.stored.revoked_at);
            }
            let key = match known {
                Some(known) if known.stored.sealed == stored.sealed => known.key,
                _ => Arc::new(open(&stored, master)?),
            };
            Some(RingKey { stored, key })
        });
        keys.extend(opened);
        Self::new(keys)
    }

    /// The ring, with what was revoked in `known` revoked here as well: that is final.
    pub(super) fn keeping(&self, known: &Self, master: Option<&MasterKey>) -> Self {
        let revoked = known.keys.iter().filter(|ring| ring.stored.revoked_at.is_some());
        revoked.fold(Self::new(self.keys.clone()), |ring, known| {
            let forgotten = ring.keys.iter().any(|ring| ring.stored.id == known.stored.id && ring.stored.revoked_at.is_none());
            if !forgotten {
                return ring;
            }
            tracing::error!(key = %known.stored.id, "timeline_regression: the database has forgotten that a signing key was revoked: revoke it again");
            ring.with(&known.stored.id, Some(known.stored.clone()), master)
        })
    }

    /// The key that signs now: the newest one whose time has come.
    #[must_use]
    pub fn signer(&self, now: Timestamp) -> Option<&Arc<SigningKey>> {
        let begun = self.keys.iter().filter(|ring| ring.stored.revoked_at.is_none());
        let begun = begun.filter_map(|ring| ring.stored.signs_from.filter(|from| *from <= now).map(|from| (from, ring)));
        begun.max_by_key(|(from, ring)| (*from, ring.stored.id.clone())).map(|(_, ring)| &ring.key)
    }

    /// A management token from `now` on, and when it ends; `None` if no key signs.
    ///
    /// # Errors
    /// [`Unsignable`], if the key cannot sign.
    pub fn management_token(
        &self,
        manager: &Manager,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Option<(String, Timestamp)>, Unsignable> {
        let Some(signer) = self.signer(now) else { return Ok(None) };
        let ends = now.after(lifetime);
        let header = json!({ "typ": MANAGEMENT_TOKEN_TYPE, "alg": signer.algorithm().as_str(), "kid": signer.kid() });
        Ok(Some((signer.sign_json(&header, &manager.to_claims(now, ends))?, ends)))
    }

    /// What checks signatures.
    #[must_use]
    pub const fn verifying(&self) -> &KeySet {
        &self.verifying
    }

    /// Whether what this key has signed still counts.
    #[must_use]
    pub fn trusts(&self, id: &KeyId) -> bool {
        self.keys.iter().any(|ring| ring.stored.id == *id && ring.stored.revoked_at.is_none())
    }

    /// The keys that others are to know of: those that sign, will sign, or have signed something that may still be in use.
    pub fn published(&self, now: Timestamp) -> impl Iterator<Item = &PublicKey> {
        let of = |ring: &RingKey| ring.stored.signs_from.map(|from| (from, ring.stored.id.clone()));
        let usable: Vec<&RingKey> = self.keys.iter().filter(|ring| ring.stored.revoked_at.is_none()).collect();
        let times: Vec<_> = usable.iter().filter_map(|ring| of(ring)).collect();
        usable.into_iter().filter_map(move |ring| {
            let since = of(ring).and_then(|own| times.iter().filter(|other| **other > own).min());
            let over = since.is_some_and(|(taken_over, _)| now >= taken_over.after(LINGER));
            (!over).then(|| ring.key.public())
        })
    }

    /// How many keys there are that are not revoked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.verifying.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.verifying.is_empty()
    }
}

/// The key, if the row is what it says.
fn open(stored: &StoredKey, master: &MasterKey) -> Option<SigningKey> {
    let pkcs8 = match master.open(&StoredKey::purpose(&stored.id), &stored.sealed) {
        Ok(pkcs8) => pkcs8,
        Err(error) => {
            tracing::error!(key = %stored.id, %error, "a signing key cannot be opened; no token of it counts here: check `oauth.master_key`");
            return None;
        }
    };
    match SigningKey::from_pkcs8(stored.algorithm, pkcs8.to_vec()) {
        Ok(key) if key.kid() == stored.id.as_str() => Some(key),
        _ => {
            tracing::error!(key = %stored.id, "a signing key is not the one that its id names; no token of it counts here");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::Algorithm;

    fn master() -> MasterKey {
        MasterKey::parse("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=").unwrap()
    }

    fn stored(signs_from: Option<i64>, revoked_at: Option<i64>) -> StoredKey {
        let key = SigningKey::generate(Algorithm::EdDsa).unwrap();
        let id: KeyId = key.kid().parse().unwrap();
        let sealed = master().seal(&StoredKey::purpose(&id), key.pkcs8()).into();
        let (signs_from, revoked_at) = (signs_from.map(Timestamp), revoked_at.map(Timestamp));
        StoredKey { id, algorithm: Algorithm::EdDsa, sealed, created_at: Timestamp(0), signs_from, revoked_at }
    }

    fn ring(keys: &[&StoredKey]) -> KeyRing {
        let master = master();
        keys.iter().fold(KeyRing::default(), |ring, key| ring.with(&key.id, Some((*key).clone()), Some(&master)))
    }

    fn published(ring: &KeyRing, now: i64) -> Vec<&str> {
        ring.published(Timestamp(now)).filter_map(PublicKey::kid).collect()
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_until_its_last_token_is_over() {
        let (old, new, planned) = (stored(Some(100), None), stored(Some(10_000), None), stored(None, None));
        let ring = ring(&[&old, &new, &planned]);
        let signer = |now| ring.signer(Timestamp(now)).map(|key| key.kid());
        assert_eq!(signer(99), None);
        assert_eq!(signer(100), Some(old.id.as_str()));
        assert_eq!(signer(9_999), Some(old.id.as_str()));
        assert_eq!(signer(10_000), Some(new.id.as_str()));
        assert_eq!(published(&ring, 0), [old.id.as_str(), new.id.as_str(), planned.id.as_str()]);
        let linger = i64::try_from(LINGER.as_millis()).unwrap();
        assert_eq!(published(&ring, 10_000 + linger - 1).len(), 3);
        assert_eq!(published(&ring, 10_000 + linger), [new.id.as_str(), planned.id.as_str()]);
    }

    #[test]
    fn a_revoked_key_signs_nothing_and_checks_nothing_also_when_the_database_forgets_it() {
        let (old, new) = (stored(Some(1), None), stored(Some(2), None));
        let revoked = StoredKey { revoked_at: Some(Timestamp(5)), ..new.clone() };
        let before = ring(&[&old, &revoked]);
        assert_eq!(before.signer(Timestamp(9)).unwrap().kid(), old.id.as_str());
        assert!(before.trusts(&old.id) && !before.trusts(&new.id) && before.verifying().find(Some(new.id.as_str())).is_none());
        assert_eq!(published(&before, 9), [old.id.as_str()]);
        for after in [before.with(&new.id, Some(new.clone()), Some(&master())), ring(&[&old, &new]).keeping(&before, Some(&master()))] {
            assert!(after.trusts(&old.id) && !after.trusts(&new.id));
        }
        assert!(before.with(&old.id, None, Some(&master())).is_empty());
    }

    #[test]
    fn a_row_that_was_not_sealed_here_is_not_trusted() {
        let (key, other) = (stored(Some(1), None), stored(Some(1), None));
        assert!(ring(&[&StoredKey { sealed: other.sealed.clone(), ..key.clone() }]).is_empty(), "sealed for another id");
        assert!(ring(&[&StoredKey { algorithm: Algorithm::Es256, ..key.clone() }]).is_empty());
        assert!(KeyRing::default().with(&key.id, Some(key.clone()), None).is_empty(), "no master key, no tokens");
        let strange = MasterKey::parse("CAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAg=").unwrap();
        assert!(KeyRing::default().with(&key.id, Some(key.clone()), Some(&strange)).is_empty());
    }
}
