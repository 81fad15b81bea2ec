//! Whom a request acts as: a client of ours, or somebody for whom a trusted issuer speaks.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderValue;

use super::client::{Identity, header};
use super::{ClientRecord, PracticeCell, Tables, Touched, UserCell, owner_facts};
use crate::access::Facts;
use crate::clock::Timestamp;
use crate::entity::ApiAccess;
use crate::id::{ClientId, PracticeId, UserId};
use crate::scope::ScopeSet;
use crate::store::Change;

/// A practice, or one of its people, that a trusted issuer has named: by themselves, or through a client of the practice.
#[derive(Clone)]
pub struct TeamRecord {
    practice_id: PracticeId,
    /// `None`: nobody has told us about it, so it is off.
    practice: Option<Arc<PracticeCell>>,
    user: Option<(UserId, Option<Arc<UserCell>>)>,
    client: Option<Arc<ClientRecord>>,
}

impl TeamRecord {
    pub(super) fn find(tables: &Tables, practice: &PracticeId, user: Option<&UserId>, client: Option<Arc<ClientRecord>>) -> Self {
        Self {
            practice_id: practice.clone(),
            practice: tables.practices.get(practice).map(|cell| Arc::clone(&cell)),
            user: user.map(|user| (user.clone(), tables.users.get(user).map(|cell| Arc::clone(&cell)))),
            client,
        }
    }

    /// What is true of the practice and the user; and of the client, if there is one.
    fn facts(&self, peer: IpAddr, now: Timestamp) -> Facts {
        let practice = self.practice.as_ref();
        let user = self.user.as_ref().map(|(_, cell)| cell.as_ref());
        let own = Facts {
            fenced: practice.is_some_and(|practice| practice.is_fenced()) || user.flatten().is_some_and(|user| user.is_fenced()),
            revoked: false,
            expired: false,
            practice: practice.map_or(ApiAccess::None, |practice| practice.access()),
            owner: user.map(|user| owner_facts(user.zip(practice))),
            address_allowed: true,
            scopes: ScopeSet::EMPTY,
        };
        match &self.client {
            None => own,
            Some(client) => {
                let of_client = client.facts(peer, now);
                Facts { fenced: own.fenced || of_client.fenced, owner: own.owner, ..of_client }
            }
        }
    }
}

/// Whom a request acts as.
#[derive(Clone)]
pub enum Party {
    /// A client.
    Client(Arc<ClientRecord>),
    /// Somebody for whom a trusted issuer speaks.
    Team(Arc<TeamRecord>),
}

impl std::fmt::Debug for Party {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Client(client) => client.fmt(f),
            Self::Team(team) => write!(f, "Team({}, {:?}, {:?})", team.practice_id, self.user_id(), self.client_id()),
        }
    }
}

impl Party {
    /// Its practice.
    #[must_use]
    pub fn practice_id(&self) -> &PracticeId {
        match self {
            Self::Client(client) => client.practice_id(),
            Self::Team(team) => &team.practice_id,
        }
    }

    /// The client, if it is one of ours.
    #[must_use]
    pub fn client(&self) -> Option<&Arc<ClientRecord>> {
        match self {
            Self::Client(client) => Some(client),
            Self::Team(team) => team.client.as_ref(),
        }
    }

    /// The client's id, if it is one of ours.
    #[must_use]
    pub fn client_id(&self) -> Option<ClientId> {
        self.client().map(|client| client.id())
    }

    /// The user: the owner of a personal client, or the one whom the issuer named.
    #[must_use]
    pub fn user_id(&self) -> Option<&UserId> {
        match self {
            Self::Client(client) => client.owner_id(),
            Self::Team(team) => team.user.as_ref().map(|(user, _)| user),
        }
    }

    /// What is true of it for a caller at `peer` at `now`. The scopes are those that it was granted here: none to whom only
    /// an issuer speaks for.
    #[must_use]
    pub fn facts(&self, peer: IpAddr, now: Timestamp) -> Facts {
        match self {
            Self::Client(client) => client.facts(peer, now),
            Self::Team(team) => team.facts(peer, now),
        }
    }

    /// Who the caller is, for the upstream, with these scopes in the place of those granted.
    #[must_use]
    pub fn identity(&self, scopes: Option<HeaderValue>) -> Identity {
        match self {
            Self::Client(client) => {
                let identity = client.identity();
                let scopes = scopes.unwrap_or_else(|| identity.scopes.clone());
                Identity { scopes, ..identity }
            }
            Self::Team(team) => Identity {
                practice_id: header(team.practice_id.as_str()),
                client_id: team.client.as_ref().and_then(|client| client.identity().client_id),
                user_id: team.user.as_ref().map(|(user, _)| header(user.as_str())),
                scopes: scopes
                    .or_else(|| team.client.as_ref().map(|client| client.identity().scopes))
                    .unwrap_or_else(|| HeaderValue::from_static("")),
            },
        }
    }

    /// Whether a decision about it may rest on something that has changed.
    pub(super) fn concerned_by(&self, change: &Change) -> bool {
        match change {
            Change::Client(id, _) => self.client_id() == Some(*id),
            Change::Practice(id, _) => id == self.practice_id(),
            Change::User(id, _) => self.user_id() == Some(id),
            // What a fence is about was told just before; of keys and tokens the one who holds them knows.
            Change::Fenced(_) | Change::SigningKey(..) | Change::RevokedToken(..) => false,
        }
    }
}

impl Touched<'_> {
    /// Whether a decision about this party, made by a token or not, may rest on something that has changed.
    #[must_use]
    pub fn concerns(&self, party: &Party, by_token: bool) -> bool {
        // Beyond some number it costs less to ask again than to look through them.
        const FEW: usize = 64;
        let Self::These(changes) = self else { return true };
        changes.len() > FEW
            || changes
                .iter()
                .any(|change| party.concerned_by(change) || by_token && matches!(change, Change::SigningKey(..) | Change::RevokedToken(..)))
    }
}
