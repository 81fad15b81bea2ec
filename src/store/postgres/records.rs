//! What management remembers.

use async_trait::async_trait;

use super::PgStore;
use crate::id::{PracticeId, UserId};
use crate::store::Error;
use crate::store::records::{Records, TeamMember};

#[async_trait]
impl Records for PgStore {
    async fn team(&self, practice: &PracticeId) -> Result<Vec<TeamMember>, Error> {
        self.read(self.list_team(practice)).await
    }

    async fn team_member(&self, id: &UserId) -> Result<TeamMember, Error> {
        self.read(self.one_member(id)).await
    }
}
