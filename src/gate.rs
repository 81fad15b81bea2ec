//! One request from start to finish: parse, route, method, authenticate, client, practice, user, address, scope, rate
//! limit. No I/O: every fact is in memory.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::access::{Authorized, CredentialFault, Denial, MalformedRequest, authorize, authorize_anonymous};
use crate::authn::{self, Credential};
use crate::cache::{ClientRecord, Epoch, Replica, SecretMatch, Stale};
use crate::clock::{self, Timestamp};
use crate::credential::{Pepper, Presented};
use crate::limit::{ClientLimits, FailureLimit, Quota, Tier, TierNames};
use crate::route::{Method, NotFound, RequestTarget, Route, RouteTable};

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
    /// The client, if the credential was genuine, even if it was then refused.
    pub client: Option<Arc<ClientRecord>>,
    /// What is left of the client's rate limit.
    pub quota: Option<Quota>,
    /// Yes or no.
    pub outcome: Result<Permit, Denial>,
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
    client: Arc<ClientRecord>,
    generation: u32,
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

    /// The client; none on a public route.
    #[must_use]
    pub fn client(&self) -> Option<&Arc<ClientRecord>> {
        self.caller.as_ref().map(|caller| &caller.client)
    }
}

/// Decides who may pass.
pub struct Gate {
    replica: Arc<Replica>,
    routes: ArcSwap<RouteTable>,
    limits: ClientLimits,
    failures: FailureLimit,
    pepper: Option<Arc<Pepper>>,
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
    pub fn new(replica: Arc<Replica>, tiers: Arc<TierNames>, failures: FailureBudget, pepper: Option<Arc<Pepper>>) -> Self {
        let routes = RouteTable::new(Vec::new(), false).expect("no routes, no conflict");
        Self {
            replica,
            routes: ArcSwap::from_pointee(routes),
            limits: ClientLimits::new(tiers),
            failures: FailureLimit::new(failures.per_minute, failures.burst),
            pepper,
        }
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

    /// The route map in force.
    #[must_use]
    pub fn routes(&self) -> Arc<RouteTable> {
        self.routes.load_full()
    }

    /// Forgets limits that nobody is near. To be called once in a while.
    pub fn prune(&self) {
        self.limits.prune();
        self.failures.prune();
    }

    /// Decides about a request.
    #[must_use]
    pub fn decide<'a>(&self, request: &Request<'a>) -> Decision<'a> {
        let mut decision = Decision { target: None, route: None, client: None, quota: None, outcome: Err(Denial::Internal) };
        decision.outcome = self.outcome(request, &mut decision);
        decision
    }

    fn outcome<'a>(&self, request: &Request<'a>, decision: &mut Decision<'a>) -> Result<Permit, Denial> {
        let target = RequestTarget::parse(request.target).map_err(|why| Denial::Malformed(MalformedRequest::Target(why.detail())))?;
        let target = decision.target.insert(target);
        if target.query().is_some_and(authn::credential_in_query) {
            return Err(Denial::Malformed(MalformedRequest::CredentialInQuery));
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
            return Err(Denial::Malformed(MalformedRequest::Target("this path takes no `;` parameters")));
        }
        if let Some(authorized) = authorize_anonymous(route) {
            return Ok(Permit { route: Arc::clone(route), caller: None, peer: request.peer, _authorized: authorized });
        }
        let now = clock::now();
        let presented = match authn::credential(request.authorization) {
            Ok(credential) => credential,
            Err(denial) => return Err(self.refused(denial, request.peer)),
        };
        let Credential::Basic(id, secret) = presented;
        let presented = Presented::new(&secret, self.pepper.as_deref());
        let judged = self.replica.read(id, route.stale_grace, |client| {
            let Some(client) = client else {
                // As much work as for a client that exists.
                std::hint::black_box(presented.proves(Presented::nobody()));
                return Err(CredentialFault::UnknownClient);
            };
            match client.match_secret(&presented, now) {
                SecretMatch::Wrong => Err(CredentialFault::WrongSecret),
                SecretMatch::Ended => Err(CredentialFault::SecretEnded),
                SecretMatch::Usable(generation) => Ok((Arc::clone(client), generation, client.facts(request.peer, now))),
            }
        });
        let (judged, epoch) = judged.map_err(|Stale| Denial::Unavailable)?;
        let (client, generation, facts) = judged.map_err(|fault| self.refused(Denial::CredentialInvalid(fault), request.peer))?;
        let client = decision.client.insert(client);
        let authorized = authorize(route, &facts).map_err(|denial| self.refused(denial, request.peer))?;
        match self.limits.check(client.id(), client.tier()) {
            Ok(quota) => decision.quota = quota,
            Err((quota, retry_after_secs)) => {
                decision.quota = Some(quota);
                return Err(Denial::RateLimited { retry_after_secs });
            }
        }
        let caller = Caller { client: Arc::clone(client), generation, epoch };
        Ok(Permit { route: Arc::clone(route), caller: Some(caller), peer: request.peer, _authorized: authorized })
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
        let judged = self.replica.read(caller.client.id(), grace, |client| still(client, caller.generation, permit, now));
        let (judged, _) = judged.map_err(|Stale| Denial::Unavailable)?;
        judged
    }

    /// A refusal that counts against the address, if it is about a credential that does not work.
    fn refused(&self, denial: Denial, peer: IpAddr) -> Denial {
        if !matches!(denial, Denial::CredentialInvalid(_)) {
            return denial;
        }
        match self.failures.failed(peer) {
            Ok(()) => denial,
            Err(retry_after_secs) => Denial::TooManyFailures { retry_after_secs },
        }
    }
}

fn still(client: Option<&Arc<ClientRecord>>, generation: u32, permit: &Permit, now: Timestamp) -> Result<(), Denial> {
    let client = client.ok_or(Denial::CredentialInvalid(CredentialFault::UnknownClient))?;
    if !client.secret_usable(generation, now) {
        return Err(Denial::CredentialInvalid(CredentialFault::SecretEnded));
    }
    authorize(&permit.route, &client.facts(permit.peer, now)).map(|_| ())
}

#[cfg(test)]
mod tests;
