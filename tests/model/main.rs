//! The revocation protocol, in every order in which its steps can happen.
//!
//! **Modelled**: the primary with its log and registry, a second server that is promoted while the first one runs on, a
//! node that serves, a node that joins during the run (J1 to J5 with both connections), two revocations (R1 to R7), the
//! reaper, and a budget of faults: pause, crash and restart, partition, restart of a server, loss of a coordinator,
//! failover. Steps carry the design's names (`step.rs`); any of them may be late for as long as it likes.
//!
//! **Abstracted**: time passes in ticks and is kept as ages that saturate, so that runs may be endless and states are few.
//! L is 2 ticks, and every lease lasts D = 1 tick longer, as on the slowest permitted clock, while those who wait have the
//! fastest; a shorter lease or a longer wait only removes admissions. An admission is one instant (`races.rs` looks inside
//! it). A key is only ever revoked. A process that ends leaves its row, and the next one to start on the same node takes
//! its place at once.
//!
//! **Bounds**: two nodes, two keys, at most three faults; which of them take part, each setting says, and within it the
//! search is exhaustive: `check.rs` keeps the states themselves. Every wrong variant of `variants.rs` has to fail, in a setting in
//! which the protocol holds.
//!
//! `SIGMAGATE_MODEL=long` adds settings that take minutes and gigabytes, `SIGMAGATE_MODEL=traces` prints how each variant
//! fails. No other crate is used, ours neither, so this file compiles alone, and fast enough for the long settings:
//! `rustc --edition 2024 -O --test tests/model/main.rs`.

mod check;
mod coordinator;
mod faults;
mod node;
mod pack;
mod properties;
mod setting;
mod show;
mod state;
mod step;
mod variants;

use std::collections::BTreeSet;

use check::explore;
use pack::{pack, unpack};
use properties::{BOTH_ACKNOWLEDGED, BOTH_ADMIT, P1, P2};
use setting::Fault::{self, Abandon, Crash, Cut, Failover, Pause, Restart};
use setting::Setting;
use variants::Variant;

const NODE_FAULTS: &[Fault] = &[Pause, Crash, Cut];
const COMMON: &[Fault] = &[Pause, Crash, Cut, Restart, Abandon];
const ALL: &[Fault] = &[Pause, Crash, Cut, Restart, Abandon, Failover];

/// One node serves, and the reaper watches it.
const SERVING: Setting = Setting {
    name: "one node, reaper",
    variant: Variant::Protocol,
    revokes: 1,
    joiner: false,
    reaper: [true, false],
    kinds: COMMON,
    budget: 2,
    promoted: false,
};
const TWO_REVOCATIONS: Setting = Setting { name: "one node, two revocations", revokes: 2, reaper: [false; 2], budget: 0, ..SERVING };
const JOINER: Setting = Setting { name: "a node joins", joiner: true, reaper: [false; 2], kinds: NODE_FAULTS, budget: 1, ..SERVING };
const FAILOVER: Setting = Setting { name: "failover, reaper", kinds: ALL, ..SERVING };
const SPLIT: Setting = Setting { name: "after a failover", reaper: [false; 2], kinds: &[Restart], budget: 1, promoted: true, ..SERVING };
const SPLIT_TWO: Setting = Setting { name: "after a failover, two revocations", revokes: 2, ..SPLIT };

/// Run by `cargo test`.
const SHORT: &[Setting] = &[SERVING, TWO_REVOCATIONS, JOINER, FAILOVER, SPLIT];

/// A few gigabytes and minutes; the last one takes 9 GB.
const LONG: &[Setting] = &[
    SPLIT_TWO,
    Setting { name: "a node joins, reaper on the serving one", reaper: [true, false], ..JOINER },
    Setting { name: "a node joins, reaper on the joining one", reaper: [false, true], ..JOINER },
    Setting { name: "a node joins, two faults", kinds: COMMON, budget: 2, ..JOINER },
    Setting { name: "a node joins, failover", kinds: ALL, ..JOINER },
    Setting { name: "one node, two revocations, reaper, two faults", revokes: 2, ..SERVING },
    Setting { name: "one node, two revocations, failover", revokes: 2, reaper: [false; 2], ..FAILOVER },
    Setting { name: "a node joins, two revocations", revokes: 2, budget: 0, ..JOINER },
    Setting { name: "a node joins, failover and a second fault", kinds: ALL, budget: 2, ..JOINER },
    Setting { name: "a node joins, two revocations, one fault", revokes: 2, kinds: NODE_FAULTS, budget: 1, ..JOINER },
];

/// Each variant, the setting that shows it, and what breaks first.
const WRONG: &[(Variant, Setting, &str)] = &[
    (Variant::NoLease, SERVING, P2),
    (Variant::NotifyOnly, SERVING, P2),
    (Variant::LeaseFromReply, SERVING, P2),
    (Variant::AckBeforeApply, SERVING, P1),
    (Variant::NoDriftMargin, SERVING, P1),
    (Variant::TimerBeforeCommit, SERVING, P1),
    (Variant::AdmitBeforeRow, JOINER, P1),
    (Variant::Bigserial, TWO_REVOCATIONS, P1),
    (Variant::RowDroppedOnDisconnect, SERVING, P1),
    (Variant::SharedNodeId, JOINER, P1),
    (Variant::ClockStopsInPause, SERVING, P2),
    (Variant::StaleFill, SERVING, P1),
    (Variant::HeartbeatIsRead, FAILOVER, P2),
    (Variant::AsyncFailover, FAILOVER, P2),
    (Variant::CursorCarried, SPLIT_TWO, P1),
    (Variant::ReaperEarly, SERVING, P1),
    (Variant::LastAnswerWins, TWO_REVOCATIONS, P1),
    (Variant::BarrierReadsAnywhere, FAILOVER, P1),
    (Variant::RetryWritesNothing, SPLIT, P1),
];

#[test]
fn the_protocol_holds() {
    let long = if asked("long") { LONG } else { &[] };
    for setting in SHORT.iter().chain(long) {
        let report = explore(setting);
        println!("{:50} {report}", setting.name);
        if let Some((property, trace)) = &report.broken {
            panic!("{}: `{property}` does not hold:\n{}", setting.name, trace.text);
        }
        let possible = |property: &&str| match *property {
            BOTH_ADMIT => setting.joiner,
            BOTH_ACKNOWLEDGED => setting.revokes == 2,
            _ => true,
        };
        let never: Vec<_> = report.never.into_iter().filter(possible).collect();
        assert!(never.is_empty(), "{}: these never happen, so the setting shows little: {never:?}", setting.name);
    }
}

#[test]
fn every_wrong_variant_fails() {
    for &(variant, setting, expected) in WRONG {
        let report = explore(&Setting { variant, ..setting });
        println!("{:50} {report}", format!("{variant:?} in `{}`", setting.name));
        let Some((property, trace)) = report.broken else { panic!("{variant:?} went unnoticed in `{}`", setting.name) };
        assert_eq!(property, expected, "{variant:?} fails in another way:\n{}", trace.text);
        if asked("traces") {
            println!("{}", trace.text);
        }
    }
}

#[test]
fn every_wrong_variant_is_listed() {
    let last = Variant::RetryWritesNothing as usize;
    let listed: BTreeSet<_> = WRONG.iter().map(|(variant, ..)| *variant as usize).collect();
    assert_eq!(listed, (Variant::Protocol as usize + 1..=last).collect());
}

/// The checker keeps packed states only, so packing must lose nothing.
#[test]
fn a_state_survives_packing() {
    let everything = Setting { revokes: 2, joiner: true, reaper: [true; 2], kinds: ALL, budget: 3, ..SERVING };
    let steps = everything.steps();
    let mut random: u64 = 1;
    let mut kinds = BTreeSet::new();
    for _ in 0..400 {
        let mut state = everything.initial();
        for _ in 0..60 {
            assert_eq!(unpack(pack(&state)), state);
            let possible: Vec<_> = steps.iter().filter_map(|&step| Some((step, everything.next(&state, step)?))).collect();
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let choice = usize::try_from(random >> 33).expect("31 bits") % possible.len();
            kinds.insert(steps.iter().position(|&step| step == possible[choice].0));
            state = possible[choice].1;
        }
    }
    assert!(kinds.len() > steps.len() * 3 / 4, "the walks saw {} of {} steps", kinds.len(), steps.len());
}

fn asked(size: &str) -> bool {
    std::env::var("SIGMAGATE_MODEL").is_ok_and(|wanted| wanted == size)
}
