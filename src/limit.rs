//! How often: requests per client by tier, and failed authentications per address.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota as Rate, RateLimiter};
use parking_lot::RwLock;

use crate::id::{ClientId, PracticeId, UserId};

/// The tier of a client that names none.
pub const STANDARD: &str = "standard";

/// A rate limit as the route file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: Arc<str>,
    /// Requests a second that can go on for ever.
    pub per_second: NonZeroU32,
    /// Requests that may come at once after a pause.
    pub burst: NonZeroU32,
}

/// A tier by number. Names get their numbers once and for all, so that the hot path compares no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierId(u16);

/// Which number each tier name has, for the process.
#[derive(Debug)]
pub struct TierNames(RwLock<Vec<Arc<str>>>);

impl Default for TierNames {
    fn default() -> Self {
        Self(RwLock::new(vec![STANDARD.into()]))
    }
}

impl TierNames {
    /// The number of a name; `None`, and every name beyond 65,536, is the standard tier.
    pub fn intern(&self, name: Option<&str>) -> TierId {
        let Some(name) = name else { return TierId::default() };
        let find = |names: &[Arc<str>]| names.iter().position(|known| &**known == name);
        if let Some(at) = find(&self.0.read()) {
            return TierId(u16::try_from(at).unwrap_or_default());
        }
        let mut names = self.0.write();
        let at = find(&names).unwrap_or_else(|| {
            names.push(name.into());
            names.len() - 1
        });
        TierId(u16::try_from(at).unwrap_or_default())
    }
}

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// Those of a client.
    Client(ClientId),
    /// Those of a practice, or of one of its people, for whom a trusted issuer speaks.
    Team(PracticeId, Option<UserId>),
}

/// What is left to a client, as the `RateLimit` fields tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The tier's name.
    pub policy: Arc<str>,
    /// Requests that may come at once.
    pub burst: u32,
    /// Seconds in which an unused burst comes back in full.
    pub window_secs: u32,
    /// Requests that may still come now.
    pub remaining: u32,
    /// Seconds until there is one more than now.
    pub reset_secs: u32,
}

type PerCaller = RateLimiter<Counted, DashMapStateStore<Counted>, DefaultClock, StateInformationMiddleware>;

struct TierLimit {
    tier: Tier,
    callers: PerCaller,
}

/// The limits of every tier.
pub struct ClientLimits {
    names: Arc<TierNames>,
    /// By [`TierId`]; a tier that the route file lacks has no entry.
    tiers: ArcSwap<Vec<Option<Arc<TierLimit>>>>,
}

impl ClientLimits {
    /// No limit at all, until tiers are installed.
    #[must_use]
    pub fn new(names: Arc<TierNames>) -> Self {
        Self { names, tiers: ArcSwap::default() }
    }

    /// Puts these tiers in the place of those before. A tier that did not change keeps its counts.
    pub fn install(&self, tiers: impl IntoIterator<Item = Tier>) {
        let before = self.tiers.load();
        let mut after: Vec<Option<Arc<TierLimit>>> = Vec::new();
        for tier in tiers {
            let at = usize::from(self.names.intern(Some(&tier.name)).0);
            let kept = before.get(at).and_then(Option::as_ref).filter(|old| old.tier == tier).map(Arc::clone);
            if after.len() <= at {
                after.resize_with(at + 1, || None);
            }
            after[at] = Some(kept.unwrap_or_else(|| {
                let rate = Rate::per_second(tier.per_second).allow_burst(tier.burst);
                Arc::new(TierLimit { callers: RateLimiter::dashmap(rate).with_middleware(), tier })
            }));
        }
        self.tiers.store(Arc::new(after));
    }

    /// Counts one request of a caller.
    ///
    /// # Errors
    /// Over the limit: the quota, and the whole seconds until the next request would pass.
    pub fn check(&self, caller: &Counted, tier: TierId) -> Result<Option<Quota>, (Quota, u64)> {
        let tiers = self.tiers.load();
        let of = |at: usize| tiers.get(at).and_then(Option::as_ref);
        let Some(limit) = of(usize::from(tier.0)).or_else(|| of(0)) else { return Ok(None) };
        let (burst, rate) = (limit.tier.burst.get(), limit.tier.per_second.get());
        let quota = |remaining: u32, reset_secs: u32| Quota {
            policy: Arc::clone(&limit.tier.name),
            burst,
            window_secs: burst.div_ceil(rate),
            remaining,
            reset_secs,
        };
        match limit.callers.check_key(caller) {
            Ok(state) => Ok(Some(quota(state.remaining_burst_capacity(), u32::from(state.remaining_burst_capacity() < burst)))),
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let secs = wait.as_millis().div_ceil(1000).max(1);
                Err((quota(0, u32::try_from(secs).unwrap_or(u32::MAX)), u64::try_from(secs).unwrap_or(u64::MAX)))
            }
        }
    }

    /// Forgets clients whose burst is full again. To be called once in a while.
    pub fn prune(&self) {
        for limit in self.tiers.load().iter().flatten() {
            limit.callers.retain_recent();
            limit.callers.shrink_to_fit();
        }
    }
}

type PerAddress = RateLimiter<IpAddr, DashMapStateStore<IpAddr>, DefaultClock>;

/// Failed authentications per address. Only failures are counted, and only failures are answered 429: a right
/// credential passes whatever others behind the same address do.
pub struct FailureLimit {
    addresses: PerAddress,
}

/// The most addresses that are remembered one by one: beyond it, every further one shares a single count.
const MOST_ADDRESSES: usize = 100_000;

impl FailureLimit {
    /// So many failures a minute for each address, and so many at once.
    #[must_use]
    pub fn new(per_minute: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { addresses: RateLimiter::dashmap(Rate::per_minute(per_minute).allow_burst(burst)) }
    }

    /// Counts one failure.
    ///
    /// # Errors
    /// Too many: the whole seconds until the next attempt is looked at.
    pub fn failed(&self, peer: IpAddr) -> Result<(), u64> {
        let mut key = network(peer);
        if self.addresses.len() >= MOST_ADDRESSES {
            key = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        }
        self.addresses.check_key(&key).map_err(|not_until| {
            let wait: Duration = not_until.wait_time_from(DefaultClock::default().now());
            u64::try_from(wait.as_millis().div_ceil(1000).max(1)).unwrap_or(u64::MAX)
        })
    }

    /// Forgets addresses that have not failed for a while. To be called once in a while.
    pub fn prune(&self) {
        self.addresses.retain_recent();
        self.addresses.shrink_to_fit();
    }
}

/// One who has an IPv6 address has 2^64 of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(name: &str, per_second: u32, burst: u32) -> Tier {
        Tier { name: name.into(), per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    fn client(n: u8) -> Counted {
        Counted::Client(ClientId::from_random([n; 20]))
    }

    #[test]
    fn a_client_has_its_burst_and_no_more_and_others_are_not_touched() {
        let names = Arc::new(TierNames::default());
        let limits = ClientLimits::new(Arc::clone(&names));
        assert_eq!(limits.check(&client(1), TierId::default()), Ok(None), "no tiers, no limit");
        limits.install([tier("standard", 1, 3), tier("slow", 1, 1)]);
        for left in [2, 1, 0] {
            assert_eq!(limits.check(&client(1), TierId::default()).unwrap().unwrap().remaining, left);
        }
        let (quota, wait) = limits.check(&client(1), TierId::default()).unwrap_err();
        assert_eq!((quota.burst, quota.remaining, wait), (3, 0, 1));
        assert!(limits.check(&client(2), TierId::default()).is_ok());
        let slow = names.intern(Some("slow"));
        assert!(limits.check(&client(3), slow).is_ok());
        assert!(limits.check(&client(3), slow).is_err());
    }

    #[test]
    fn a_reload_keeps_the_counts_of_a_tier_that_did_not_change() {
        let limits = ClientLimits::new(Arc::default());
        limits.install([tier("standard", 1, 1)]);
        assert!(limits.check(&client(1), TierId::default()).is_ok());
        limits.install([tier("standard", 1, 1), tier("other", 5, 5)]);
        assert!(limits.check(&client(1), TierId::default()).is_err());
        limits.install([tier("standard", 1, 2)]);
        assert!(limits.check(&client(1), TierId::default()).is_ok(), "a changed tier starts anew");
    }

    #[test]
    fn a_tier_that_the_file_lacks_is_the_standard_one() {
        let names = Arc::new(TierNames::default());
        let limits = ClientLimits::new(Arc::clone(&names));
        limits.install([tier("standard", 1, 1)]);
        let gone = names.intern(Some("gone"));
        assert!(limits.check(&client(1), gone).is_ok());
        assert!(limits.check(&client(1), gone).is_err());
    }

    #[test]
    fn failures_are_counted_per_address_and_per_v6_network() {
        let limit = FailureLimit::new(NonZeroU32::MIN, NonZeroU32::MIN);
        assert!(limit.failed("127.0.0.1".parse().unwrap()).is_ok());
        assert!(limit.failed("127.0.0.1".parse().unwrap()).is_err());
        assert!(limit.failed("::ffff:127.0.0.1".parse().unwrap()).is_err(), "the same address");
        assert!(limit.failed("127.0.0.2".parse().unwrap()).is_ok());
        assert!(limit.failed("2001:db8::1".parse().unwrap()).is_ok());
        assert!(limit.failed("2001:db8::ffff:2".parse().unwrap()).is_err(), "the same /64");
    }
}
