//! How often, and how many at once: requests per client and practice by tier, failed authentications and connections per address.

mod failures;
mod slots;

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota as Rate, RateLimiter};
use parking_lot::{Mutex, RwLock};

use crate::id::{ClientId, PracticeId, UserId};

pub use failures::{FailureLimit, network};
pub use slots::{Full, Slot, Slots};

/// The tier of a client that names none.
pub const STANDARD: &str = "standard";

/// How often something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Requests a second that can go on for ever.
    pub per_second: NonZeroU32,
    /// Requests that may come at once after a pause.
    pub burst: NonZeroU32,
}

/// A rate limit as the route file names it. In a fleet its gateways share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: Arc<str>,
    /// What each client may.
    pub rate: Allowance,
    /// What those of one practice may together that are of this tier; `None`: as much as they may one by one.
    pub practice: Option<Allowance>,
    /// How many requests of a client may be under way at once, on each gateway; `None`: any number.
    pub concurrent: Option<NonZeroU32>,
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

/// One limiter, and what it tells of itself.
struct Bucket<K: Hash + Eq + Clone> {
    policy: Arc<str>,
    rate: Allowance,
    counts: RateLimiter<K, DashMapStateStore<K>, DefaultClock, StateInformationMiddleware>,
}

impl<K: Hash + Eq + Clone> Bucket<K> {
    /// This node's part of what `nodes` may let through together.
    fn new(policy: Arc<str>, rate: Allowance, nodes: u32) -> Self {
        // Longer than the fastest rate by far, so never zero.
        let period = Duration::from_secs(1) * nodes / rate.per_second.get();
        let part = NonZeroU32::new(rate.burst.get().div_ceil(nodes)).expect("of one there is one at least");
        let quota = Rate::with_period(period).unwrap_or(Rate::per_second(NonZeroU32::MAX)).allow_burst(part);
        Self { policy, rate, counts: RateLimiter::dashmap(quota).with_middleware() }
    }

    fn quota(&self, remaining: u32, reset_secs: u32) -> Quota {
        let Allowance { per_second, burst } = self.rate;
        let window_secs = burst.get().div_ceil(per_second.get());
        Quota { policy: Arc::clone(&self.policy), burst: burst.get(), window_secs, remaining, reset_secs }
    }

    /// Counts one.
    fn check(&self, key: &K) -> Result<Quota, (Quota, u64)> {
        match self.counts.check_key(key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                Ok(self.quota(remaining, u32::from(remaining < self.rate.burst.get())))
            }
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                let secs = wait.as_millis().div_ceil(1000).max(1);
                Err((self.quota(0, u32::try_from(secs).unwrap_or(u32::MAX)), u64::try_from(secs).unwrap_or(u64::MAX)))
            }
        }
    }

    fn prune(&self) {
        self.counts.retain_recent();
        self.counts.shrink_to_fit();
    }
}

struct TierLimit {
    tier: Tier,
    nodes: u32,
    callers: Bucket<Counted>,
    practices: Option<Bucket<PracticeId>>,
}

impl TierLimit {
    fn new(tier: Tier, nodes: u32) -> Self {
        let practices = tier.practice.map(|rate| Bucket::new(format!("{}-practice", tier.name).into(), rate, nodes));
        Self { callers: Bucket::new(Arc::clone(&tier.name), tier.rate, nodes), practices, nodes, tier }
    }

    fn check(&self, caller: &Counted, practice: &PracticeId) -> Result<Quota, (Quota, u64)> {
        // The caller first: what they may not do anyhow costs their practice nothing.
        let own = self.callers.check(caller)?;
        let Some(practices) = &self.practices else { return Ok(own) };
        let shared = practices.check(practice)?;
        Ok(if shared.remaining < own.remaining { shared } else { own })
    }
}

/// Which limit a request is over, and what is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Over {
    /// How often: with the whole seconds until the next request would pass.
    Often(Quota, u64),
    /// How many at once.
    AtOnce(Quota),
}

/// The limits of every tier.
pub struct ClientLimits {
    names: Arc<TierNames>,
    /// By [`TierId`]; a tier that the route file lacks has no entry.
    tiers: ArcSwap<Vec<Option<Arc<TierLimit>>>>,
    /// How many gateways share them.
    nodes: AtomicU32,
    /// Held while `tiers` is worked out anew.
    writing: Mutex<()>,
    slots: Slots,
}

impl ClientLimits {
    /// No limit at all, until tiers are installed.
    #[must_use]
    pub fn new(names: Arc<TierNames>) -> Self {
        Self { names, tiers: ArcSwap::default(), nodes: AtomicU32::new(1), writing: Mutex::new(()), slots: Slots::default() }
    }

    /// Puts these tiers in the place of those before. A tier that did not change keeps its counts.
    pub fn install(&self, tiers: impl IntoIterator<Item = Tier>) {
        let _writing = self.writing.lock();
        let (before, nodes) = (self.tiers.load(), self.nodes.load(Ordering::Relaxed));
        let mut after: Vec<Option<Arc<TierLimit>>> = Vec::new();
        for tier in tiers {
            let at = usize::from(self.names.intern(Some(&tier.name)).0);
            let same = |old: &&Arc<TierLimit>| old.tier == tier && old.nodes == nodes;
            let kept = before.get(at).and_then(Option::as_ref).filter(same).map(Arc::clone);
            if after.len() <= at {
                after.resize_with(at + 1, || None);
            }
            after[at] = Some(kept.unwrap_or_else(|| Arc::new(TierLimit::new(tier, nodes))));
        }
        self.tiers.store(Arc::new(after));
    }

    /// Has this gateway let through one part in `nodes` of each limit. Counts start anew when that number changes: until it has
    /// come around, a caller may have one more burst.
    pub fn share(&self, nodes: usize) {
        let nodes = u32::try_from(nodes).unwrap_or(u32::MAX).max(1);
        if self.nodes.load(Ordering::Relaxed) == nodes {
            return;
        }
        let _writing = self.writing.lock();
        self.nodes.store(nodes, Ordering::Relaxed);
        let anew = |limit: &Option<Arc<TierLimit>>| limit.as_ref().map(|limit| Arc::new(TierLimit::new(limit.tier.clone(), nodes)));
        let after = self.tiers.load().iter().map(anew).collect();
        self.tiers.store(Arc::new(after));
    }

    /// Counts one request of a caller, who belongs to this practice.
    ///
    /// # Errors
    /// Over the limit: the quota, and the whole seconds until the next request would pass.
    pub fn check(&self, caller: &Counted, practice: &PracticeId, tier: TierId) -> Result<Option<Quota>, (Quota, u64)> {
        of_tier(&self.tiers.load(), tier).map(|limit| limit.check(caller, practice)).transpose()
    }

    /// As [`check`], and gives the request its place among those that are under way, where the tier counts them.
    ///
    /// # Errors
    /// [`Over`].
    ///
    /// [`check`]: Self::check
    pub fn admit(&self, caller: &Counted, practice: &PracticeId, tier: TierId) -> Result<(Option<Quota>, Option<Box<Slot>>), Over> {
        let tiers = self.tiers.load();
        let Some(limit) = of_tier(&tiers, tier) else { return Ok((None, None)) };
        let quota = limit.check(caller, practice).map_err(|(quota, retry_after_secs)| Over::Often(quota, retry_after_secs))?;
        let Some(most) = limit.tier.concurrent else { return Ok((Some(quota), None)) };
        match self.slots.enter(caller, most) {
            Ok(slot) => Ok((Some(quota), Some(Box::new(slot)))),
            Err(Full) => Err(Over::AtOnce(quota)),
        }
    }

    /// Forgets clients whose burst is full again. To be called once in a while.
    pub fn prune(&self) {
        for limit in self.tiers.load().iter().flatten() {
            limit.callers.prune();
            if let Some(practices) = &limit.practices {
                practices.prune();
            }
        }
    }
}

fn of_tier(tiers: &[Option<Arc<TierLimit>>], tier: TierId) -> Option<&Arc<TierLimit>> {
    let of = |at: usize| tiers.get(at).and_then(Option::as_ref);
    of(usize::from(tier.0)).or_else(|| of(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tier(name: &str, per_second: u32, burst: u32) -> Tier {
        Tier { name: name.into(), rate: allowance(per_second, burst), practice: None, concurrent: None }
    }

    fn allowance(per_second: u32, burst: u32) -> Allowance {
        Allowance { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() }
    }

    fn check(limits: &ClientLimits, caller: &Counted, tier: TierId) -> Result<Option<Quota>, (Quota, u64)> {
        limits.check(caller, &"one".parse().unwrap(), tier)
    }

    fn client(n: u8) -> Counted {
        Counted::Client(ClientId::from_random([n; 20]))
    }

    #[test]
    fn a_client_has_its_burst_and_no_more_and_others_are_not_touched() {
        let names = Arc::new(TierNames::default());
        let limits = ClientLimits::new(Arc::clone(&names));
        assert_eq!(check(&limits, &client(1), TierId::default()), Ok(None), "no tiers, no limit");
        limits.install([tier("standard", 1, 3), tier("slow", 1, 1)]);
        for left in [2, 1, 0] {
            assert_eq!(check(&limits, &client(1), TierId::default()).unwrap().unwrap().remaining, left);
        }
        let (quota, wait) = check(&limits, &client(1), TierId::default()).unwrap_err();
        assert_eq!((quota.burst, quota.remaining, wait), (3, 0, 1));
        assert!(check(&limits, &client(2), TierId::default()).is_ok());
        let slow = names.intern(Some("slow"));
        assert!(check(&limits, &client(3), slow).is_ok());
        assert!(check(&limits, &client(3), slow).is_err());
    }

    #[test]
    fn a_reload_keeps_the_counts_of_a_tier_that_did_not_change() {
        let limits = ClientLimits::new(Arc::default());
        limits.install([tier("standard", 1, 1)]);
        assert!(check(&limits, &client(1), TierId::default()).is_ok());
        limits.install([tier("standard", 1, 1), tier("other", 5, 5)]);
        assert!(check(&limits, &client(1), TierId::default()).is_err());
        limits.install([tier("standard", 1, 2)]);
        assert!(check(&limits, &client(1), TierId::default()).is_ok(), "a changed tier starts anew");
    }

    #[test]
    fn a_tier_that_the_file_lacks_is_the_standard_one() {
        let names = Arc::new(TierNames::default());
        let limits = ClientLimits::new(Arc::clone(&names));
        limits.install([tier("standard", 1, 1)]);
        let gone = names.intern(Some("gone"));
        assert!(check(&limits, &client(1), gone).is_ok());
        assert!(check(&limits, &client(1), gone).is_err());
    }

    #[test]
    fn a_practice_has_a_limit_of_its_own_that_a_client_over_its_own_does_not_use_up() {
        let limits = ClientLimits::new(Arc::default());
        limits.install([Tier { practice: Some(allowance(1, 4)), ..tier("standard", 1, 2) }]);
        let check = |n: u8, practice: &str| limits.check(&client(n), &practice.parse().unwrap(), TierId::default());
        let policy = |checked: Result<Option<Quota>, (Quota, u64)>| match checked {
            Ok(quota) => (true, quota.unwrap().policy.to_string()),
            Err((quota, _)) => (false, quota.policy.to_string()),
        };
        let passes = (true, "standard".to_owned());
        assert_eq!([1, 1].map(|n| policy(check(n, "one"))), [passes.clone(), passes.clone()]);
        for _ in 0..9 {
            assert_eq!(policy(check(1, "one")), (false, "standard".to_owned()));
        }
        assert_eq!(policy(check(2, "one")), passes, "nine refusals have cost the practice nothing");
        assert_eq!(policy(check(3, "one")), (true, "standard-practice".to_owned()), "what is nearer to its end is told");
        let (quota, wait) = check(4, "one").unwrap_err();
        assert_eq!((&*quota.policy, quota.burst, quota.remaining, wait), ("standard-practice", 4, 0, 1));
        assert_eq!(policy(check(4, "two")), passes);
    }

    #[test]
    fn a_fleet_lets_through_together_what_one_would() {
        for (nodes, burst, each) in [(1, 12, 12), (3, 12, 4), (5, 12, 3), (100, 12, 1)] {
            let limits = ClientLimits::new(Arc::default());
            limits.share(nodes);
            limits.install([tier("standard", 1, burst)]);
            let passed = (0..100).filter(|_| check(&limits, &client(1), TierId::default()).is_ok()).count();
            assert_eq!(passed, each, "{nodes} nodes");
            let (quota, _) = check(&limits, &client(1), TierId::default()).unwrap_err();
            assert_eq!((quota.burst, quota.remaining), (12, 0));
            limits.share(nodes);
            assert!(check(&limits, &client(1), TierId::default()).is_err(), "as many as before: nothing is forgotten");
            limits.share(7);
            assert_eq!(check(&limits, &client(1), TierId::default()).unwrap().unwrap().remaining, 1);
        }
    }

    #[test]
    fn only_so_many_requests_of_a_client_are_under_way_at_once() {
        let limits = ClientLimits::new(Arc::default());
        let enter = |n: u8| limits.admit(&client(n), &"one".parse().unwrap(), TierId::default());
        assert!(enter(1).unwrap().1.is_none(), "no tiers, no limit");
        limits.install([Tier { concurrent: NonZeroU32::new(2), ..tier("standard", 1, 9) }]);
        let held = [enter(1).unwrap(), enter(1).unwrap()];
        assert!(matches!(enter(1), Err(Over::AtOnce(quota)) if quota.remaining == 6));
        assert!(enter(2).is_ok());
        limits.install([Tier { concurrent: NonZeroU32::new(2), ..tier("standard", 5, 5) }]);
        assert!(enter(1).is_err(), "what is under way counts after a reload too");
        drop(held);
        assert!(enter(1).is_ok());
    }
}
