//! The people of a practice: who they are beyond what access depends on.

use std::sync::Arc;

use crate::entity::{Role, User};
use crate::id::UserId;

/// A user, with what people call and reach them by.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct TeamMember {
    /// The user.
    #[serde(flatten)]
    pub user: User,
    /// For people.
    pub name: Option<Arc<str>>,
    /// Where mail reaches them.
    pub email: Option<Arc<str>>,
}

/// What SigmaMD says of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TeamSync {
    /// They are on the team, and this is all there is to know of them: what is `None` is forgotten. Who is new starts with
    /// API access off.
    Put {
        /// Who.
        id: UserId,
        /// What they are in the practice.
        role: Role,
        /// 1 to 200 characters.
        name: Option<Arc<str>>,
        /// 3 to 254 characters.
        email: Option<Arc<str>>,
    },
    /// They are not on the team any more, and their API access has ended.
    Remove {
        /// Who.
        id: UserId,
    },
}

impl TeamSync {
    /// Who it is about.
    pub fn id(&self) -> &UserId {
        match self {
            Self::Put { id, .. } | Self::Remove { id } => id,
        }
    }
}
