//! What the management of a practice remembers beside the rows that access depends on: people, pages of what there is,
//! usage, denials, requests that may come twice, and mail. Nothing of it is a change for the feeds.

mod page;
mod team;

use async_trait::async_trait;

pub use page::{ClientFilter, ClientKind, ClientRow, LastUse, Viewer};
pub use team::{TeamMember, TeamSync};

use super::{Error, audit};
use crate::id::{ClientId, PracticeId, UserId};

/// The part of the store that no gateway decides by.
#[async_trait]
pub trait Records: Send + Sync {
    /// The users of a practice, by id, with their names.
    async fn team(&self, practice: &PracticeId) -> Result<Vec<TeamMember>, Error>;
    /// One user, with their name.
    async fn team_member(&self, id: &UserId) -> Result<TeamMember, Error>;

    /// Clients of a practice, newest first and revoked ones too: at most `limit`, those that come after the client `after`.
    /// What is made meanwhile moves no page.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the viewer sees no client `after`.
    async fn clients_page(&self, of: &ClientFilter, after: Option<ClientId>, limit: u32) -> Result<Vec<ClientRow>, Error>;
    /// Events of the ledger of a practice, newest first: at most `limit`, those before the event `after`. A member sees what
    /// was done to their own clients, nobody what was done to those of others.
    async fn events_page(&self, practice: &PracticeId, viewer: &Viewer, after: Option<u64>, limit: u32)
    -> Result<Vec<audit::Event>, Error>;
    /// Events of the whole ledger, oldest first: at most `limit`, those that follow the event `after`; 0 is before the first.
    /// No event before the last of them is yet to come, so that an [`audit::Verifier`] can take in one chunk after the other.
    async fn audit_chunk(&self, after: u64, limit: u32) -> Result<Vec<audit::Event>, Error>;
}
