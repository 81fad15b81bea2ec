//! Whom a token speaks for, and whether it still does.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::trusted::{SignedBy, Trusted};
use crate::access::{CredentialFault, Facts};
use crate::cache::{ClientRecord, Party, View};
use crate::clock::Timestamp;
use crate::id::{ClientId, KeyId, PracticeId, TokenId, UserId};
use crate::scope::{ScopeRegistry, ScopeSet, ScopeToken};
use crate::token::Means;

/// A token that was found genuine.
#[derive(Debug)]
pub struct Bearer {
    /// Itself, to be read again when what its issuer is trusted for has changed.
    pub(super) token: Arc<[u8]>,
    pub(super) origin: Origin,
    pub(super) holder: Holder,
    pub(super) scopes: Narrowed,
    pub(super) issued_at: Option<Timestamp>,
    pub(super) expires_at: Timestamp,
    pub(super) leeway: Duration,
}

/// Who has issued a token.
#[derive(Debug)]
pub enum Origin {
    /// We have.
    Own {
        /// Its own id.
        token: TokenId,
        /// The key that it is signed by.
        key: KeyId,
        /// What it was got with.
        means: Means,
    },
    /// An issuer that is trusted.
    Trusted {
        /// Which one.
        issuer: Arc<Trusted>,
        /// The key that it is signed by.
        key: SignedBy,
    },
}

/// For whom a token speaks.
#[derive(Debug)]
pub(super) enum Holder {
    /// A client; of this practice and for this user, if the issuer says so.
    Client { id: ClientId, practice: Option<PracticeId>, user: Option<UserId> },
    /// A practice, or one of its people.
    Team { practice: PracticeId, user: Option<UserId> },
}

/// The scopes that a token was made for: at most those that count now.
#[derive(Debug)]
pub(super) struct Narrowed {
    set: ScopeSet,
    names: Box<[(ScopeToken, ScopeSet)]>,
    header: HeaderValue,
    /// Some name was not known yet when the token was read: it is to be read again once more names are.
    known_of: Option<usize>,
}

impl Narrowed {
    pub(super) fn new(scopes: &[ScopeToken], registry: &ScopeRegistry) -> Self {
        let known = registry.known();
        let (mut names, mut unknown): (Vec<(ScopeToken, ScopeSet)>, bool) = (Vec::new(), false);
        for scope in scopes {
            match registry.find(scope) {
                None => unknown = true,
                // What is said twice is not kept twice.
                Some(_) if names.iter().any(|(name, _)| name == scope) => {}
                Some(set) => names.push((scope.clone(), set)),
            }
        }
        let set = names.iter().fold(ScopeSet::EMPTY, |all, (_, set)| all.union(*set));
        let known_of = unknown.then_some(known);
        Self { set, header: header(names.iter().map(|(name, _)| name)), names: names.into(), known_of }
    }

    pub(super) fn is_outdated(&self, registry: &ScopeRegistry) -> bool {
        self.known_of.is_some_and(|known| registry.known() != known)
    }
}

fn header<'a>(names: impl Iterator<Item = &'a ScopeToken>) -> HeaderValue {
    let text = names.map(ScopeToken::as_str).collect::<Vec<_>>().join(" ");
    HeaderValue::try_from(text).expect("scopes are printable ASCII")
}

impl Bearer {
    /// Who has issued it.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The client that it speaks for, if there is one.
    #[must_use]
    pub const fn client_id(&self) -> Option<ClientId> {
        match &self.holder {
            Holder::Client { id, .. } => Some(*id),
            Holder::Team { .. } => None,
        }
    }

    /// When it was issued, if it says so.
    #[must_use]
    pub const fn issued_at(&self) -> Option<Timestamp> {
        self.issued_at
    }

    /// From when on it is over, but for the leeway.
    #[must_use]
    pub const fn expires_at(&self) -> Timestamp {
        self.expires_at
    }

    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        now >= self.expires_at.after(self.leeway)
    }

    /// For whom it speaks, and what is true of them now.
    ///
    /// # Errors
    /// Why it counts no longer, though it is genuine and its time is not over.
    pub fn stands(&self, view: &View<'_>, peer: IpAddr, now: Timestamp) -> Result<(Party, Facts), CredentialFault> {
        if self.is_over(now) {
            return Err(CredentialFault::TokenExpired);
        }
        match &self.origin {
            Origin::Own { key, .. } if !view.trusts(key) => return Err(CredentialFault::KeyEnded),
            Origin::Own { token, .. } if view.is_revoked(*token) => return Err(CredentialFault::TokenRevoked),
            Origin::Trusted { issuer, .. } if issuer.is_retired() => return Err(CredentialFault::UntrustedToken),
            Origin::Trusted { issuer, key } if !issuer.vouches_for(key) => return Err(CredentialFault::KeyEnded),
            Origin::Own { .. } | Origin::Trusted { .. } => {}
        }
        let party = match &self.holder {
            Holder::Client { id, practice, user } => {
                let client = view.client(*id).ok_or(CredentialFault::UnknownClient)?;
                if let Origin::Own { means, .. } = &self.origin
                    && !client.means_usable(means, now)
                {
                    return Err(match means {
                        Means::Secret(_) => CredentialFault::SecretEnded,
                        Means::Key(_) => CredentialFault::KeyEnded,
                    });
                }
                through(view, client, practice.as_ref(), user.as_ref())?
            }
            Holder::Team { practice, user } => Party::Team(Arc::new(view.team(practice, user.as_ref(), None))),
        };
        let facts = party.facts(peer, now);
        let scopes = if party.client().is_some() { facts.scopes.intersection(self.scopes.set) } else { self.scopes.set };
        Ok((party, Facts { scopes, ..facts }))
    }

    /// The names of the scopes that count: those of the token that `party` still has.
    #[must_use]
    pub fn scopes(&self, party: &Party) -> HeaderValue {
        let Some(client) = party.client() else { return self.scopes.header.clone() };
        let granted = client.scopes();
        if granted.covers(self.scopes.set) {
            return self.scopes.header.clone();
        }
        if self.scopes.set == ScopeSet::ALL {
            return HeaderValue::from_str(client.scope_text()).expect("scopes are printable ASCII");
        }
        header(self.scopes.names.iter().filter(|(_, set)| granted.covers(*set)).map(|(name, _)| name))
    }
}

/// A client as an issuer names it. It has to be of the practice; a user comes by their own client, or by one of the practice.
fn through(
    view: &View<'_>,
    client: Arc<ClientRecord>,
    practice: Option<&PracticeId>,
    user: Option<&UserId>,
) -> Result<Party, CredentialFault> {
    if practice.is_some_and(|practice| practice != client.practice_id()) {
        return Err(CredentialFault::MisdirectedToken);
    }
    match (user, client.owner_id()) {
        (None, _) => Ok(Party::Client(client)),
        (Some(user), Some(owner)) if user == owner => Ok(Party::Client(client)),
        (Some(_), Some(_)) => Err(CredentialFault::MisdirectedToken),
        (Some(user), None) => {
            let practice = client.practice_id().clone();
            Ok(Party::Team(Arc::new(view.team(&practice, Some(user), Some(client)))))
        }
    }
}
