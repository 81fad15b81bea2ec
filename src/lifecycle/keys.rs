//! Signing keys: made, planned, revoked; and single tokens, revoked.

use std::time::Duration;

use super::{Error, Lifecycle};
use crate::clock::{Timestamp, now};
use crate::entity::{RevokedToken, StoredKey};
use crate::id::KeyId;
use crate::store::{Actor, Receipt};
use crate::token::{Algorithm, MasterKey, SigningKey};

/// A new signing key, which every node knows.
#[derive(Clone, Debug, serde::Serialize)]
pub struct NewKey {
    /// Its id, the `kid` of what it signs.
    pub id: KeyId,
    /// From when on it signs.
    pub signs_from: Timestamp,
    /// How that came into force.
    pub receipt: Receipt,
}

impl Lifecycle {
    /// Makes a key that signs after `ahead`, in the place of the one that does now. Every node has it before it is even
    /// planned, so no token meets a node that does not know its key.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an algorithm that signs no tokens; whatever the store refuses.
    pub async fn rotate_signing_key(&self, master: &MasterKey, algorithm: Algorithm, ahead: Duration, by: &Actor) -> Result<NewKey, Error> {
        let key = SigningKey::generate(algorithm).map_err(|error| Error::Invalid(error.to_string()))?;
        let id: KeyId = key.kid().parse().expect("a thumbprint is the id of a key");
        let sealed = master.seal(&StoredKey::purpose(&id), key.pkcs8()).into();
        let stored = StoredKey { id: id.clone(), algorithm, sealed, created_at: now(), signs_from: None, revoked_at: None };
        self.in_force(self.store.add_signing_key(&stored, by).await?).await?;
        let signs_from = now().after(ahead);
        let receipt = self.in_force(self.store.plan_signing_key(&id, signs_from, by).await?).await?;
        Ok(NewKey { id, signs_from, receipt })
    }

    /// Makes the first key, unless there is one that signs or will. Returns whether it did.
    ///
    /// # Errors
    /// As [`Lifecycle::rotate_signing_key`].
    pub async fn first_signing_key(&self, master: &MasterKey, algorithm: Algorithm, by: &Actor) -> Result<bool, Error> {
        let keys = self.store.signing_keys().await?;
        if keys.iter().any(|key| key.revoked_at.is_none() && key.signs_from.is_some()) {
            return Ok(false);
        }
        self.rotate_signing_key(master, algorithm, Duration::ZERO, by).await.map(|_| true)
    }

    /// Takes a key out of use for good, and with it every token that it has signed.
    ///
    /// # Errors
    /// [`store::Error::NotFound`](crate::store::Error::NotFound) for an unknown key.
    pub async fn revoke_signing_key(&self, id: &KeyId, by: &Actor) -> Result<Receipt, Error> {
        self.in_force(self.store.revoke_signing_key(id, now(), by).await?).await
    }

    /// Revokes one token. Returns when no live node accepts it any more; doing it again is harmless.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`]: revoked, but the nodes could not be waited for.
    pub async fn revoke_token(&self, token: &RevokedToken, by: &Actor) -> Result<Receipt, Error> {
        self.in_force(self.store.revoke_token(token, by).await?).await
    }
}
