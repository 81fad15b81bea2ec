//! The services behind the gateway, as the configuration names them, and what is known of how they are. No I/O: who asks
//! them, and who resolves their names, says here what came of it.

mod budget;
mod origin;
mod server;
#[cfg(test)]
mod tests;
mod trust;

use std::hash::{BuildHasher, Hasher};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::clock::BootTime;
pub use budget::RetryBudget;
pub use origin::Origin;
pub use server::{Change, Failure, Server, State};
pub use trust::Trust;

/// Which server is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest requests under way; in turn among equals.
    LeastConnections,
    /// Always the same for the same caller, as long as it is in service; when one comes or goes, only its own callers move.
    ConsistentHash(HashBy),
}

/// What makes two callers the same for [`Balance::ConsistentHash`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashBy {
    /// The practice.
    #[default]
    Practice,
    /// The client.
    Client,
    /// The address.
    Address,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2, by ALPN with TLS and by prior knowledge without (RFC 9113 §3): what gRPC needs.
    Http2,
}

/// How servers are asked whether they are well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// What is asked for with GET; any 2xx is well.
    pub path: Arc<str>,
    /// The pause between two questions.
    pub every: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// So many good answers in a row take a server in again.
    pub healthy_after: u32,
    /// So many failures in a row take a server out.
    pub unhealthy_after: u32,
}

/// When a server that fails requests is passed over for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ejection {
    /// So many failures in a row.
    pub failures: u32,
    /// For how long at first; each further time as long again, up to ten times as long.
    pub time: Duration,
}

/// What the configuration says of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where its servers are.
    pub origins: Vec<Origin>,
    /// Which of them is next.
    pub balance: Balance,
    /// How they are spoken to.
    pub protocol: Protocol,
    /// Who vouches for them, and for us; `None`: whom the system trusts, and nobody.
    pub trust: Option<Arc<Trust>>,
    /// The name to ask for and to verify, instead of the host of the origin.
    pub server_name: Option<Arc<str>>,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// How long the upstream may stay silent: before its answer, and between two parts of it.
    pub response_timeout: Duration,
    /// How long a request may take in all, if the gateway's own limit is not shorter.
    pub total_timeout: Option<Duration>,
    /// How often a request is tried again.
    pub retries: usize,
    /// Of so many requests in a hundred, in the long run.
    pub retry_percent: u32,
    /// How many requests may be under way.
    pub max_requests: Option<NonZeroUsize>,
    /// How servers are asked whether they are well; `None`: they are not.
    pub health: Option<Health>,
    /// When a server is passed over.
    pub ejection: Ejection,
    /// How often the names of servers are resolved.
    pub resolve_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            balance: Balance::default(),
            protocol: Protocol::default(),
            trust: None,
            server_name: None,
            connect_timeout: Duration::from_millis(500),
            response_timeout: Duration::from_secs(30),
            total_timeout: None,
            retries: 1,
            retry_percent: 20,
            max_requests: None,
            health: None,
            ejection: Ejection { failures: 5, time: Duration::from_secs(10) },
            resolve_every: Duration::from_secs(10),
        }
    }
}

/// A named group of servers.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the route file.
    pub name: Arc<str>,
    /// What the configuration says of it.
    pub settings: Settings,
    servers: ArcSwap<Vec<Arc<Server>>>,
    turn: AtomicUsize,
    under_way: AtomicUsize,
    budget: RetryBudget,
    counts: Counts,
    kept_up: AtomicBool,
}

/// What happened, counted since the upstream was made.
#[derive(Debug, Default)]
pub struct Counts {
    /// Connections that were made.
    pub connected: AtomicU64,
    /// Requests that went over a connection that was there.
    pub reused: AtomicU64,
    /// Requests that were tried again.
    pub retried: AtomicU64,
    /// Retries that the budget forbade.
    pub withheld: AtomicU64,
    /// Requests that were refused, as there were too many.
    pub refused: AtomicU64,
}

/// A place among the requests of an upstream, given up when it is dropped.
#[derive(Debug)]
pub struct Place(Arc<Upstream>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A server that a request goes to, which counts among those under way there until this is dropped.
#[derive(Debug)]
pub struct Pick(Arc<Server>);

impl Pick {
    /// The server.
    #[must_use]
    pub const fn server(&self) -> &Arc<Server> {
        &self.0
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.0.left();
    }
}

impl Upstream {
    /// An upstream with these servers, all of which are taken to be well until something else is seen.
    #[must_use]
    pub fn new(name: &str, settings: Settings, servers: Vec<Server>) -> Self {
        Self {
            name: name.into(),
            budget: RetryBudget::new(settings.retry_percent),
            settings,
            servers: ArcSwap::from_pointee(servers.into_iter().map(Arc::new).collect()),
            turn: AtomicUsize::new(0),
            under_way: AtomicUsize::new(0),
            counts: Counts::default(),
            kept_up: AtomicBool::new(false),
        }
    }

    /// What happened.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The servers.
    #[must_use]
    pub fn servers(&self) -> Arc<Vec<Arc<Server>>> {
        self.servers.load_full()
    }

    /// How many requests are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// Whether nobody has looked after it so far; from now on somebody does.
    #[must_use]
    pub fn take_up(&self) -> bool {
        !self.kept_up.swap(true, Ordering::Relaxed)
    }

    /// Puts other servers in the place of those that there are. What is known of one that stays is kept. True if any came or went.
    pub fn replace(&self, servers: Vec<Server>) -> bool {
        let before = self.servers.load();
        let known = |server: Server| before.iter().find(|known| known.is(&server)).map_or_else(|| Arc::new(server), Arc::clone);
        let servers: Vec<_> = servers.into_iter().map(known).collect();
        let same = servers.len() == before.len() && servers.iter().all(|server| before.iter().any(|known| Arc::ptr_eq(known, server)));
        if !same {
            self.servers.store(Arc::new(servers));
        }
        !same
    }

    /// A place among the requests under way; `None` if there are as many as may be.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Option<Place> {
        let before = self.under_way.fetch_add(1, Ordering::Relaxed);
        // Made at once, so that it is given up again where it is refused.
        let place = Place(Arc::clone(self));
        if self.settings.max_requests.is_some_and(|most| before >= most.get()) {
            self.counts.refused.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.budget.deposit();
        Some(place)
    }

    /// The server that is next, for a caller with this hash; others than those of `tried` where there are any. `None` if none
    /// is in service.
    ///
    /// Those that failed requests are passed over, but taken where there is no other: what one client provokes must not keep
    /// the others out, and what cannot be reached may be back. Only those at which each request would wait in vain get, where
    /// no other is left, one request now and then, to find out.
    #[must_use]
    pub fn pick(&self, caller: u64, tried: &[Arc<Server>], now: BootTime) -> Option<Pick> {
        let servers = self.servers.load();
        let rank = |server: &Arc<Server>| {
            let again = 3 * u8::from(tried.iter().any(|tried| Arc::ptr_eq(tried, server)));
            match server.state(now) {
                State::InService => Some(again),
                State::Ejected => Some(again + 1),
                State::Unreachable => Some(again + 2),
                State::Silent | State::Down => None,
            }
        };
        let best = servers.iter().filter_map(rank).min();
        let Some(best) = best else {
            return servers.iter().find(|server| server.try_again(now)).map(pick);
        };
        // A state may have changed since: then there may be none, or fewer, and the first that is left is as good as any.
        let candidates = || servers.iter().filter(|server| rank(server) == Some(best));
        // Another try takes nobody's turn: else every request might begin with the one that fails.
        let step = usize::from(tried.is_empty());
        let first = |count: usize| self.turn.fetch_add(step, Ordering::Relaxed) % count.max(1);
        let chosen = match self.settings.balance {
            Balance::RoundRobin => candidates().nth(first(candidates().count())),
            Balance::LeastConnections => {
                let turn = first(candidates().count());
                candidates().skip(turn).chain(candidates().take(turn)).min_by_key(|server| server.under_way())
            }
            Balance::ConsistentHash(_) => candidates().max_by_key(|server| server.weight(caller)),
        };
        chosen.or_else(|| candidates().next()).or_else(|| servers.first()).map(pick)
    }

    /// Whether a request that was tried `tries` times may be tried again. To be asked only where it then is.
    #[must_use]
    pub fn may_retry(&self, tries: usize) -> bool {
        if tries > self.settings.retries {
            return false;
        }
        let granted = self.budget.withdraw();
        let count = if granted { &self.counts.retried } else { &self.counts.withheld };
        count.fetch_add(1, Ordering::Relaxed);
        granted
    }

    /// Whether a server is in service that is none of those.
    #[must_use]
    pub fn has_other(&self, tried: &[Arc<Server>], now: BootTime) -> bool {
        let servers = self.servers.load();
        let other = |server: &&Arc<Server>| !tried.iter().any(|tried| Arc::ptr_eq(tried, server));
        servers.iter().filter(other).any(|server| !matches!(server.state(now), State::Silent | State::Down))
    }
}

fn pick(server: &Arc<Server>) -> Pick {
    server.entered();
    Pick(Arc::clone(server))
}

/// The hash of a caller, the same on every gateway.
#[must_use]
pub fn caller_hash(caller: &[u8]) -> u64 {
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    hasher.write(caller);
    hasher.finish()
}
