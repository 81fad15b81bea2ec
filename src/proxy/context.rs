//! One request as the filters see it, and the record that is made of it, however it ends.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::{HeaderValue, Method, Uri, Version};

use super::Shared;
use super::again::Attempts;
use super::headers::Added;
use super::live::{Cut, SCOPE, Scope};
use super::respond::{self, Shape};
use crate::access::Denial;
use crate::cache::{Identity, Party};
use crate::clock::{self, BootTime, Timestamp};
use crate::gate::{Permit, Whose};
use crate::id::UserId;
use crate::limit::Quota;
use crate::record::{PERMIT, PERMIT_IN_GRACE, Record};
use crate::route::Route;
use crate::upstream::{Failure, Protocol};

/// One request.
pub struct Context {
    shared: Arc<Shared>,
    /// `None` only in tests that call filters without the wrapper.
    pub(super) scope: Option<Arc<Scope>>,
    pub(super) at: Timestamp,
    started: BootTime,
    pub(super) request_id: HeaderValue,
    pub(super) client_address: IpAddr,
    pub(super) trusted: bool,
    version: Version,
    pub(super) method: Method,
    uri: Uri,
    /// What is forwarded, where it is not byte for byte what pingora read.
    pub(super) target: Option<Box<str>>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) whose: Whose,
    pub(super) quota: Option<Quota>,
    pub(super) permit: Option<Arc<Permit>>,
    pub(super) denial: Option<Denial>,
    /// How a request ended that the gateway answered itself.
    pub(super) answered: Option<&'static str>,
    pub(super) status: u16,
    pub(super) content_done: bool,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    pub(super) attempts: Attempts,
    /// Whether it was taken: then it is another that is recorded.
    taken: bool,
}

impl Context {
    /// The context of a request whose header has just been read.
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let scope = SCOPE.try_with(Arc::clone).ok();
        if let Some(begun) = scope.as_ref().and_then(|scope| scope.begun.lock().take()) {
            return *begun;
        }
        Self::of(shared, scope)
    }

    /// The context of a request that belongs to this scope.
    pub(super) fn of(shared: Arc<Shared>, scope: Option<Arc<Scope>>) -> Self {
        if let Some(scope) = &scope {
            scope.noted.store(true, Ordering::Relaxed);
        }
        let client_address = scope.as_ref().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |scope| scope.peer);
        Self {
            shared,
            scope,
            at: clock::now(),
            started: clock::boot_time(),
            request_id: HeaderValue::from_static(""),
            client_address,
            trusted: false,
            version: Version::HTTP_11,
            method: Method::GET,
            uri: Uri::default(),
            target: None,
            route: None,
            whose: Whose::default(),
            quota: None,
            permit: None,
            denial: None,
            answered: None,
            status: 0,
            content_done: false,
            request_bytes: 0,
            response_bytes: 0,
            attempts: Attempts::default(),
            taken: false,
        }
    }

    /// All of it, for whoever goes on with the request and ends it.
    pub(super) fn take(&mut self) -> Self {
        let mut rest = Self::of(Arc::clone(&self.shared), None);
        rest.taken = true;
        std::mem::replace(self, rest)
    }

    /// What the gateway says of the request to the upstream.
    pub(super) fn added<'a>(&'a self, permit: &'a Permit, identity: Option<&'a Identity>) -> Added<'a> {
        Added {
            identity,
            request_id: &self.request_id,
            authorization: permit.route().forward_authorization,
            peer: self.peer(),
            trusted: self.trusted,
            secure: self.secure(),
            http2: self.version == Version::HTTP_2,
            trailers: permit.route().upstream.settings.protocol == Protocol::Http2,
        }
    }

    /// Takes note of a request without content.
    pub(super) fn begin(&mut self, method: Method, version: Version) {
        self.method = method;
        self.version = version;
        self.content_done = true;
    }

    /// Takes note of the target as it was sent, unless its canonical spelling is known.
    pub(super) fn asked_for(&mut self, target: &[u8]) {
        if self.target.is_none() {
            self.target = Some(String::from_utf8_lossy(target).into());
        }
    }

    /// Takes note of what a request asks for; both are shared with the header, not copied.
    pub(super) fn note(&mut self, method: &Method, uri: &Uri, version: Version) {
        self.method = method.clone();
        self.uri = uri.clone();
        self.version = version;
    }

    pub(super) fn head_only(&self) -> bool {
        self.method == Method::HEAD
    }

    pub(super) fn peer(&self) -> IpAddr {
        self.scope.as_ref().map_or(self.client_address, |scope| scope.peer)
    }

    pub(super) fn secure(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.secure)
    }

    fn path(&self) -> &str {
        let target = self.target.as_deref().unwrap_or_else(|| self.uri.path());
        target.split('?').next().unwrap_or_default()
    }

    fn record(&self) {
        let party = self.whose.party.as_ref();
        self.shared.recorder.record(&Record {
            at: self.at,
            request_id: self.request_id.to_str().unwrap_or_default(),
            peer: self.client_address,
            version: if self.version == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" },
            method: self.method.as_str(),
            path: self.path(),
            route: self.route.as_deref(),
            practice: party.map(|party| party.practice_id().as_str()),
            client: party.and_then(Party::client_id),
            user: party.and_then(Party::user_id).map(UserId::as_str),
            owner: party.and_then(Party::client).and_then(|client| client.owner_id()).map(UserId::as_str),
            generation: self.permit.as_ref().and_then(|permit| permit.generation()),
            ended: self.whose.ended,
            outcome: self.denial.as_ref().map_or_else(|| self.passed(), Denial::label),
            status: self.status,
            latency: self.latency(),
            upstream_latency: self.attempts.waited,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
        });
    }

    fn passed(&self) -> &'static str {
        if let Some(label) = self.answered {
            return label;
        }
        if self.permit.as_ref().is_some_and(|permit| permit.in_grace()) { PERMIT_IN_GRACE } else { PERMIT }
    }

    fn latency(&self) -> Duration {
        clock::boot_time().since(self.started)
    }
}

// pingora calls `logging` neither for a cancelled request nor after a panic; a drop cannot be missed.
impl Drop for Context {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let cut = self.scope.as_ref().and_then(|scope| scope.cut.lock().take());
        if cut == Some(Cut::Deadline)
            && self.content_done
            && let Some(upstream) = self.upstream()
        {
            // It was the upstream that was waited for.
            self.attempts.failed(&upstream, Failure::Unanswered);
        }
        if self.status == 0 {
            let fault = if std::thread::panicking() {
                Some(Denial::Internal)
            } else {
                match cut {
                    Some(Cut::Deadline) if !self.content_done => Some(Denial::RequestTimeout),
                    Some(Cut::Deadline) => Some(Denial::UpstreamTimeout),
                    // The gate said yes and the answer has not begun: it can still be no.
                    Some(Cut::Denied(denial)) => Some(denial),
                    None => None,
                }
            };
            if let Some(denial) = fault {
                // An answer in time could not be given; HTTP/1.1 can still be told why, HTTP/2 resets the stream.
                if self.version == Version::HTTP_11
                    && let Some(scope) = &self.scope
                {
                    let shape = Shape { head_only: self.head_only(), last: true };
                    *scope.last_word.lock() = Some(respond::message(&denial, &self.request_id, None, shape).0.into());
                    self.status = denial.status();
                }
                self.denial = Some(denial);
            }
        } else if let Some(Cut::Denied(denial)) = cut {
            self.denial = Some(denial);
        }
        self.record();
    }
}
