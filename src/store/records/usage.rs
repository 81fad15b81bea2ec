//! What clients do, by the day.

use std::net::IpAddr;

use super::ClientRow;
use crate::clock::{Day, Timestamp};
use crate::id::ClientId;
use crate::scope::ScopeToken;

/// So many requests more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageDelta {
    /// When.
    pub day: Day,
    /// Whose.
    pub client: ClientId,
    /// By which scope they were admitted, or which they lacked; `None`: none was needed.
    pub scope: Option<ScopeToken>,
    /// How many there were.
    pub requests: u64,
    /// How many of them were refused.
    pub refused: u64,
}

/// A secret was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretUse {
    /// Whose.
    pub client: ClientId,
    /// Which; 0: a key of the client's own.
    pub generation: u32,
    /// When it was last used.
    pub at: Timestamp,
    /// From where.
    pub address: IpAddr,
}

/// How many requests there were, of one client, on one day, by one scope.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct UsageRow {
    /// When.
    pub day: Day,
    /// Whose.
    pub client: ClientId,
    /// By which scope they were admitted, or which they lacked; `None`: none was needed.
    pub scope: Option<ScopeToken>,
    /// How many there were.
    pub requests: u64,
    /// How many of them were refused.
    pub refused: u64,
}

/// Who would miss the API access of a practice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Active {
    /// Clients of the practice that were used, the last used first.
    pub clients: Vec<ClientRow>,
    /// How many people have used personal clients: not who, and not which.
    pub people: u64,
}
