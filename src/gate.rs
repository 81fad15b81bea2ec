//! One request from start to finish: parse, route, method, authenticate, client, practice, user, address, scope, rate
//! limit. No I/O: every fact is in memory.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::access::{Authorized, CredentialFault, Denial, Facts, MalformedRequest, authorize, authorize_anonymous};
use crate::authn::{self, Credential};
use crate::bearer::{Bearer, Bearers, Origin, Unread, Wanted};
use crate::cache::{Epoch, Identity, Party, Replica, SecretMatch, Stale, Touched, View};
use crate::clock::{self, Timestamp};
use crate::credential::{Pepper, Presented, Secret};
use crate::id::ClientId;
use crate::limit::{ClientLimits, Counted, FailureLimit, Over, Quota, Slot, Tier, TierId, TierNames};
use crate::route::{Method, NotFound, RequestTarget, Route, RouteTable};
use crate::scope::ScopeToken;
use crate::token::Means;

/// What of a request the decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method as sent.
    pub method: &'a [u8],
    /// The request target in origin-form, as sent.
    pub target: &'a [u8],
    /// The value of the one `Authorization` field.
    pub authorization: Option<&'a [u8]>,
    /// Who is calling.
    pub peer: IpAddr,
}

/// What was decided, and what was learnt on the way.
#[derive(Debug)]
pub struct Decision<'a> {
    /// The canonical target: what is to be forwarded.
    pub target: Option<RequestTarget<'a>>,
    /// The route, if one was found.
    pub route: Option<Arc<Route>>,
    /// Whose credential was shown.
    pub whose: Whose,
    /// What is left of the client's rate limit.
    pub quota: Option<Quota>,
    /// Yes or no.
    pub outcome: Result<Permit, Denial>,
}

/// Whose credential was shown. It says nothing of what it is good for.
#[derive(Clone, Debug, Default)]
pub struct Whose {
    /// Whom the request acts as, if the credential is genuine, or would act as if its time were not over.
    pub party: Option<Party>,
    /// The secret that was shown although it had ended, or its client had.
    pub ended: Option<u32>,
}

impl Whose {
    /// Takes note of somebody whom a denial met.
    pub fn refused(&mut self, proof: &Proof, denial: &Denial) {
        if let (Proof::Secret(generation), Denial::CredentialInvalid(CredentialFault::Revoked | CredentialFault::Expired)) = (proof, denial)
        {
            self.ended = Some(*generation);
        }
    }
}

/// Leave to forward one request.
#[derive(Debug)]
pub struct Permit {
    route: Arc<Route>,
    caller: Option<Caller>,
    peer: IpAddr,
    _authorized: Authorized,
}

#[derive(Debug)]
struct Caller {
    party: Party,
    proof: Proof,
    epoch: Epoch,
    /// Its place among the requests that are under way at once, where its tier counts them.
    _slot: Option<Box<Slot>>,
}

/// What a caller has shown.
#[derive(Clone, Debug)]
pub enum Proof {
    /// The secret of this generation.
    Secret(u32),
    /// A bearer token.
    Bearer(Arc<Bearer>),
}

/// Somebody whose credential is genuine: whether they may do anything is another question.
#[derive(Debug)]
pub struct Known {
    /// Whom they act as.
    pub party: Party,
    /// What they have shown.
    pub proof: Proof,
    /// What is true of them.
    pub facts: Facts,
    epoch: Epoch,
}

impl Permit {
    /// The route.
    #[must_use]
    pub const fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// Whether it was given in the grace that the route has after the end of the lease.
    #[must_use]
    pub fn in_grace(&self) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.epoch.in_grace())
    }

    /// The secret by which the caller was admitted, directly or with a token got by it; 0: a key of the client's own.
    #[must_use]
    pub fn generation(&self) -> Option<u32> {
        let caller = self.caller.as_ref()?;
        let means = match &caller.proof {
            Proof::Secret(generation) => return Some(*generation),
            Proof::Bearer(bearer) => match bearer.origin() {
                Origin::Own { means, .. } => means,
                Origin::Trusted { .. } => return None,
            },
        };
        match means {
            Means::Secret(generation) => Some(*generation),
            Means::Key(_) => Some(0),
        }
    }

    /// Whom the request acts as; nobody on a public route.
    #[must_use]
    pub fn party(&self) -> Option<&Party> {
        self.caller.as_ref().map(|caller| &caller.party)
    }

    /// Who the caller is, for the upstream; nobody on a public route.
    #[must_use]
    pub fn identity(&self) -> Option<Identity> {
        self.caller.as_ref().map(|Caller { party, proof, .. }| match proof {
            Proof::Secret(_) => party.identity(None),
            Proof::Bearer(bearer) => party.identity(Some(bearer.scopes(party))),
        })
    }

    /// Whether it may rest on something that has changed.
    #[must_use]
    pub fn concerned_by(&self, touched: &Touched<'_>) -> bool {
        self.caller.as_ref().is_some_and(|caller| touched.concerns(&caller.party, matches!(caller.proof, Proof::Bearer(_))))
    }
}

/// Decides who may pass.
pub struct Gate {
    replica: Arc<Replica>,
    routes: ArcSwap<RouteTable>,
    limits: ClientLimits,
    failures: FailureLimit,
    pepper: Option<Arc<Pepper>>,
    bearers: Arc<Bearers>,
    /// The scopes that the route map declares.
    scopes: ArcSwap<Vec<ScopeToken>>,
}

/// How many failed authentications an address has.
#[derive(Clone, Copy, Debug)]
pub struct FailureBudget {
    /// In a minute, for ever.
    pub per_minute: NonZeroU32,
    /// At once, after a pause.
    pub burst: NonZeroU32,
}

impl Gate {
    /// A gate over this replica, with no routes yet: everything is refused.
    #[must_use]
    pub fn new(
        replica: Arc<Replica>,
        tiers: Arc<TierNames>,
        failures: FailureBudget,
        pepper: Option<Arc<Pepper>>,
        bearers: Arc<Bearers>,
    ) -> Self {
        let routes = RouteTable::new(Vec::new(), false).expect("no routes, no conflict");
        Self {
            replica,
            routes: ArcSwap::from_pointee(routes),
            limits: ClientLimits::new(tiers),
            failures: FailureLimit::new(failures.per_minute, failures.burst),
            pepper,
            bearers,
            scopes: ArcSwap::default(),
        }
    }

    /// Says which scopes the route map declares.
    pub fn declare(&self, scopes: Vec<ScopeToken>) {
        self.scopes.store(Arc::new(scopes));
    }

    /// The scopes that the route map declares.
    #[must_use]
    pub fn scopes(&self) -> Arc<Vec<ScopeToken>> {
        self.scopes.load_full()
    }

    /// The replica that decisions rest on.
    #[must_use]
    pub const fn replica(&self) -> &Arc<Replica> {
        &self.replica
    }

    /// Puts a route map in the place of the one before; requests under way go on with theirs.
    pub fn install(&self, routes: Arc<RouteTable>, tiers: impl IntoIterator<Item = Tier>) {
        self.limits.install(tiers);
        self.replica.want_grace(routes.longest_stale_grace());
        self.routes.store(routes);
    }

    /// Has `settle` run whenever a permit given earlier may no longer hold: see [`Replica::on_change`].
    pub fn on_change(&self, settle: crate::cache::Settle) {
        self.replica.on_change(settle);
    }

    /// What reads tokens.
    #[must_use]
    pub const fn bearers(&self) -> &Arc<Bearers> {
        &self.bearers
    }

    /// The route map in force.
    #[must_use]
    pub fn routes(&self) -> Arc<RouteTable> {
        self.routes.load_full()
    }

    /// Says how many gateways share the limits.
    pub fn share(&self, nodes: usize) {
        self.limits.share(nodes);
    }

    /// Forgets limits that nobody is near. To be called once in a while.
    pub fn prune(&self) {
        self.limits.prune();
        self.failures.prune();
    }

    /// Decides about a request by what is known here.
    #[must_use]
    pub fn decide<'a>(&self, request: &Request<'a>) -> Decision<'a> {
        let mut decision = Decision { target: None, route: None, whose: Whose::default(), quota: None, outcome: Err(Denial::Internal) };
        decision.outcome = self.outcome(request, &mut decision).map_err(|unable| self.at_last(unable, request.peer));
        decision
    }

    /// Decides about a request, unless that may take a key that is still to be fetched: fetch it, and then [`decide`].
    ///
    /// # Errors
    /// [`Wanted`] is that key; nothing was counted.
    ///
    /// [`decide`]: Self::decide
    pub fn try_decide<'a>(&self, request: &Request<'a>) -> Result<Decision<'a>, Wanted> {
        let mut decision = Decision { target: None, route: None, whose: Whose::default(), quota: None, outcome: Err(Denial::Internal) };
        decision.outcome = match self.outcome(request, &mut decision) {
            Ok(permit) => Ok(permit),
            Err(Unable::Refused(denial)) => Err(denial),
            Err(Unable::KeyWanted(wanted)) => return Err(wanted),
        };
        Ok(decision)
    }

    fn at_last(&self, unable: Unable, peer: IpAddr) -> Denial {
        match unable {
            Unable::Refused(denial) => denial,
            Unable::KeyWanted(wanted) => self.refused(Unread::KeyWanted(wanted).into(), peer),
        }
    }

    fn outcome<'a>(&self, request: &Request<'a>, decision: &mut Decision<'a>) -> Result<Permit, Unable> {
        let target = RequestTarget::parse(request.target).map_err(|why| Denial::Malformed(MalformedRequest::Target(why.detail())))?;
        let target = decision.target.insert(target);
        if target.query().is_some_and(authn::credential_in_query) {
            return Err(Denial::Malformed(MalformedRequest::CredentialInQuery).into());
        }
        let route = {
            let routes = self.routes.load();
            let found = routes.find(target.path(), Method::parse(request.method)).map_err(|why| match why {
                NotFound::NoRoute => Denial::NoRoute,
                NotFound::MethodNotAllowed(allow) => Denial::MethodNotAllowed(allow),
            })?;
            Arc::clone(found)
        };
        let route = decision.route.insert(route);
        if target.has_parameters() && !route.allow_path_parameters {
            return Err(Denial::Malformed(MalformedRequest::Target("this path takes no `;` parameters")).into());
        }
        if let Some(authorized) = authorize_anonymous(route) {
            return Ok(Permit { route: Arc::clone(route), caller: None, peer: request.peer, _authorized: authorized });
        }
        let presented = authn::credential(request.authorization).map_err(|denial| self.refused(denial, request.peer))?;
        let known = self.known(&presented, request.peer, route.stale_grace, &mut decision.whose)?;
        let authorized = authorize(route, &known.facts).map_err(|denial| {
            decision.whose.refused(&known.proof, &denial);
            self.refused(denial, request.peer)
        })?;
        let (counted, tier) = counted(&known.party);
        let slot = match self.limits.admit(&counted, known.party.practice_id(), tier) {
            Ok((quota, slot)) => {
                decision.quota = quota;
                slot
            }
            Err(Over::Often(quota, retry_after_secs)) => {
                decision.quota = Some(quota);
                return Err(Denial::RateLimited { retry_after_secs }.into());
            }
            Err(Over::AtOnce(quota)) => {
                decision.quota = Some(quota);
                return Err(Denial::TooManyAtOnce.into());
            }
        };
        let caller = Caller { party: known.party, proof: known.proof, epoch: known.epoch, _slot: slot };
        Ok(Permit { route: Arc::clone(route), caller: Some(caller), peer: request.peer, _authorized: authorized })
    }

    /// Whose credential this is, if it is genuine; `whose` says it too if its time is over.
    ///
    /// # Errors
    /// [`Denial::CredentialInvalid`], counted against the address; [`Denial::Unavailable`] without a valid lease.
    pub fn authenticate(&self, presented: &Credential<'_>, peer: IpAddr, grace: Duration, whose: &mut Whose) -> Result<Known, Denial> {
        self.known(presented, peer, grace, whose).map_err(|unable| self.at_last(unable, peer))
    }

    fn known(&self, presented: &Credential<'_>, peer: IpAddr, grace: Duration, whose: &mut Whose) -> Result<Known, Unable> {
        let now = clock::now();
        let (judged, epoch) = match presented {
            Credential::Basic(id, secret) => self.by_secret(*id, secret, peer, now, grace, whose)?,
            Credential::Bearer(token) => {
                let bearer = self.bearers.read(token, now).map_err(|unread| match unread {
                    Unread::KeyWanted(wanted) => Unable::KeyWanted(wanted),
                    Unread::Invalid(_) => Unable::Refused(self.refused(unread.into(), peer)),
                })?;
                let (judged, epoch) =
                    self.replica.view(grace, |view| bearer.stands(view, peer, now)).map_err(|Stale| Denial::Unavailable)?;
                (judged.map(|(party, facts)| (party, facts, Proof::Bearer(bearer))), epoch)
            }
        };
        let (party, facts, proof) = judged.map_err(|fault| self.refused(Denial::CredentialInvalid(fault), peer))?;
        whose.party = Some(party.clone());
        Ok(Known { party, proof, facts, epoch })
    }

    fn by_secret(
        &self,
        id: ClientId,
        secret: &Secret,
        peer: IpAddr,
        now: Timestamp,
        grace: Duration,
        whose: &mut Whose,
    ) -> Result<(Judged, Epoch), Denial> {
        let presented = Presented::new(secret, self.pepper.as_deref());
        let judged = self.replica.read(id, grace, |client| {
            let Some(client) = client else {
                // As much work as for a client that exists.
                std::hint::black_box(presented.proves(Presented::nobody()));
                return Err(CredentialFault::UnknownClient);
            };
            match client.match_secret(&presented, now) {
                SecretMatch::Wrong => Err(CredentialFault::WrongSecret),
                SecretMatch::Ended(generation) => {
                    *whose = Whose { party: Some(Party::Client(Arc::clone(client))), ended: Some(generation) };
                    Err(CredentialFault::SecretEnded)
                }
                SecretMatch::Usable(generation) => {
                    Ok((Party::Client(Arc::clone(client)), client.facts(peer, now), Proof::Secret(generation)))
                }
            }
        });
        judged.map_err(|Stale| Denial::Unavailable)
    }

    /// Counts a request of a party; what is left to it, and whether it may go on.
    pub fn count(&self, party: &Party) -> (Option<Quota>, Result<(), Denial>) {
        let (counted, tier) = counted(party);
        match self.limits.check(&counted, party.practice_id(), tier) {
            Ok(quota) => (quota, Ok(())),
            Err((quota, retry_after_secs)) => (Some(quota), Err(Denial::RateLimited { retry_after_secs })),
        }
    }

    /// Asks again: before the request is sent on, before its answer begins, and before each piece of either. In the
    /// meantime the answer may have changed.
    ///
    /// # Errors
    /// The denial that the request would meet now.
    pub fn recheck(&self, permit: &Permit) -> Result<(), Denial> {
        let Some(caller) = &permit.caller else { return Ok(()) };
        let grace = permit.route.stale_grace;
        if self.replica.unchanged_since(caller.epoch, grace) {
            return Ok(());
        }
        let now = clock::now();
        let proof = match &caller.proof {
            Proof::Secret(generation) => Proof::Secret(*generation),
            Proof::Bearer(bearer) => Proof::Bearer(self.bearers.again(bearer, now)?),
        };
        let judged = self.replica.view(grace, |view| still(view, caller, &proof, permit, now));
        let (judged, _) = judged.map_err(|Stale| Denial::Unavailable)?;
        judged
    }

    /// A refusal that counts against the address, if it is about a credential that does not work.
    pub fn refused(&self, denial: Denial, peer: IpAddr) -> Denial {
        if !matches!(denial, Denial::CredentialInvalid(_)) {
            return denial;
        }
        match self.failures.failed(peer) {
            Ok(()) => denial,
            Err(retry_after_secs) => Denial::TooManyFailures { retry_after_secs },
        }
    }
}

/// Why there is no decision, or no good one.
enum Unable {
    Refused(Denial),
    KeyWanted(Wanted),
}

impl From<Denial> for Unable {
    fn from(denial: Denial) -> Self {
        Self::Refused(denial)
    }
}

/// Whose requests those of a party are, and by which tier they are counted.
fn counted(party: &Party) -> (Counted, TierId) {
    match party.client() {
        Some(client) => (Counted::Client(client.id()), client.tier()),
        None => (Counted::Team(party.practice_id().clone(), party.user_id().cloned()), TierId::default()),
    }
}

type Judged = Result<(Party, Facts, Proof), CredentialFault>;

fn still(view: &View<'_>, caller: &Caller, proof: &Proof, permit: &Permit, now: Timestamp) -> Result<(), Denial> {
    let facts = match (proof, caller.party.client_id()) {
        (Proof::Bearer(bearer), _) => bearer.stands(view, permit.peer, now).map(|(_, facts)| facts),
        (Proof::Secret(generation), Some(id)) => match view.client(id) {
            None => Err(CredentialFault::UnknownClient),
            Some(client) if !client.secret_usable(*generation, now) => Err(CredentialFault::SecretEnded),
            Some(client) => Ok(client.facts(permit.peer, now)),
        },
        (Proof::Secret(_), None) => Err(CredentialFault::UnknownClient),
    };
    authorize(&permit.route, &facts.map_err(Denial::CredentialInvalid)?).map(|_| ())
}

#[cfg(test)]
mod tests;
