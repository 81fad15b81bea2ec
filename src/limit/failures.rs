//! Failed authentications per address.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::DashMapStateStore;
use governor::{Quota as Rate, RateLimiter};

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

/// Whose address this is, as far as limits go: one who has an IPv6 address has 2^64 of them.
#[must_use]
pub fn network(peer: IpAddr) -> IpAddr {
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
