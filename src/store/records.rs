//! What the management of a practice remembers beside the rows that access depends on: people, pages of what there is,
//! usage, denials, requests that may come twice, and mail. Nothing of it is a change for the feeds.

mod team;

use async_trait::async_trait;

pub use team::{TeamMember, TeamSync};

use super::Error;
use crate::id::{PracticeId, UserId};

/// The part of the store that no gateway decides by.
#[async_trait]
pub trait Records: Send + Sync {
    /// The users of a practice, by id, with their names.
    async fn team(&self, practice: &PracticeId) -> Result<Vec<TeamMember>, Error>;
    /// One user, with their name.
    async fn team_member(&self, id: &UserId) -> Result<TeamMember, Error>;
}
