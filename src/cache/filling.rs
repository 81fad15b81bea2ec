//! New contents for the replica, built aside and swapped in whole.

use std::sync::Arc;

use super::{Applied, Entries, Replica, Tables, Touched};
use crate::entity::{Client, Practice, User};
use crate::id::Revision;
use crate::store::Fill;

/// Tables that are being filled with a snapshot; given up, it changes nothing.
pub struct Filling<'a> {
    pub(super) replica: &'a Replica,
    pub(super) tables: Tables,
    pub(super) known: Arc<Tables>,
    pub(super) undone: usize,
}

impl Filling<'_> {
    /// How much has been filled in.
    #[must_use]
    pub fn entries(&self) -> Entries {
        self.tables.entries()
    }

    /// Puts what was filled in, which is as of `head`, in the place of everything held so far.
    pub fn finish(self, head: Revision) -> Applied {
        if self.undone > 0 {
            tracing::error!(
                clients = self.undone,
                "timeline_regression: the database has forgotten revocations that were in force, as after a failover to a standby that was behind; this node goes on denying, others may not: revoke these clients again"
            );
        }
        let (replica, tables) = (self.replica, Arc::new(self.tables));
        replica.freshness.replace(head.0, || replica.tables.store(tables), || replica.settle(&Touched::Anything));
        Applied(head)
    }
}

impl Fill for Filling<'_> {
    fn practice(&mut self, practice: Practice) {
        self.tables.set_practice(&practice.id, Some(&practice));
    }

    fn user(&mut self, user: User) {
        self.tables.set_user(&user.id, Some(&user));
    }

    fn client(&mut self, client: Client) {
        self.replica.set_client(&self.tables, client.id, Some(&client));
        let Some(known) = self.known.clients.get(&client.id) else { return };
        let kept = self.tables.clients.get(&client.id).and_then(|new| known.keep_ended(&new));
        if let Some(kept) = kept {
            // Final in the table, so only a database that has lost what it acknowledged can say otherwise.
            self.undone += 1;
            self.tables.clients.insert(client.id, Arc::new(kept));
        }
    }
}
