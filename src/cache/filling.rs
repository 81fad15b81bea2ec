//! New contents for the replica, built aside and swapped in whole.

use std::sync::Arc;

use super::{Applied, Entries, Map, Replica, Tables, Touched};
use crate::clock::Timestamp;
use crate::entity::{Client, Practice, RevokedToken, StoredKey, StoredSecret, User};
use crate::id::{ClientId, Revision};
use crate::store::{Fill, Subject};

/// Tables that are being filled with a snapshot; given up, it changes nothing.
pub struct Filling<'a> {
    pub(super) replica: &'a Replica,
    pub(super) tables: Tables,
    pub(super) begun: Timestamp,
}

impl Filling<'_> {
    /// How much has been filled in.
    #[must_use]
    pub fn entries(&self) -> Entries {
        self.tables.entries()
    }

    /// Puts what was filled in, which is as of `head`, in the place of everything held so far.
    pub fn finish(self, head: Revision) -> Applied {
        self.keep_ended();
        let (replica, tables) = (self.replica, Arc::new(self.tables));
        replica.freshness.replace(head.0, || replica.tables.store(tables), || replica.settle(&Touched::Anything));
        Applied(head)
    }

    /// What has ended is final in the table, so only a database that has lost what it acknowledged can say otherwise.
    fn keep_ended(&self) {
        let known = self.replica.tables.load();
        let ring = self.tables.ring.load().keeping(&known.ring.load(), self.replica.master.as_deref());
        self.tables.ring.store(Arc::new(ring));
        for token in &known.revoked_tokens {
            // Only what is long over may be forgotten, and that need not be in the snapshot any more.
            if *token.value() > self.begun {
                self.tables.revoked_tokens.entry(*token.key()).or_insert(*token.value());
            }
        }
        let mut undone = 0_usize;
        for known in &known.clients {
            let Some(mut new) = self.tables.clients.get_mut(known.key()) else { continue };
            if let Some(kept) = known.keep_ended(&new) {
                undone += 1;
                *new = Arc::new(kept);
            }
        }
        if undone > 0 {
            tracing::error!(
                clients = undone,
                "timeline_regression: the database has forgotten revocations that were in force, as after a failover to a standby that was behind; this node goes on denying, others may not: revoke these clients again"
            );
        }
    }
}

impl Fill for Filling<'_> {
    fn expect(&mut self, clients: usize) {
        self.tables.clients = Map::with_capacity_and_hasher(clients, foldhash::fast::RandomState::default());
    }

    fn practice(&mut self, practice: Practice) {
        self.tables.set_practice(&practice.id, Some(&practice));
    }

    fn user(&mut self, user: User) {
        self.tables.set_user(&user.id, Some(&user));
    }

    fn client(&mut self, client: Client) {
        self.replica.set_client(&self.tables, client.id, Some(&client));
    }

    fn secret(&mut self, of: ClientId, secret: StoredSecret) {
        let Some(mut client) = self.tables.clients.get_mut(&of) else { return };
        // Nobody else has seen these tables yet.
        if let Some(client) = Arc::get_mut(&mut client) {
            client.add_secret(&secret, self.begun);
        }
    }

    fn signing_key(&mut self, key: StoredKey) {
        self.replica.set_key(&self.tables, &key.id.clone(), Some(key));
    }

    fn revoked_token(&mut self, token: RevokedToken) {
        self.tables.set_token(token.id, Some(&token));
    }

    fn fence(&mut self, of: &Subject) {
        self.tables.fence(of);
    }
}
