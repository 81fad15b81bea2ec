//! What management remembers.

mod denials;
mod idempotent;
mod nodes;
pub(super) mod outbox;
mod page;
mod usage;

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

use super::SqliteStore;
use crate::clock::{Day, Timestamp};
use crate::id::{ClientId, PracticeId, UserId};
use crate::store::records::{
    Active, ClientFilter, ClientRow, DenialPlace, DenialRow, Idempotent, NodeRow, Note, Outbox, OutboxMail, Records, SecretUse, TeamMember,
    UsageDelta, UsageRow, Viewer,
};
use crate::store::{Actor, Error, audit, rules};

/// The present moment, by the database's clock.
const NOW: &str = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";

/// One value of each thing, for `json_each`.
#[expect(clippy::expect_used, reason = "numbers and texts can be told")]
fn each<'a, T, V: serde::Serialize>(of: &'a [T], value: impl Fn(&'a T) -> V) -> String {
    serde_json::to_string(&of.iter().map(value).collect::<Vec<_>>()).expect("a list of numbers and texts")
}

#[async_trait]
impl Outbox for SqliteStore {
    async fn claim_mail(&self, claimer: &str, limit: u32, hold: Duration) -> Result<Vec<OutboxMail>, Error> {
        self.explained(self.claim_due(claimer, limit, hold).await)
    }

    async fn mail_sent(&self, id: i64, claimer: &str) -> Result<bool, Error> {
        self.explained(self.note_sent(id, claimer).await)
    }

    async fn mail_failed(&self, id: i64, claimer: &str, error: &str, again_at: Option<Timestamp>) -> Result<bool, Error> {
        self.explained(self.note_failed(id, claimer, error, again_at).await)
    }

    async fn outbox_backlog(&self) -> Result<(u64, Option<Timestamp>), Error> {
        self.explained(self.count_waiting().await)
    }
}

#[async_trait]
impl Records for SqliteStore {
    async fn team(&self, practice: &PracticeId) -> Result<Vec<TeamMember>, Error> {
        self.explained(self.list_team(practice).await)
    }

    async fn team_member(&self, id: &UserId) -> Result<TeamMember, Error> {
        self.explained(self.one_member(id).await)
    }

    async fn clients_page(&self, of: &ClientFilter, after: Option<ClientId>, limit: u32) -> Result<Vec<ClientRow>, Error> {
        self.explained(self.page_of_clients(of, after, limit).await)
    }

    async fn events_page(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        after: Option<u64>,
        limit: u32,
    ) -> Result<Vec<audit::Event>, Error> {
        self.explained(self.page_of_events(practice, viewer, after, limit).await)
    }

    async fn note(&self, note: &Note, by: &Actor) -> Result<(), Error> {
        self.explained(async { rules::note(self.begin().await?, note, by).await }.await)
    }

    async fn audit_chunk(&self, after: u64, limit: u32) -> Result<Vec<audit::Event>, Error> {
        self.explained(self.chunk_of_events(after, limit).await)
    }

    async fn queue_ended_secret_used(&self, client: ClientId, generation: u32, at: Timestamp, address: IpAddr) -> Result<bool, Error> {
        self.explained(self.tell_of_ended_secret(client, generation, at, address).await)
    }

    async fn nodes(&self) -> Result<Vec<NodeRow>, Error> {
        self.explained(self.list_nodes().await)
    }

    async fn begin_idempotent(&self, caller: &str, key: [u8; 32], request: [u8; 32]) -> Result<Idempotent, Error> {
        self.explained(self.begin_request(caller, key, request).await)
    }

    async fn finish_idempotent(&self, caller: &str, key: [u8; 32], status: u16, body: &str) -> Result<(), Error> {
        self.explained(self.finish_request(caller, key, status, body).await)
    }

    async fn abandon_idempotent(&self, caller: &str, key: [u8; 32]) -> Result<(), Error> {
        self.explained(self.abandon_request(caller, key).await)
    }

    async fn add_usage(&self, more: &[UsageDelta], used: &[SecretUse]) -> Result<(), Error> {
        self.explained(self.count_usage(more, used).await)
    }

    async fn usage(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        from: Day,
        to: Day,
        client: Option<ClientId>,
    ) -> Result<Vec<UsageRow>, Error> {
        self.explained(self.list_usage(practice, viewer, [from, to], client).await)
    }

    async fn active_since(&self, practice: &PracticeId, since: Timestamp) -> Result<Active, Error> {
        self.explained(self.list_active(practice, since).await)
    }

    async fn add_denials(&self, rows: &[DenialRow]) -> Result<(), Error> {
        self.explained(self.note_denials(rows).await)
    }

    async fn denials_page(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        after: Option<&DenialPlace>,
        limit: u32,
    ) -> Result<Vec<DenialRow>, Error> {
        self.explained(self.page_of_denials(practice, viewer, after, limit).await)
    }

    async fn denial(&self, request_id: &str) -> Result<Option<DenialRow>, Error> {
        self.explained(self.one_denial(request_id).await)
    }
}
