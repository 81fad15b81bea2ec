//! A setting, that is, what takes part in a run, and the one function from a state and a step to the next state.

use crate::state::{LEASE, LONGEST, Node, Phase, Server, State};
use crate::step::Step;
use crate::variants::Variant;

/// What may go wrong in a run, as often as its budget allows in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Pause,
    Crash,
    Cut,
    Restart,
    Abandon,
    Failover,
}

#[derive(Clone, Copy, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub variant: Variant,
    /// How many of the two keys are revoked.
    pub revokes: u8,
    /// Whether the second node joins during the run.
    pub joiner: bool,
    /// The rows that the reaper watches. It has no faults of its own: every step of it may wait for any time.
    pub reaper: [bool; 2],
    pub kinds: &'static [Fault],
    /// At most 3.
    pub budget: u8,
    /// The failover has just happened, and is no part of the budget.
    pub promoted: bool,
}

impl Setting {
    pub fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }

    /// W, which the coordinator and the reaper wait.
    pub fn wait(&self) -> u8 {
        if self.is(Variant::NoDriftMargin) { LEASE } else { LONGEST }
    }

    /// The index of the node's row.
    pub fn row(&self, node: u8) -> usize {
        if self.is(Variant::SharedNodeId) { 0 } else { usize::from(node) }
    }

    /// Whether a request for the key that started now would pass.
    pub fn admits(&self, node: &Node, key: u8) -> bool {
        let leased = node.lease > 0 || self.is(Variant::NoLease);
        let serving = node.phase == Phase::Running || node.phase == Phase::Unregistered;
        serving && !node.paused && leased && node.denied & 1 << key == 0
    }

    pub fn initial(&self) -> State {
        let mut state = State::initial(self.budget);
        if self.promoted {
            let _ = state.promote(0);
        }
        state
    }

    /// The steps that some state of this setting may permit.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Step::all();
        steps.retain(|&step| match step {
            Step::Failover { lost } => self.may(Fault::Failover) && (lost == 0 || self.is(Variant::AsyncFailover)),
            Step::Pause { .. } | Step::Resume { .. } => self.may(Fault::Pause),
            Step::Crash { .. } => self.may(Fault::Crash),
            Step::Cut { .. } | Step::Heal { .. } => self.may(Fault::Cut),
            Step::Restart { .. } => self.may(Fault::Restart),
            Step::Abandon { .. } => self.may(Fault::Abandon),
            Step::ReadKey { .. } | Step::StoreKey { .. } => self.is(Variant::StaleFill),
            Step::Revoke { key } => key < self.revokes,
            Step::Reap { row } => self.reaper[usize::from(row)],
            Step::Start { node } => node == 0 || self.joiner,
            _ => true,
        });
        steps.retain(|&step| match step {
            Step::Snapshot { at, .. }
            | Step::Fetch { at, .. }
            | Step::Acknowledge { at, .. }
            | Step::Beat { at, .. }
            | Step::Commit { at, .. }
            | Step::AllAcked { at, .. }
            | Step::Restart { at, .. } => at == 0 || self.promoted || self.may(Fault::Failover),
            _ => true,
        });
        steps
    }

    fn may(&self, fault: Fault) -> bool {
        self.budget > 0 && self.kinds.contains(&fault)
    }

    /// The state after the step; none where the step is not possible.
    pub fn next(&self, state: &State, step: Step) -> Option<State> {
        match step {
            Step::Tick => Some(self.tick(state)),
            Step::Start { node } => self.start(state, node),
            Step::Register { node } => self.register(state, node),
            Step::Snapshot { node, at } => self.snapshot(state, node, at),
            Step::Fetch { node, at } => self.fetch(state, node, at),
            Step::Apply { node } => self.apply(state, node),
            Step::Acknowledge { node, at } => self.acknowledge(state, node, at),
            Step::Send { node } => self.send(state, node),
            Step::Beat { node, at } => self.beat(state, node, at),
            Step::Extend { node } => self.extend(state, node),
            Step::GiveUp { node } => self.give_up(state, node),
            Step::ReadKey { node, key } => self.read_key(state, node, key),
            Step::StoreKey { node } => self.store_key(state, node),
            Step::Revoke { key } => self.revoke(state, key),
            Step::Commit { key, at } => self.commit(state, key, at),
            Step::Committed { key } => self.committed(state, key),
            Step::AllAcked { key, at } => self.all_acked(state, key, at),
            Step::Expire { key } => self.expire(state, key),
            Step::Reap { row } => self.reap(state, row),
            Step::Pause { node } => self.pause(state, node),
            Step::Resume { node } => self.resume(state, node),
            Step::Crash { node } => self.crash(state, node),
            Step::Cut { node } => self.cut(state, node),
            Step::Heal { node } => self.heal(state, node),
            Step::Restart { at, forgets } => self.restart(state, at, forgets),
            Step::Abandon { key } => self.abandon(state, key),
            Step::Failover { lost } => self.failover(state, lost),
        }
    }
}

/// Whether the server is there: the second one is not before its promotion.
pub fn exists(state: &State, server: Server) -> bool {
    server <= state.primary
}
