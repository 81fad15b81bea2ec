//! Stub of the real one: knows one client, by the bearer tokens of the tests.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::access::{CredentialFault, Denial, MalformedRequest};
use crate::cache::ClientRecord;
use crate::limit::Quota;
use crate::route::{Method, NotFound, RequestTarget, Requirement, Route, RouteTable};

/// One request.
#[derive(Debug)]
pub struct Request<'a> {
    /// As sent.
    pub method: &'a [u8],
    /// Origin-form.
    pub target: &'a [u8],
    /// The field's value.
    pub authorization: Option<&'a [u8]>,
    /// The caller's address.
    pub peer: std::net::IpAddr,
}

/// What was decided.
#[derive(Debug)]
pub struct Decision<'a> {
    /// Canonical.
    pub target: Option<RequestTarget<'a>>,
    /// The route.
    pub route: Option<Arc<Route>>,
    /// The client.
    pub client: Option<Arc<ClientRecord>>,
    /// What is left.
    pub quota: Option<Quota>,
    /// Yes or no.
    pub outcome: Result<Permit, Denial>,
}

/// A yes.
#[derive(Debug)]
pub struct Permit {
    route: Arc<Route>,
    client: Option<Arc<ClientRecord>>,
}

impl Permit {
    /// The route.
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }
    /// The client.
    pub fn client(&self) -> Option<&Arc<ClientRecord>> {
        self.client.as_ref()
    }
}

/// The stub.
#[derive(Debug)]
pub struct Gate {
    pub(crate) routes: RouteTable,
    pub(crate) client: Arc<ClientRecord>,
    pub(crate) quota: Option<Quota>,
    pub(crate) revoked: AtomicBool,
}

impl Gate {
    /// Decides.
    pub fn decide<'a>(&self, request: &Request<'a>) -> Decision<'a> {
        let mut decision = Decision { target: None, route: None, client: None, quota: None, outcome: Err(Denial::Internal) };
        let target = match RequestTarget::parse(request.target) {
            Ok(target) => target,
            Err(why) => {
                decision.outcome = Err(Denial::Malformed(MalformedRequest::Target(why.detail())));
                return decision;
            }
        };
        assert!(!target.path().ends_with("/panic"), "asked for");
        let found = self.routes.find(target.path(), Method::parse(request.method)).cloned();
        decision.target = Some(target);
        let route = match found {
            Ok(route) => route,
            Err(NotFound::NoRoute) => {
                decision.outcome = Err(Denial::NoRoute);
                return decision;
            }
            Err(NotFound::MethodNotAllowed(allow)) => {
                decision.outcome = Err(Denial::MethodNotAllowed(allow));
                return decision;
            }
        };
        decision.route = Some(Arc::clone(&route));
        decision.outcome = match (&route.requirement, request.authorization) {
            (Requirement::Public, _) => Ok(Permit { route, client: None }),
            (_, None) => Err(Denial::CredentialMissing),
            (_, Some(b"Bearer good" | b"Bearer late")) => {
                decision.client = Some(Arc::clone(&self.client));
                decision.quota.clone_from(&self.quota);
                Ok(Permit { route, client: Some(Arc::clone(&self.client)) })
            }
            (_, Some(b"Bearer narrow")) => Err(Denial::InsufficientScope(Arc::clone(&route.scopes))),
            (_, Some(b"Bearer often")) => {
                decision.quota.clone_from(&self.quota);
                Err(Denial::RateLimited { retry_after_secs: 3 })
            }
            _ => Err(Denial::CredentialInvalid(CredentialFault::UnknownClient)),
        };
        decision
    }

    /// Asks once more, right before the request is written.
    pub fn recheck(&self, _permit: &Permit) -> Result<(), Denial> {
        if self.revoked.load(Ordering::Acquire) { Err(Denial::CredentialInvalid(CredentialFault::Revoked)) } else { Ok(()) }
    }
}
