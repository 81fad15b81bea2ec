//! Every interleaving of a decision with a change, tried by loom on the very source that the gateway runs.
//!
//! `decide_without_the_second_look` and `apply_whatever_comes` are the two mistakes that this guards against, written out
//! to show that the model would notice them.

#[path = "../src/cache/freshness.rs"]
#[allow(dead_code, reason = "the races need only a part of it")]
mod freshness;

mod sync {
    pub use loom::hint::spin_loop;
    pub use loom::sync::Mutex;
    pub use loom::sync::atomic::{AtomicU64, Ordering, fence};

    pub fn lock<T>(mutex: &Mutex<T>) -> loom::sync::MutexGuard<'_, T> {
        mutex.lock().expect("no thread panics while it holds the lock")
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind};

use freshness::Freshness;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};

const FAR: u64 = u64::MAX;

/// A gateway with one credential: `active` and `scoped` stand for two facts that one transaction changes together.
struct World {
    freshness: Freshness,
    active: AtomicBool,
    scoped: AtomicBool,
    acknowledged: AtomicBool,
}

impl World {
    fn new(active: bool, scoped: bool) -> Arc<Self> {
        let world = Self {
            freshness: Freshness::new(),
            active: AtomicBool::new(active),
            scoped: AtomicBool::new(scoped),
            acknowledged: AtomicBool::new(false),
        };
        world.freshness.extend(FAR - 1);
        Arc::new(world)
    }

    fn allowed(&self) -> bool {
        self.active.load(Ordering::Acquire) && self.scoped.load(Ordering::Acquire)
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(check);
}

fn finds_a_race(check: impl Fn() + Sync + Send + 'static) -> bool {
    catch_unwind(AssertUnwindSafe(|| model(check))).is_err()
}

/// A decision that ends before the acknowledgement is one that was made before it: so the reader notes, before it looks,
/// whether the change has been acknowledged; if it had been, the answer must be no.
fn revoke_races_a_decision(decide: fn(&World) -> bool) {
    let world = World::new(true, true);
    let revoker = {
        let world = Arc::clone(&world);
        loom::thread::spawn(move || {
            world.freshness.apply(0, 1, || world.active.store(false, Ordering::Release), || {});
            world.acknowledged.store(true, Ordering::SeqCst);
        })
    };
    let before = world.acknowledged.load(Ordering::SeqCst);
    let admitted = decide(&world);
    assert!(!(before && admitted), "admitted after the acknowledgement");
    revoker.join().expect("the revoker ends");
}

fn decide(world: &World) -> bool {
    world.freshness.read(0, || 0, || world.allowed()).is_ok_and(|(allowed, _)| allowed)
}

#[test]
fn nobody_is_admitted_after_the_acknowledgement() {
    model(|| revoke_races_a_decision(decide));
}

/// A stream that outlives its decision: it is entered where changes look for streams to end, and then asks once more.
fn revoke_races_a_stream(enter_first: bool) {
    let world = World::new(true, true);
    let (entered, ended) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let revoker = {
        let (world, entered, ended) = (Arc::clone(&world), Arc::clone(&entered), Arc::clone(&ended));
        loom::thread::spawn(move || {
            let settle = || {
                if entered.load(Ordering::Relaxed) && !world.allowed() {
                    ended.store(true, Ordering::SeqCst);
                }
            };
            world.freshness.apply(0, 1, || world.active.store(false, Ordering::Release), settle);
        })
    };
    let goes_on = if enter_first {
        entered.store(true, Ordering::Relaxed);
        loom::sync::atomic::fence(Ordering::SeqCst);
        decide(&world)
    } else {
        let goes_on = decide(&world);
        entered.store(true, Ordering::Relaxed);
        goes_on
    };
    revoker.join().expect("the revoker ends");
    assert!(!goes_on || ended.load(Ordering::SeqCst), "a stream goes on after the change is in force");
}

#[test]
fn no_stream_goes_on_after_the_change_is_in_force() {
    model(|| revoke_races_a_stream(true));
}

#[test]
fn the_model_notices_a_stream_that_asks_before_it_is_entered() {
    assert!(finds_a_race(|| revoke_races_a_stream(false)));
}

/// One transaction takes the scope away and turns the practice on: never were both true. A reader who mixes old and new
/// facts would say yes.
fn mixed_facts(decide: fn(&World) -> bool) {
    let world = World::new(false, true);
    let writer = {
        let world = Arc::clone(&world);
        loom::thread::spawn(move || {
            let write = || {
                world.active.store(true, Ordering::Release);
                world.scoped.store(false, Ordering::Release);
            };
            world.freshness.apply(0, 1, write, || {});
        })
    };
    assert!(!decide(&world), "admitted by a mixture of two states");
    writer.join().expect("the writer ends");
}

fn decide_without_the_second_look(world: &World) -> bool {
    world.allowed()
}

#[test]
fn nobody_is_admitted_by_a_mixture_of_two_states() {
    model(|| mixed_facts(decide));
}

#[test]
fn the_model_notices_when_the_second_look_is_missing() {
    assert!(finds_a_race(|| mixed_facts(decide_without_the_second_look)));
}

/// Two answers on their way at once, the newer says revoked. Whichever arrives last, revoked it stays.
fn answers_race(apply: fn(&World, u64, bool)) {
    let world = World::new(true, true);

    let older = {
        let world = Arc::clone(&world);
        loom::thread::spawn(move || apply(&world, 1, true))
    };
    apply(&world, 2, false);
    assert!(!decide(&world) || world.freshness.applied() < 2, "an older answer undid a newer one");
    older.join().expect("the older answer arrives");
    assert!(!decide(&world), "an older answer undid a newer one");
}

fn apply_in_order(world: &World, head: u64, active: bool) {
    world.freshness.apply(0, head, || world.active.store(active, Ordering::Release), || {});
}

fn apply_whatever_comes(world: &World, head: u64, active: bool) {
    world.freshness.replace(head, || world.active.store(active, Ordering::Release), || {});
}

#[test]
fn an_older_answer_never_undoes_a_newer_one() {
    model(|| answers_race(apply_in_order));
}

#[test]
fn the_model_notices_when_the_order_is_not_kept() {
    assert!(finds_a_race(|| answers_race(apply_whatever_comes)));
}

/// The lease ends while a decision is under way: a decision that begins after the end is refused.
#[test]
fn nobody_is_admitted_after_the_lease_has_ended() {
    model(|| {
        let world = World::new(true, true);
        let ender = {
            let world = Arc::clone(&world);
            loom::thread::spawn(move || {
                world.freshness.end();
                world.acknowledged.store(true, Ordering::SeqCst);
            })
        };
        let before = world.acknowledged.load(Ordering::SeqCst);
        assert!(!(before && decide(&world)), "admitted without a lease");
        ender.join().expect("the lease is ended");
    });
}
