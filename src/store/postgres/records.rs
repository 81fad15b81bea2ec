//! What management remembers.

mod page;

use async_trait::async_trait;

use super::PgStore;
use crate::id::{ClientId, PracticeId, UserId};
use crate::store::records::{ClientFilter, ClientRow, Records, TeamMember, Viewer};
use crate::store::{Error, audit};

#[async_trait]
impl Records for PgStore {
    async fn team(&self, practice: &PracticeId) -> Result<Vec<TeamMember>, Error> {
        self.read(self.list_team(practice)).await
    }

    async fn team_member(&self, id: &UserId) -> Result<TeamMember, Error> {
        self.read(self.one_member(id)).await
    }

    async fn clients_page(&self, of: &ClientFilter, after: Option<ClientId>, limit: u32) -> Result<Vec<ClientRow>, Error> {
        self.read(self.page_of_clients(of, after, limit)).await
    }

    async fn events_page(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<audit::Event>, Error> {
        self.read(self.page_of_events(practice, viewer, after, limit)).await
    }

    async fn audit_chunk(&self, after: u64, limit: u32) -> Result<Vec<audit::Event>, Error> {
        self.read(self.chunk_of_events(after, limit)).await
    }
}
