//! The gateways of a fleet, as the register has them.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::id::Revision;

/// A gateway in the register: every change waits for it, until it has shown no heartbeat for as long as it may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Which; another one after each start.
    pub id: Arc<str>,
    /// What it calls itself, if it says so.
    pub name: Option<Arc<str>>,
    /// Of which version its program is, if it says so.
    pub version: Option<Arc<str>>,
    /// Since when it has been there.
    pub started_at: Timestamp,
    /// The newest change that is in force on it.
    pub applied: Revision,
    /// How many changes it has not applied yet; `None` if it follows another history of the database, as after a failover.
    pub behind: Option<u64>,
    /// For how long it may go on answering after its last heartbeat.
    pub bound: Duration,
}
