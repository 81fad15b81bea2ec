//! Stub of the real one.
use crate::id::{ClientId, PracticeId, UserId};
use http::HeaderValue;

/// Ready-made values of the identity fields.
#[derive(Debug)]
pub struct Identity {
    /// `X-SigmaMD-Client-Id`
    pub client_id: HeaderValue,
    /// `X-SigmaMD-Practice-Id`
    pub practice_id: HeaderValue,
    /// `X-SigmaMD-User-Id`
    pub user_id: Option<HeaderValue>,
    /// `X-SigmaMD-Scopes`
    pub scopes: HeaderValue,
}

/// A client.
#[derive(Debug)]
pub struct ClientRecord {
    pub(crate) id: ClientId,
    pub(crate) practice: PracticeId,
    pub(crate) owner: Option<UserId>,
    pub(crate) scopes: String,
    pub(crate) identity: Identity,
}

impl ClientRecord {
    /// Its id.
    pub fn id(&self) -> ClientId {
        self.id
    }
    /// Its practice.
    pub fn practice_id(&self) -> &PracticeId {
        &self.practice
    }
    /// Its owner.
    pub fn owner_id(&self) -> Option<&UserId> {
        self.owner.as_ref()
    }
    /// Its scopes.
    pub fn scopes_text(&self) -> &str {
        &self.scopes
    }
    /// Its fields.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}
