//! Mail that is to be sent, and to whom.

use std::sync::Arc;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::entity::words;
use crate::id::{ClientId, PracticeId, UserId};

words! {
    /// What a mail says.
    MailKind, "`access_requested`, `access_approved`, `access_disabled`, `secret_regenerated`, `client_revoked`, `ended_secret_used`", {
        /// A practice asks for API access. To the operators.
        AccessRequested = "access_requested",
        /// An operator has approved it. To every admin of the practice.
        AccessApproved = "access_approved",
        /// The practice has switched its access off. To every admin.
        AccessDisabled = "access_disabled",
        /// A client has got a new secret. To its owner, or to every admin.
        SecretRegenerated = "secret_regenerated",
        /// A client was revoked. To its owner, or to every admin.
        ClientRevoked = "client_revoked",
        /// Somebody still uses a secret of a client that has ended. To its owner, or to every admin.
        EndedSecretUsed = "ended_secret_used",
    }
}

/// One mail to one recipient, claimed to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxMail {
    /// Which.
    pub id: i64,
    /// What it says.
    pub kind: MailKind,
    /// The practice that it is about.
    pub practice_id: PracticeId,
    /// That practice's name by now.
    pub practice_name: Arc<str>,
    /// The client that it is about, and its name by now.
    pub client: Option<(ClientId, Arc<str>)>,
    /// To whom.
    pub recipient: Recipient,
    /// When there was cause for it.
    pub created_at: Timestamp,
    /// How often it has been tried, this time included.
    pub attempts: u32,
    /// What else it says: `by` is who did it, as in the ledger; of a new secret `generation` and `others_end`; of an ended
    /// one that is used `generation`, `at` and `address`.
    pub details: Value,
}

/// To whom a mail is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// A user on the team.
    Person {
        /// Who.
        user: UserId,
        /// Their name, if it is known.
        name: Option<Arc<str>>,
        /// Their address by now.
        email: Arc<str>,
    },
    /// Whoever runs the fleet.
    Operators,
}

/// A mail for each of those whom it concerns.
pub(in crate::store) struct NewMail<'m> {
    pub(in crate::store) kind: MailKind,
    pub(in crate::store) practice: &'m PracticeId,
    pub(in crate::store) client: Option<ClientId>,
    pub(in crate::store) to: To<'m>,
    pub(in crate::store) details: Value,
}

/// Whom a mail concerns. Of people those who are on the team and have an address.
#[derive(Clone, Copy)]
pub(in crate::store) enum To<'m> {
    Operators,
    Admins,
    Owner(&'m UserId),
}

impl<'m> To<'m> {
    /// Whom something of a client concerns: of a personal one its owner alone.
    pub(in crate::store) fn holders(owner: Option<&'m UserId>) -> Self {
        owner.map_or(Self::Admins, Self::Owner)
    }
}

/// Why a mail is given up whose recipient is gone.
pub(in crate::store) const NOBODY: &str = "the recipient has left the team or has no e-mail address any more";

/// The longest error that is kept, in characters.
pub(in crate::store) const ERROR: usize = 500;
