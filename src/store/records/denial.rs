//! Requests that were refused.

use std::net::IpAddr;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::id::{ClientId, PracticeId, Revision, UserId};

/// One request that was refused. Never its query, its body, or what it presented.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DenialRow {
    /// The id that its caller was given, or chose.
    pub request_id: Arc<str>,
    /// When.
    pub at: Timestamp,
    /// Whose data it asked for.
    pub practice: PracticeId,
    /// By which client.
    pub client: Option<ClientId>,
    /// On behalf of whom.
    pub user: Option<UserId>,
    /// The owner of the client, if it is personal: nobody else is shown the row.
    pub owner: Option<UserId>,
    /// The prefix of the route.
    pub route: Arc<str>,
    /// The method, as sent.
    pub method: Arc<str>,
    /// The path in its canonical spelling.
    pub path: Arc<str>,
    /// The label of the denial.
    pub reason: Arc<str>,
    /// The status of the answer.
    pub status: u16,
    /// From where.
    pub address: IpAddr,
    /// The newest change that was in force where it was refused.
    pub revision: Revision,
}

impl DenialRow {
    /// The place after which the next page begins.
    #[must_use]
    pub fn place(&self) -> DenialPlace {
        DenialPlace { at: self.at, request_id: self.request_id.clone() }
    }
}

/// A place among the denials of a practice. The row that was there may be forgotten by now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenialPlace {
    /// When.
    pub at: Timestamp,
    /// The request.
    pub request_id: Arc<str>,
}
