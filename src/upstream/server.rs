//! One server of an upstream, and how it is.

use std::hash::{BuildHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::{Ejection, Health};
use crate::clock::BootTime;

/// How long a server that is silent is left alone before one request finds out whether it still is.
const PROBE: Duration = Duration::from_millis(250);
/// A server is passed over for at most so many times the first time.
const LONGEST: u32 = 10;

/// One server of an upstream.
#[derive(Debug)]
pub struct Server {
    /// Where it listens. Resolved beforehand, so that no request waits for DNS.
    pub address: SocketAddr,
    /// The name to ask for and to verify when it speaks TLS; `None`: plain HTTP.
    pub tls_name: Option<Arc<str>>,
    /// The origin as the file has it, for logs and errors.
    pub origin: Arc<str>,
    under_way: AtomicUsize,
    /// Whether health checks say that it is out of service, and how many of them in a row have said the contrary.
    down: AtomicBool,
    contrary: AtomicU32,
    /// Requests that failed in a row, and how the last of them did: a [`State`] by its place in [`State::EVERY`].
    failures: AtomicU32,
    failing: AtomicUsize,
    /// Until when it is passed over, and how many times in a row that was so. Nanoseconds of the boot clock.
    out_until: AtomicU64,
    outs: AtomicU32,
    tried_at: AtomicU64,
}

/// How a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It gets requests.
    InService,
    /// It failed requests, and gets some only if there is no other.
    Ejected,
    /// It refuses connections, and gets requests only if there is none of the others.
    Unreachable,
    /// Connections to it are not made in time, which costs each request that time: it gets one request now and then.
    Silent,
    /// Health checks say that it is out of service; it gets none.
    Down,
}

impl State {
    /// Every state.
    pub const EVERY: [Self; 5] = [Self::InService, Self::Ejected, Self::Unreachable, Self::Silent, Self::Down];

    /// Its name in metrics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::InService => "in_service",
            Self::Ejected => "ejected",
            Self::Unreachable => "unreachable",
            Self::Silent => "silent",
            Self::Down => "down",
        }
    }
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made.
    Unreachable,
    /// No connection was made in time.
    Silent,
    /// There was a connection, and no whole answer; or an answer that says that there is none (502, 503, 504).
    Unanswered,
}

/// A change that somebody should be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is passed over from now on, for so long.
    Ejected(Duration),
    /// Health checks have taken it out.
    Down,
    /// Health checks have taken it in again.
    Up,
}

impl Server {
    /// A server that is taken to be well.
    #[must_use]
    pub const fn new(address: SocketAddr, tls_name: Option<Arc<str>>, origin: Arc<str>) -> Self {
        Self {
            address,
            tls_name,
            origin,
            under_way: AtomicUsize::new(0),
            down: AtomicBool::new(false),
            contrary: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            failing: AtomicUsize::new(0),
            out_until: AtomicU64::new(0),
            outs: AtomicU32::new(0),
            tried_at: AtomicU64::new(0),
        }
    }

    /// Whether it is the same as another.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (self.address, &self.tls_name, &self.origin) == (other.address, &other.tls_name, &other.origin)
    }

    /// How many requests are under way there.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    pub(super) fn entered(&self) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left(&self) {
        self.under_way.fetch_sub(1, Ordering::Relaxed);
    }

    /// How it is.
    #[must_use]
    pub fn state(&self, now: BootTime) -> State {
        if self.down.load(Ordering::Relaxed) {
            return State::Down;
        }
        if self.out_until.load(Ordering::Relaxed) <= now.0 {
            return State::InService;
        }
        State::EVERY[self.failing.load(Ordering::Relaxed)]
    }

    /// Whether it is this caller who finds out whether a server is silent still.
    pub(super) fn try_again(&self, now: BootTime) -> bool {
        let last = self.tried_at.load(Ordering::Relaxed);
        self.state(now) == State::Silent
            && now.since(BootTime(last)) >= PROBE
            && self.tried_at.compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// A request was answered.
    pub fn answered(&self) {
        // Nothing is written in the usual case, so that the line stays shared between the cores.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.outs.store(0, Ordering::Relaxed);
            self.out_until.store(0, Ordering::Relaxed);
        }
    }

    /// A request failed.
    pub fn failed(&self, how: Failure, ejection: &Ejection, now: BootTime) -> Option<Change> {
        let failing = match how {
            Failure::Unanswered => State::Ejected,
            Failure::Unreachable => State::Unreachable,
            Failure::Silent => State::Silent,
        };
        self.failing.store(failing as usize, Ordering::Relaxed);
        self.tried_at.store(now.0, Ordering::Relaxed);
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let until = self.out_until.load(Ordering::Relaxed);
        if failures < ejection.failures || until > now.0 {
            return None;
        }
        let outs = self.outs.load(Ordering::Relaxed).saturating_add(1).min(LONGEST);
        let time = ejection.time * outs;
        // Of those that find it at once, one does it.
        self.out_until.compare_exchange(until, now.after(time).0, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        self.outs.store(outs, Ordering::Relaxed);
        Some(Change::Ejected(time))
    }

    /// A health check passed, or did not. To be called by one task.
    pub fn checked(&self, passed: bool, health: &Health) -> Option<Change> {
        let down = self.down.load(Ordering::Relaxed);
        if passed != down {
            self.contrary.store(0, Ordering::Relaxed);
            return None;
        }
        let contrary = self.contrary.fetch_add(1, Ordering::Relaxed) + 1;
        if contrary < if down { health.healthy_after } else { health.unhealthy_after } {
            return None;
        }
        self.contrary.store(0, Ordering::Relaxed);
        self.down.store(!down, Ordering::Relaxed);
        if !down {
            return Some(Change::Down);
        }
        // What requests found out is older than what the checks have.
        self.answered();
        Some(Change::Up)
    }

    /// How near it is to a caller: the nearest of all servers is the caller's (rendezvous hashing).
    pub(super) fn weight(&self, caller: u64) -> u64 {
        let mut hasher = foldhash::fast::FixedState::default().build_hasher();
        self.address.hash(&mut hasher);
        self.origin.hash(&mut hasher);
        hasher.write_u64(caller);
        hasher.finish()
    }
}
