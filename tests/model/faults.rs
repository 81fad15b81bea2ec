//! The passing of time, and everything that goes wrong.

#![expect(clippy::unused_self, reason = "all steps are called alike")]

use crate::setting::{Setting, exists};
use crate::state::{Call, FIRST, Heartbeat, LONGEST, NODES, Node, Phase, Row, Server, State};
use crate::variants::Variant;

impl Setting {
    /// One tick of true time, on all clocks.
    pub fn tick(&self, state: &State) -> State {
        let mut next = *state;
        for node in &mut next.nodes {
            if node.paused && self.is(Variant::ClockStopsInPause) {
                continue;
            }
            node.lease = node.lease.saturating_sub(1);
            if let Heartbeat::Sent { age } | Heartbeat::Answered { age, .. } = &mut node.heartbeat {
                *age = LONGEST.min(*age + 1);
            }
        }
        for revoke in &mut next.revokes {
            if let Some(age) = &mut revoke.committed {
                *age = LONGEST.min(*age + 1);
            }
            match &mut revoke.call {
                Call::Sent { waited, .. } | Call::Committed { waited, .. } if self.is(Variant::TimerBeforeCommit) => {
                    *waited = self.wait().min(*waited + 1);
                }
                Call::Waiting { waited, .. } => *waited = self.wait().min(*waited + 1),
                _ => {}
            }
        }
        for row in 0..NODES {
            if self.reaper[row] && next.primary().registry[row].owner.is_some() {
                next.reaper[row] = self.wait().min(next.reaper[row] + 1);
            }
        }
        next
    }

    pub fn pause(&self, state: &State, node: u8) -> Option<State> {
        let mut next = spend(state)?;
        let n = &mut next.nodes[usize::from(node)];
        n.runs().then_some(())?;
        n.paused = true;
        Some(next)
    }

    pub fn resume(&self, state: &State, node: u8) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        n.paused.then_some(())?;
        n.paused = false;
        Some(next)
    }

    /// Its row stays.
    pub fn crash(&self, state: &State, node: u8) -> Option<State> {
        let mut next = spend(state)?;
        let n = &mut next.nodes[usize::from(node)];
        (n.phase != Phase::Off).then_some(())?;
        *n = Node { cut: n.cut, ..Node::OFF };
        Some(next)
    }

    /// What is under way is delivered when the node is connected again, or is lost: it may give up. Notices are lost.
    pub fn cut(&self, state: &State, node: u8) -> Option<State> {
        let mut next = spend(state)?;
        let n = &mut next.nodes[usize::from(node)];
        (n.phase != Phase::Off && !n.cut).then_some(())?;
        n.cut = true;
        n.noticed = false;
        if self.is(Variant::RowDroppedOnDisconnect) {
            let row = self.row(node);
            next.primary().registry[row] = Row::default();
            next.reaper[row] = 0;
        }
        Some(next)
    }

    pub fn heal(&self, state: &State, node: u8) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        n.cut.then_some(())?;
        n.cut = false;
        Some(next)
    }

    /// A server crashes and recovers: what had not committed is gone, and so may be the acknowledgements, which wait for no
    /// flush. What was flushed and waited for a standby is visible now.
    pub fn restart(&self, state: &State, at: Server, forgets: bool) -> Option<State> {
        let mut next = spend(state)?;
        exists(state, at).then_some(())?;
        let database = &mut next.databases[usize::from(at)];
        if let Some(key) = database.limbo.take() {
            database.seq[usize::from(key)] = database.head() + 1;
        }
        if forgets {
            for row in &mut database.registry {
                row.applied = 0;
            }
        }
        if at == state.primary {
            for revoke in &mut next.revokes {
                if let Call::Sent { .. } | Call::Committed { .. } = revoke.call {
                    revoke.call = Call::Idle;
                }
            }
            for node in &mut next.nodes {
                node.noticed = false;
                if let Heartbeat::Sent { .. } = node.heartbeat {
                    node.heartbeat = Heartbeat::None;
                }
            }
        }
        Some(next)
    }

    /// No answer, so not acknowledged; the call may be made again.
    pub fn abandon(&self, state: &State, key: u8) -> Option<State> {
        let mut next = spend(state)?;
        let call = &mut next.revokes[usize::from(key)].call;
        matches!(call, Call::Sent { .. } | Call::Committed { .. } | Call::Waiting { .. }).then_some(())?;
        *call = Call::Idle;
        Some(next)
    }

    /// The old primary runs on beside the new one.
    pub fn failover(&self, state: &State, lost: u8) -> Option<State> {
        let mut next = spend(state)?;
        (state.primary == FIRST).then_some(())?;
        next.promote(lost)?;
        Some(next)
    }
}

/// One fault of the budget.
fn spend(state: &State) -> Option<State> {
    Some(State { faults: state.faults.checked_sub(1)?, ..*state })
}
