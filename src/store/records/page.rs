//! Pages of clients, and who sees which.

use std::net::IpAddr;

use crate::clock::Timestamp;
use crate::entity::{Client, words};
use crate::id::{PracticeId, UserId};

/// Who looks at a practice. Personal clients, and what is known of them, are shown to nobody but their owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Viewer {
    /// Sees what belongs to the practice.
    Operator,
    /// Sees what belongs to the practice, and their own.
    Admin(UserId),
    /// Sees their own.
    Member(UserId),
}

impl Viewer {
    /// Whether they see what belongs to the practice.
    pub(in crate::store) fn sees_shared(&self) -> bool {
        !matches!(self, Self::Member(_))
    }

    /// Whose personal clients they see.
    pub(in crate::store) fn own(&self) -> Option<&str> {
        match self {
            Self::Operator => None,
            Self::Admin(user) | Self::Member(user) => Some(user.as_str()),
        }
    }
}

words! {
    /// Whom a client belongs to.
    ClientKind, "`practice`, `personal`", {
        /// The practice.
        Practice = "practice",
        /// One user.
        Personal = "personal",
    }
}

/// Which clients are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFilter {
    /// Those of this practice,
    pub practice: PracticeId,
    /// that this viewer sees,
    pub visible_to: Viewer,
    /// and of these only those of one kind.
    pub kind: Option<ClientKind>,
}

/// When and how a client was last admitted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LastUse {
    /// When.
    pub at: Timestamp,
    /// From where.
    pub address: IpAddr,
    /// By which of its secrets; 0: by a key of its own.
    pub generation: u32,
}

/// A client as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientRow {
    /// The client with its secrets.
    pub client: Client,
    /// `None`: never.
    pub last_used: Option<LastUse>,
}
