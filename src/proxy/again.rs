//! Which server a request goes to, what is learnt from how it went, and whether it is tried again.

use std::sync::Arc;

use pingora::{Error, ErrorSource, ErrorType, RetryType};

use super::context::Context;
use crate::access::Denial;
use crate::cache::Party;
use crate::clock::{self, BootTime};
use crate::gate::Permit;
use crate::upstream::{Balance, Change, Failure, HashBy, Pick, Place, Server, Upstream, caller_hash};

/// How often a request is sent anew that an upstream has not processed, or may not have, since the connection was over.
const UNPROCESSED: usize = 3;

/// How far a request has come with its upstream.
#[derive(Default)]
pub struct Attempts {
    place: Option<Place>,
    pick: Option<Pick>,
    /// The servers that failed it.
    tried: Vec<Arc<Server>>,
    unprocessed: usize,
    sent_at: Option<BootTime>,
    /// From sending the request to the header of the answer.
    pub(super) waited: Option<std::time::Duration>,
}

/// What an error in an exchange with an upstream says of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The upstream has said that it did not look at it (RFC 9113 §8.7).
    Unprocessed,
    /// A connection that had been idle was over: the upstream may have seen it, but most likely has not.
    Stale,
    /// The upstream may have processed it, and did not answer.
    Unanswered,
    /// It took too long, or the answer is none: another try would be no better.
    Final,
}

fn fate(error: &Error, reused: bool) -> Fate {
    match (&error.retry, error.etype()) {
        // The only errors of HTTP/2 that pingora marks so: REFUSED_STREAM, and GOAWAY for a stream that is beyond its last.
        (RetryType::Decided(true), ErrorType::H2Error) => Fate::Unprocessed,
        (RetryType::ReusedOnly, _) if reused => Fate::Stale,
        (_, ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError | ErrorType::H2Error) => Fate::Unanswered,
        _ => Fate::Final,
    }
}

impl Attempts {
    /// Takes a place among the requests of the upstream.
    ///
    /// # Errors
    /// There are as many as may be.
    pub fn enter(&mut self, upstream: &Arc<Upstream>) -> Result<(), Denial> {
        self.place = Some(upstream.enter().ok_or(Denial::UpstreamBusy)?);
        Ok(())
    }

    /// The server for the next try.
    ///
    /// # Errors
    /// None is in service.
    pub fn pick(&mut self, permit: &Permit, peer: std::net::IpAddr) -> Result<Arc<Server>, Denial> {
        let upstream = &permit.route().upstream;
        let now = clock::boot_time();
        let pick = upstream.pick(hash_of(upstream, permit, peer), &self.tried, now).ok_or(Denial::NoServer)?;
        let server = Arc::clone(pick.server());
        self.pick = Some(pick);
        self.sent_at = Some(now);
        Ok(server)
    }

    /// When the last try began.
    pub fn begun(&self) -> BootTime {
        self.sent_at.unwrap_or_else(clock::boot_time)
    }

    /// The upstream answered with this status.
    pub fn answered(&mut self, upstream: &Upstream, status: u16) {
        self.waited = self.sent_at.map(|sent| clock::boot_time().since(sent));
        if matches!(status, 502..=504) {
            // The upstream is itself a proxy, or says what one would: there is nobody behind it.
            self.failed(upstream, Failure::Unanswered);
        } else if let Some(pick) = &self.pick {
            pick.server().answered();
        }
    }

    /// The request failed where it is, or was given up for want of an answer.
    pub fn failed(&mut self, upstream: &Upstream, how: Failure) {
        let Some(pick) = &self.pick else { return };
        let server = pick.server();
        if let Some(Change::Ejected(time)) = server.failed(how, &upstream.settings.ejection, clock::boot_time()) {
            let (upstream, server, secs) = (&*upstream.name, server.address, time.as_secs());
            tracing::warn!(upstream, %server, ?how, secs, "a server failed again and again, and is passed over for a while");
        }
    }

    /// No connection could be made. True if the request is tried again: nothing of it was sent, so its method does not matter.
    pub fn not_connected(&mut self, upstream: &Upstream, error: &Error) -> bool {
        let late = matches!(error.root_etype(), ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout);
        self.failed(upstream, if late { Failure::Silent } else { Failure::Unreachable });
        self.set_aside();
        upstream.has_other(&self.tried, clock::boot_time()) && upstream.may_retry(self.tried.len())
    }

    /// The exchange went wrong before the caller was sent anything, or after. True if the request is tried again, given
    /// whether it can be, and whether doing it twice is the same as doing it once (RFC 9110 §9.2.2).
    pub fn broken(&mut self, upstream: &Upstream, error: &Error, reused: bool, repeatable: bool, idempotent: bool) -> bool {
        if error.esource() != &ErrorSource::Upstream {
            return false;
        }
        let fate = fate(error, reused);
        if matches!(fate, Fate::Unprocessed | Fate::Stale) {
            // Connections end: that says nothing of the server.
            self.unprocessed += 1;
            let harmless = fate == Fate::Unprocessed || (idempotent && upstream.settings.retries > 0);
            return repeatable && harmless && self.unprocessed <= UNPROCESSED;
        }
        self.failed(upstream, Failure::Unanswered);
        self.set_aside();
        fate == Fate::Unanswered
            && repeatable
            && idempotent
            && upstream.has_other(&self.tried, clock::boot_time())
            && upstream.may_retry(self.tried.len())
    }

    fn set_aside(&mut self) {
        self.tried.extend(self.pick.take().map(|pick| Arc::clone(pick.server())));
    }
}

fn hash_of(upstream: &Upstream, permit: &Permit, peer: std::net::IpAddr) -> u64 {
    let Balance::ConsistentHash(by) = upstream.settings.balance else { return 0 };
    let party = permit.party();
    let client = party.and_then(Party::client_id).filter(|_| by == HashBy::Client);
    let practice = party.filter(|_| by != HashBy::Address).map(Party::practice_id);
    match (client, practice) {
        (Some(client), _) => caller_hash(client.to_string().as_bytes()),
        (None, Some(practice)) => caller_hash(practice.as_str().as_bytes()),
        (None, None) => match peer {
            std::net::IpAddr::V4(v4) => caller_hash(&v4.octets()),
            std::net::IpAddr::V6(v6) => caller_hash(&v6.octets()),
        },
    }
}

impl Context {
    /// The upstream that the request goes to, if it may.
    pub(super) fn upstream(&self) -> Option<Arc<Upstream>> {
        self.permit.as_ref().map(|permit| Arc::clone(&permit.route().upstream))
    }
}
