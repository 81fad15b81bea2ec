//! A node and a coordinator whose clocks run apart, as far as is assumed that they may: the arithmetic of leases, on the
//! functions that the gateway runs and clocks that are made up.

#[path = "../../../cache/freshness.rs"]
#[allow(dead_code, clippy::duplicate_mod, reason = "the cache keeps its own to itself")]
mod freshness;
#[path = "../../../cache/sync.rs"]
#[allow(dead_code, unused_imports, clippy::duplicate_mod, reason = "what that is built on")]
mod sync;

use freshness::Freshness;
use proptest::prelude::*;

use super::super::barrier::outwaited;
use super::*;
use crate::clock::BootTime;

const MILLI: u64 = 1_000_000;
/// The most by which a rate is off, in millionths.
const RHO: i32 = 1000;

/// A clock, told in nanoseconds of true time.
#[derive(Clone, Copy, Debug)]
struct Clock {
    /// By how many millionths it is too fast.
    off: i32,
    /// What it shows at the beginning.
    start: u64,
    /// When it stands still, and for how long.
    freeze: (u64, u64),
}

impl Clock {
    fn at(&self, truth: u64) -> BootTime {
        let (from, long) = self.freeze;
        let gone = u128::from(truth - truth.saturating_sub(from).min(long));
        let shown = gone * u128::try_from(1_000_000 + self.off).unwrap() / 1_000_000;
        BootTime(self.start + u64::try_from(shown).unwrap())
    }

    /// The first moment at which it shows that `over`.
    fn first(&self, over: impl Fn(BootTime) -> bool) -> u64 {
        let (mut not_yet, mut by_then) = (0, u64::MAX >> 8);
        while not_yet < by_then {
            let middle = not_yet.midpoint(by_then);
            if over(self.at(middle)) { by_then = middle } else { not_yet = middle + 1 }
        }
        by_then
    }
}

/// A heartbeat is sent at `asked`; a change, which its answer does not have yet, is acknowledged `later`. Whether the
/// node still admits when the coordinator has waited for `wait`.
fn admits_after_the_receipt(lease: Duration, wait: Duration, node: Clock, coordinator: Clock, asked: u64, later: u64) -> bool {
    let freshness = Freshness::new();
    freshness.extend(node.at(asked).after(lease).0);
    let acknowledged = coordinator.at(asked + later);
    let receipt = coordinator.first(|now| outwaited(wait, acknowledged, now));
    freshness.read(0, || node.at(receipt).0, || ()).is_ok()
}

fn timing(lease: u64, freeze: u64) -> Timing {
    Timing { lease: Duration::from_millis(lease), freeze_allowance: Duration::from_millis(freeze), ..FLEET.timing }
}

/// As the register of nodes has it.
fn registered(timing: &Timing) -> Duration {
    Duration::from_millis(u64::try_from(timing.bound().as_millis()).unwrap())
}

fn clock(off: i32) -> Clock {
    Clock { off, start: 0, freeze: (0, 0) }
}

#[test]
fn a_slow_node_has_stopped_when_a_fast_coordinator_has_waited() {
    for lease in (100..2000).chain([5000, 14_999, 60_000, 3_600_000]) {
        let timing = timing(lease, 0);
        for wait in [timing.bound(), registered(&timing)] {
            assert!(!admits_after_the_receipt(timing.lease, wait, clock(-RHO), clock(RHO), MILLI, 0), "{lease} ms");
        }
        assert!(timing.bound() <= timing.lease * 500 / 499 + Duration::from_millis(1), "no longer than it has to be");
    }
}

#[test]
fn a_wait_as_long_as_the_lease_is_too_short_and_so_is_one_thousandth_more() {
    let lease = Duration::from_secs(5);
    for wait in [lease, lease + lease / 1000] {
        assert!(admits_after_the_receipt(lease, wait, clock(-RHO), clock(RHO), MILLI, 0));
        // Which no clock that is right would show.
        assert!(!admits_after_the_receipt(lease, wait, clock(0), clock(0), MILLI, 0));
    }
}

#[test]
fn a_freeze_that_the_clock_does_not_show_is_outwaited_where_it_is_allowed_for() {
    let frozen = Clock { freeze: (2 * MILLI, 2000 * MILLI), ..clock(-RHO) };
    for (allowed, admits) in [(0, true), (1990, true), (2000, false)] {
        let timing = timing(5000, allowed);
        assert_eq!(admits_after_the_receipt(timing.lease, registered(&timing), frozen, clock(RHO), MILLI, 0), admits, "{allowed}");
    }
}

proptest! {
    #[test]
    fn no_lease_outlives_the_wait(
        (lease, allowed) in (100..3_600_000_u64, 0..60_000_u64),
        (node, coordinator) in (-RHO..=RHO, -RHO..=RHO),
        (node_start, start) in (0..1_u64 << 60, 0..1_u64 << 60),
        (asked, later) in (0..1_u64 << 50, 0..3_600_000 * MILLI),
        (freeze_after, frozen) in (0..3_600_000 * MILLI, 0.0..=1.0),
    ) {
        let timing = timing(lease, allowed);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "some part of it")]
        let long = (allowed as f64 * frozen) as u64 * MILLI;
        let node = Clock { off: node, start: node_start, freeze: (asked + freeze_after, long) };
        let coordinator = Clock { start, ..clock(coordinator) };
        prop_assert!(!admits_after_the_receipt(timing.lease, registered(&timing), node, coordinator, asked, later));
    }
}
