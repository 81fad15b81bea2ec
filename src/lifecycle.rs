//! Issue, rotate, edit, revoke; request, approve, disable, enable: what the management API and the command line both call.
//!
//! Every call returns only when its change is in force on every node: one that takes access away, so that a person may
//! be told "it no longer works"; one that gives it, so that a new key works at once.

mod client;
mod keys;
mod name;

use std::sync::Arc;

use ipnet::IpNet;

pub use client::{Issued, NewClientRequest, Overlap, Rotated, parse_network};
pub use keys::NewKey;

use crate::credential::Pepper;
use crate::entity::{ApiAccess, Role};
use crate::id::{PracticeId, Revision, UserId};
use crate::jwks::Networks;
use crate::store::records::TeamSync;
use crate::store::{self, Actor, Committed, Receipt, Store};

/// Why a call was not carried out, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked makes no sense; nothing changed. The text says what would.
    #[error("{0}")]
    Invalid(String),
    /// The store refused or failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The change is made, but the nodes could not be waited for. Calling again is harmless and waits again.
    #[error(
        "the change is made (revision {revision}), but it could not be confirmed that every node applies it; each stops within {lease_ms} ms if it does not: try again to be sure"
    )]
    Unconfirmed {
        /// The change.
        revision: Revision,
        /// The longest that a node may go on without it.
        lease_ms: u128,
        /// Why the nodes could not be waited for.
        #[source]
        source: store::Error,
    },
}

/// The life cycle of practices, users and clients.
#[derive(Clone)]
pub struct Lifecycle {
    store: Arc<dyn Store>,
    pepper: Option<Arc<Pepper>>,
    key_networks: Networks,
}

impl Lifecycle {
    /// The life cycle over this store. New secrets are digested with the pepper, if there is one.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, pepper: Option<Arc<Pepper>>) -> Self {
        Self { store, pepper, key_networks: Networks::new(&[]) }
    }

    /// The same, for gateways that fetch keys in these private networks too.
    #[must_use]
    pub fn with_key_networks(self, allowed: &[IpNet]) -> Self {
        Self { key_networks: Networks::new(allowed), ..self }
    }

    /// The store underneath, to look things up in.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    async fn in_force(&self, committed: Committed) -> Result<Receipt, Error> {
        let revision = committed.revision();
        let lease_ms = self.store.lease().as_millis();
        self.store.barrier(committed).await.map_err(|source| Error::Unconfirmed { revision, lease_ms, source })
    }

    /// Creates the practice, without API access, or renames it.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none.
    pub async fn put_practice(&self, id: &PracticeId, name: &str, by: &Actor) -> Result<Receipt, Error> {
        let name = name::check(name)?;
        self.in_force(self.store.put_practice(id, name, by).await?).await
    }

    /// Asks for API access: `none -> requested`.
    ///
    /// # Errors
    /// [`store::Error::Conflict`] from any other state.
    pub async fn request(&self, id: &PracticeId, by: &Actor) -> Result<Receipt, Error> {
        self.move_practice(id, &[ApiAccess::None], ApiAccess::Requested, by).await
    }

    /// Grants API access: `requested -> active`, or `none -> active` without a request.
    ///
    /// # Errors
    /// [`store::Error::Conflict`] for a practice that has switched its access off: it alone may enable it again.
    pub async fn approve(&self, id: &PracticeId, by: &Actor) -> Result<Receipt, Error> {
        self.move_practice(id, &[ApiAccess::Requested, ApiAccess::None], ApiAccess::Active, by).await
    }

    /// Switches the practice's API access off: `active -> disabled`.
    ///
    /// # Errors
    /// [`store::Error::Conflict`] from any other state.
    pub async fn disable(&self, id: &PracticeId, by: &Actor) -> Result<Receipt, Error> {
        self.move_practice(id, &[ApiAccess::Active], ApiAccess::Disabled, by).await
    }

    /// Switches it on again, with everything that was not itself revoked: `disabled -> active`.
    ///
    /// # Errors
    /// [`store::Error::Conflict`] from any other state: access that was never approved cannot be enabled.
    pub async fn enable(&self, id: &PracticeId, by: &Actor) -> Result<Receipt, Error> {
        self.move_practice(id, &[ApiAccess::Disabled], ApiAccess::Active, by).await
    }

    async fn move_practice(&self, id: &PracticeId, from: &[ApiAccess], to: ApiAccess, by: &Actor) -> Result<Receipt, Error> {
        self.in_force(self.store.set_practice_access(id, from, to, by).await?).await
    }

    /// Puts the user on the team, with API access off, or changes their role.
    ///
    /// # Errors
    /// [`store::Error::Conflict`] for a user of another practice.
    pub async fn put_user(&self, practice: &PracticeId, id: &UserId, role: Role, by: &Actor) -> Result<Receipt, Error> {
        self.in_force(self.store.put_user(practice, id, role, by).await?).await
    }

    /// Takes in what SigmaMD says of its users, in one transaction: what became of each row, and how that came into force,
    /// unless every row was refused.
    ///
    /// # Errors
    /// As the store's; a row that is refused is none.
    pub async fn sync_team(
        &self,
        practice: &PracticeId,
        rows: &[TeamSync],
        by: &Actor,
    ) -> Result<(Vec<Result<(), store::Error>>, Option<Receipt>), Error> {
        let (results, committed) = self.store.sync_team(practice, rows, by).await?;
        let receipt = match committed {
            Some(committed) => Some(self.in_force(committed).await?),
            None => None,
        };
        Ok((results, receipt))
    }

    /// Turns the user's API access on or off.
    ///
    /// # Errors
    /// [`store::Error::Conflict`] when it is to be turned on for somebody who has left.
    pub async fn set_user_access(&self, id: &UserId, on: bool, by: &Actor) -> Result<Receipt, Error> {
        self.in_force(self.store.set_user_access(id, on, by).await?).await
    }

    /// The user leaves the team; their personal clients stop.
    ///
    /// # Errors
    /// [`store::Error::NotFound`] for an unknown user.
    pub async fn remove_user(&self, id: &UserId, by: &Actor) -> Result<Receipt, Error> {
        self.in_force(self.store.remove_user(id, by).await?).await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::now;
    use crate::credential::{Presented, usable_at};
    use crate::entity::StoredSecret;
    use crate::store::{ClientEdit, SqliteStore};

    async fn world() -> (tempfile::TempDir, Lifecycle, Actor) {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(dir.path().join("gateway.db").to_str().unwrap(), true).await.unwrap();
        let pepper = Arc::new(Pepper::new(b"0123456789abcdef").unwrap());
        let lifecycle = Lifecycle::new(Arc::new(store), Some(pepper));
        let by = Actor { name: "operator".into(), origin: "test".into() };
        lifecycle.put_practice(&"p".parse().unwrap(), " Practice ", &by).await.unwrap();
        lifecycle.approve(&"p".parse().unwrap(), &by).await.unwrap();
        (dir, lifecycle, by)
    }

    fn find<'a>(secrets: &'a [StoredSecret], presented: &Presented) -> Option<&'a StoredSecret> {
        secrets.iter().find(|secret| presented.proves(&secret.digest))
    }

    fn request() -> NewClientRequest {
        let billing: crate::scope::ScopeToken = "billing".parse().unwrap();
        NewClientRequest {
            practice: "p".parse().unwrap(),
            owner: None,
            name: " Billing sync ".into(),
            scopes: vec![billing.clone(), billing],
            allowed_addresses: Vec::new(),
            tier: None,
            expires_at: None,
            keys: crate::entity::ClientKeys::None,
        }
    }

    #[tokio::test]
    async fn the_secret_that_is_shown_is_the_one_that_works() {
        let (_dir, lifecycle, by) = world().await;
        let issued = lifecycle.create_client(request(), &by).await.unwrap();
        let stored = lifecycle.store().client(issued.client.id).await.unwrap();
        assert_eq!(stored, issued.client);
        assert_eq!((&*stored.name, stored.scopes.len()), ("Billing sync", 1));
        let pepper = Pepper::new(b"0123456789abcdef").unwrap();
        let proves = |secret| Presented::new(secret, Some(&pepper));
        assert_eq!(find(&stored.secrets, &proves(&issued.secret)).unwrap().generation, 1);

        let rotated = lifecycle.rotate(stored.id, Overlap::OneDay, &by).await.unwrap();
        let stored = lifecycle.store().client(stored.id).await.unwrap();
        assert_eq!(find(&stored.secrets, &proves(&rotated.secret)).unwrap().generation, rotated.generation);
        let old = find(&stored.secrets, &proves(&issued.secret)).unwrap();
        assert!(usable_at(old.expires_at, now().after(Duration::from_hours(23))));
        assert!(!usable_at(old.expires_at, now().after(Duration::from_hours(25))));

        // A second overlap ends the first: two secrets work at most.
        let again = lifecycle.rotate(stored.id, Overlap::OneDay, &by).await.unwrap();
        let stored = lifecycle.store().client(stored.id).await.unwrap();
        let live: Vec<_> = stored.secrets.iter().filter(|s| s.usable_at(now())).map(|s| s.generation).collect();
        assert_eq!(live, [again.generation, rotated.generation]);

        lifecycle.end_secret(stored.id, 1, &by).await.unwrap();
        let stored = lifecycle.store().client(stored.id).await.unwrap();
        assert!(!find(&stored.secrets, &proves(&issued.secret)).unwrap().usable_at(now()));
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused_before_anything_is_written() {
        let (_dir, lifecycle, by) = world().await;
        for wrong in [
            NewClientRequest { name: " ".into(), ..request() },
            NewClientRequest { scopes: Vec::new(), ..request() },
            NewClientRequest { expires_at: Some(now()), ..request() },
            NewClientRequest { tier: Some("a b".into()), ..request() },
        ] {
            assert!(matches!(lifecycle.create_client(wrong, &by).await, Err(Error::Invalid(_))));
        }
        let id = lifecycle.create_client(request(), &by).await.unwrap().client.id;
        for wrong in [
            ClientEdit { scopes: Some(Vec::new()), ..ClientEdit::default() },
            ClientEdit { name: Some("a\nb".into()), ..ClientEdit::default() },
            ClientEdit { expires_at: Some(Some(now())), ..ClientEdit::default() },
        ] {
            assert!(matches!(lifecycle.edit(id, wrong, &by).await, Err(Error::Invalid(_))));
        }
        assert_eq!(lifecycle.store().audit(None).await.unwrap().len(), 3);
    }
}
