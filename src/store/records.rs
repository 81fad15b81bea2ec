//! What the management of a practice remembers beside the rows that access depends on: people, pages of what there is,
//! usage, denials, requests that may come twice, and mail. Nothing of it is a change for the feeds.

mod denial;
mod idempotent;
pub(super) mod mail;
mod node;
mod note;
mod page;
mod team;
mod usage;

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;

pub use denial::{DenialPlace, DenialRow};
pub use idempotent::Idempotent;
pub use mail::{MailKind, OutboxMail, Recipient};
pub use node::NodeRow;
pub use note::Note;
pub use page::{ClientFilter, ClientKind, ClientRow, LastUse, Viewer};
pub use team::{TeamMember, TeamSync};
pub use usage::{Active, SecretUse, UsageDelta, UsageRow};

use super::{Actor, Error, audit};
use crate::clock::{Day, Timestamp};
use crate::id::{ClientId, PracticeId, UserId};

/// Where mail waits until it is sent.
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Claims mail that is due: at most `limit`, for `hold`, within which nobody else is given it. What has no recipient any
    /// more is given up. The database's clock tells what is due.
    async fn claim_mail(&self, claimer: &str, limit: u32, hold: Duration) -> Result<Vec<OutboxMail>, Error>;
    /// A claimed mail is sent. False if somebody else has claimed it meanwhile, or it was given up: then nothing is written.
    async fn mail_sent(&self, id: i64, claimer: &str) -> Result<bool, Error>;
    /// A claimed mail could not be sent: it is due again at a moment, or given up. False as for [`Outbox::mail_sent`], and
    /// for one that is sent already.
    async fn mail_failed(&self, id: i64, claimer: &str, error: &str, again_at: Option<Timestamp>) -> Result<bool, Error>;
    /// How many mails are waiting, claimed ones and those of later included, and since when the oldest is.
    async fn outbox_backlog(&self) -> Result<(u64, Option<Timestamp>), Error>;
}

/// The part of the store that no gateway decides by.
#[async_trait]
pub trait Records: Outbox {
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
    /// Writes an entry into the ledger. Raises no change.
    async fn note(&self, note: &Note, by: &Actor) -> Result<(), Error>;
    /// Events of the whole ledger, oldest first: at most `limit`, those that follow the event `after`; 0 is before the first.
    /// No event before the last of them is yet to come, so that an [`audit::Verifier`] can take in one chunk after the other.
    async fn audit_chunk(&self, after: u64, limit: u32) -> Result<Vec<audit::Event>, Error>;

    /// Queues mail that an ended secret of a client is still used, unless that was done for the same client and UTC day, by
    /// whichever node; then false. Other mail is queued by the changes that are the cause of it.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown client.
    async fn queue_ended_secret_used(&self, client: ClientId, generation: u32, at: Timestamp, address: IpAddr) -> Result<bool, Error>;

    /// The gateways in the register, the oldest first.
    async fn nodes(&self) -> Result<Vec<NodeRow>, Error>;

    /// Begins a request that carries a key of its caller's, so that it is carried out once however often it comes. Of those
    /// that come at once, one is [`Idempotent::Begun`]. Keys are forgotten after 24 hours, by the database's clock, with the
    /// tokens ([`Store::prune_tokens`](super::Store::prune_tokens)).
    async fn begin_idempotent(&self, caller: &str, key: [u8; 32], request: [u8; 32]) -> Result<Idempotent, Error>;
    /// Keeps the answer to a request that was begun, as it is: a secret in it would be kept in the clear. The first answer
    /// stays.
    async fn finish_idempotent(&self, caller: &str, key: [u8; 32], status: u16, body: &str) -> Result<(), Error>;
    /// Forgets a request that was begun and changed nothing, so that it may come again; not one that is answered.
    async fn abandon_idempotent(&self, caller: &str, key: [u8; 32]) -> Result<(), Error>;

    /// Adds to what clients did, and remembers the latest use of their secrets, in one transaction and whatever other nodes
    /// add at the same time. What is told of unknown clients is passed over.
    async fn add_usage(&self, more: &[UsageDelta], used: &[SecretUse]) -> Result<(), Error>;
    /// What the clients of a practice did, or one of them, that the viewer sees: from a day to a day, both included, by day,
    /// client and scope.
    async fn usage(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        from: Day,
        to: Day,
        client: Option<ClientId>,
    ) -> Result<Vec<UsageRow>, Error>;
    /// Who has used the API access of a practice since a moment.
    async fn active_since(&self, practice: &PracticeId, since: Timestamp) -> Result<Active, Error>;

    /// Remembers requests that were refused: the newest 10,000 of each practice. One that is remembered already stays as it is.
    async fn add_denials(&self, rows: &[DenialRow]) -> Result<(), Error>;
    /// Denials of a practice that the viewer sees, newest first: at most `limit`, those that come after the place `after`.
    async fn denials_page(
        &self,
        practice: &PracticeId,
        viewer: &Viewer,
        after: Option<&DenialPlace>,
        limit: u32,
    ) -> Result<Vec<DenialRow>, Error>;
    /// The denial of a request, of any practice, for the operators; the newest, since callers may choose the ids of their
    /// requests.
    async fn denial(&self, request_id: &str) -> Result<Option<DenialRow>, Error>;
}
