//! The checks that a request with a genuine credential must pass, in their order.

use super::{CredentialFault, Denial};
use crate::entity::ApiAccess;
use crate::route::{Requirement, Route};
use crate::scope::ScopeSet;

/// What is true of a client, its practice, its owner and its caller at the moment of the decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The client was revoked.
    pub revoked: bool,
    /// The client's own expiry has passed.
    pub expired: bool,
    /// The practice's state.
    pub practice: ApiAccess,
    /// The owner, when the client is personal.
    pub owner: Option<OwnerFacts>,
    /// The client has no address list, or the caller's address is in it.
    pub address_allowed: bool,
    /// What the client was granted.
    pub scopes: ScopeSet,
    /// Access is being taken from the client, its practice or its owner, and it is not yet known whether it will be.
    pub fenced: bool,
}

/// What is true of the owner of a personal client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerFacts {
    /// The toggle.
    pub api_access: bool,
    /// Still on the team.
    pub on_team: bool,
}

/// One of the checks, in the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// Neither revoked nor expired.
    Client,
    /// The practice is active.
    Practice,
    /// The owner's toggle is on, and the owner is on the team.
    Owner,
    /// The caller's address is allowed.
    Address,
    /// The scopes meet the route's requirement.
    Scope,
    /// No transaction is waiting to take the access away.
    Fence,
}

impl Check {
    /// Every check, in order.
    pub const EVERY: [Self; 6] = [Self::Client, Self::Practice, Self::Owner, Self::Address, Self::Scope, Self::Fence];

    /// The word for it in an explanation.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Practice => "practice",
            Self::Owner => "user",
            Self::Address => "address",
            Self::Scope => "scope",
            Self::Fence => "fence",
        }
    }

    /// `route`: `None` where nothing is asked for but to be who one is.
    fn denial(self, route: Option<&Route>, facts: &Facts) -> Option<Denial> {
        match self {
            Self::Client if facts.revoked => Some(Denial::CredentialInvalid(CredentialFault::Revoked)),
            Self::Client if facts.expired => Some(Denial::CredentialInvalid(CredentialFault::Expired)),
            Self::Practice if facts.practice != ApiAccess::Active => Some(Denial::PracticeDisabled),
            Self::Owner if facts.owner.is_some_and(|owner| !owner.api_access || !owner.on_team) => Some(Denial::UserDisabled),
            Self::Address if !facts.address_allowed => Some(Denial::AddressNotAllowed),
            Self::Scope => {
                let route = route.filter(|route| !route.requirement.met_by(facts.scopes))?;
                Some(Denial::InsufficientScope(route.scopes.clone()))
            }
            Self::Fence if facts.fenced => Some(Denial::Unavailable),
            Self::Client | Self::Practice | Self::Owner | Self::Address | Self::Fence => None,
        }
    }
}

/// Proof that the answer was yes. Nothing else can make one, and nothing is forwarded without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Authorized(());

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which check.
    pub check: Check,
    /// The refusal, if it refuses.
    pub denial: Option<Denial>,
}

/// Whether the holder of a genuine credential may pass: the first refusal, in the order of [`Check::EVERY`].
///
/// # Errors
/// The denial of the first check that refuses.
pub fn authorize(route: &Route, facts: &Facts) -> Result<Authorized, Denial> {
    first_denial(Some(route), facts).map_or(Ok(Authorized(())), Err)
}

/// Whether the holder of a genuine credential may act at all, whatever for.
///
/// # Errors
/// The denial of the first check that refuses.
pub fn standing(facts: &Facts) -> Result<(), Denial> {
    first_denial(None, facts).map_or(Ok(()), Err)
}

fn first_denial(route: Option<&Route>, facts: &Facts) -> Option<Denial> {
    Check::EVERY.into_iter().find_map(|check| check.denial(route, facts))
}

/// Whether anybody may pass: only on a public route.
#[must_use]
pub fn authorize_anonymous(route: &Route) -> Option<Authorized> {
    matches!(route.requirement, Requirement::Public).then_some(Authorized(()))
}

/// Every check and what it finds, for an explanation.
#[must_use]
pub fn steps(route: &Route, facts: &Facts) -> Vec<Step> {
    Check::EVERY.into_iter().map(|check| Step { check, denial: check.denial(Some(route), facts) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scope::{ScopeRegistry, ScopeToken};

    /// Every combination of facts, against the rules of access written out as one sentence.
    #[test]
    fn a_request_passes_only_if_everything_holds() {
        let registry = ScopeRegistry::default();
        let set = |names: &[&str]| {
            let tokens: Vec<ScopeToken> = names.iter().map(|name| name.parse().unwrap()).collect();
            registry.intern_all(&tokens).unwrap()
        };
        let (billing, both, all) = (set(&["billing"]), set(&["billing", "clinical"]), ScopeSet::ALL);
        let requirements = [(Requirement::AnyOf(both), [true, true, true, false]), (Requirement::AllOf(both), [false, true, true, false])];
        let owners = [None, Some((true, true)), Some((false, true)), Some((true, false)), Some((false, false))];
        let mut passed = 0;
        for (requirement, enough) in requirements {
            let route = crate::route::tests_support::route("/a", requirement);
            for (revoked, expired, address_allowed, fenced) in (0..16).map(|n| (n & 1 != 0, n & 2 != 0, n & 4 != 0, n & 8 != 0)) {
                for practice in ApiAccess::EVERY.iter().copied() {
                    for owner in owners {
                        for (scopes, enough) in [billing, both, all, ScopeSet::EMPTY].into_iter().zip(enough) {
                            let owner = owner.map(|(api_access, on_team)| OwnerFacts { api_access, on_team });
                            let facts = Facts { revoked, expired, practice, owner, address_allowed, scopes, fenced };
                            let want = !revoked
                                && !expired
                                && practice == ApiAccess::Active
                                && owner.is_none_or(|owner| owner.api_access && owner.on_team)
                                && address_allowed
                                && !fenced
                                && enough;
                            assert_eq!(authorize(&route, &facts).is_ok(), want, "{facts:?}");
                            let first = steps(&route, &facts).into_iter().find_map(|step| step.denial);
                            assert_eq!(authorize(&route, &facts).err(), first, "the explanation says the same");
                            let unasked = standing(&facts).err();
                            assert_eq!(unasked, first.filter(|first| !matches!(first, Denial::InsufficientScope(_))).or(unasked.clone()));
                            assert_eq!(unasked.is_none(), want || standing(&Facts { scopes: ScopeSet::ALL, ..facts }).is_ok());
                            passed += usize::from(want);
                        }
                    }
                }
            }
            assert!(authorize_anonymous(&route).is_none());
        }
        assert_eq!(passed, 2 * (3 + 2));
        assert!(authorize_anonymous(&crate::route::tests_support::route("/a", Requirement::Public)).is_some());
    }
}
