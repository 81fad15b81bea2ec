//! J1 to J5: what a node does, and what the servers do for it.

#![expect(clippy::unused_self, reason = "all steps are called alike")]

use crate::setting::{Setting, exists};
use crate::state::{Answer, Heartbeat, LONGEST, Node, Phase, Row, Server, State};
use crate::variants::Variant;

impl Setting {
    /// J1: a new id, no lease, not ready.
    pub fn start(&self, state: &State, node: u8) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        (n.phase == Phase::Off).then_some(())?;
        n.phase = Phase::Started;
        Some(next)
    }

    /// J2: the INSERT of the row is committed, by the primary, and acknowledged. The row of the process that ran here
    /// before goes with it: nobody admits under that row, so when it is reaped makes no difference.
    pub fn register(&self, state: &State, node: u8) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        n.reaches().then_some(())?;
        n.phase = match n.phase {
            Phase::Started if !self.is(Variant::AdmitBeforeRow) => Phase::Registered,
            Phase::Unregistered => Phase::Running,
            _ => return None,
        };
        n.timeline = state.primary;
        let row = self.row(node);
        next.primary().registry[row] = Row { owner: Some(node), applied: 0, timeline: state.primary };
        next.reaper[row] = 0;
        Some(next)
    }

    /// J3: one snapshot of everything; the cursor is its head.
    pub fn snapshot(&self, state: &State, node: u8, at: Server) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        (n.reaches() && exists(state, at)).then_some(())?;
        n.phase = match n.phase {
            Phase::Registered => Phase::Running,
            Phase::Started if self.is(Variant::AdmitBeforeRow) => {
                n.lease = LONGEST;
                Phase::Unregistered
            }
            _ => return None,
        };
        let database = &state.databases[usize::from(at)];
        n.applied = database.head();
        n.denied |= database.revoked_after(0);
        n.timeline = at;
        Some(next)
    }

    /// J4: woken by a notice, or every H, or for any other reason: a fetch may happen at any time. One that finds nothing
    /// is left out.
    pub fn fetch(&self, state: &State, node: u8, at: Server) -> Option<State> {
        let n = &state.nodes[usize::from(node)];
        let woken = n.noticed || !self.is(Variant::NotifyOnly);
        (n.phase == Phase::Running && n.reaches() && n.fetched.is_none() && woken && exists(state, at)).then_some(())?;
        let answer = state.databases[usize::from(at)].answer(n.applied, at);
        (answer.head > n.applied).then_some(())?;
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        n.fetched = Some(answer);
        n.noticed = false;
        Some(next)
    }

    /// J4: an answer from another timeline means nothing here.
    pub fn apply(&self, state: &State, node: u8) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        n.reaches().then_some(())?;
        let answer = n.fetched.take()?;
        if answer.timeline == n.timeline {
            self.merge(state, n, answer);
        }
        Some(next)
    }

    /// Apply, on either connection: monotone.
    fn merge(&self, state: &State, node: &mut Node, answer: Answer) {
        if self.is(Variant::LastAnswerWins) {
            let database = &state.databases[usize::from(answer.timeline)];
            node.denied = database.revoked_after(0) & !database.revoked_after(answer.head);
            node.applied = answer.head;
        } else if answer.head > node.applied {
            node.denied |= answer.revoked;
            node.applied = answer.head;
        }
    }

    /// J4: the acknowledgement names the row by id and epoch. It waits for no standby, so an old primary takes it too.
    pub fn acknowledge(&self, state: &State, node: u8, at: Server) -> Option<State> {
        let n = &state.nodes[usize::from(node)];
        (n.phase == Phase::Running && n.reaches() && exists(state, at)).then_some(())?;
        let applied = match n.fetched {
            Some(answer) if self.is(Variant::AckBeforeApply) => n.applied.max(answer.head),
            _ => n.applied,
        };
        let mut next = *state;
        let row = &mut next.databases[usize::from(at)].registry[self.row(node)];
        (row.belongs_to(node, n) && row.applied < applied).then_some(())?;
        row.applied = applied;
        Some(next)
    }

    /// J5: t0. One that is sent while the node is cut off arrives when it no longer is.
    pub fn send(&self, state: &State, node: u8) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        (n.phase == Phase::Running && n.runs() && n.heartbeat == Heartbeat::None).then_some(())?;
        n.heartbeat = Heartbeat::Sent { age: 0 };
        Some(next)
    }

    /// J5: the UPDATE of the row, then head and changes as a statement of its own. Only the primary can commit it. Row
    /// lock and commit make it one step: what reads the row meanwhile sees it as it was before, or waits.
    pub fn beat(&self, state: &State, node: u8, at: Server) -> Option<State> {
        let n = &state.nodes[usize::from(node)];
        let Heartbeat::Sent { age } = n.heartbeat else { return None };
        let answers = at == state.primary || (self.is(Variant::HeartbeatIsRead) && exists(state, at));
        (!n.cut && answers).then_some(())?;
        let mut next = *state;
        let index = self.row(node);
        let database = &mut next.databases[usize::from(at)];
        let row = &mut database.registry[index];
        let known = row.belongs_to(node, n);
        if known && at == state.primary {
            row.applied = row.applied.max(n.applied);
            next.reaper[index] = 0;
        }
        let answer = known.then(|| database.answer(n.applied, at));
        next.nodes[usize::from(node)].heartbeat = Heartbeat::Answered { age, answer };
        Some(next)
    }

    /// J5a: without a row, or on another timeline, the node begins again. J5b: everything up to the head is applied.
    /// J5c: then the lease counts from t0.
    pub fn extend(&self, state: &State, node: u8) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        n.reaches().then_some(())?;
        let Heartbeat::Answered { age, answer } = n.heartbeat else { return None };
        n.heartbeat = Heartbeat::None;
        match answer {
            Some(answer) if answer.timeline == n.timeline => {
                if !self.is(Variant::NotifyOnly) {
                    self.merge(state, n, answer);
                }
                n.lease = n.lease.max(if self.is(Variant::LeaseFromReply) { LONGEST } else { LONGEST - age });
            }
            Some(_) if self.is(Variant::CursorCarried) => {
                n.phase = Phase::Unregistered;
                n.lease = 0;
            }
            _ => n.begins_again(),
        }
        Some(next)
    }

    /// J5a: closed, not cancelled. That the heartbeat may still be committed does no harm: it says what was true.
    pub fn give_up(&self, state: &State, node: u8) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        (n.runs() && n.heartbeat != Heartbeat::None).then_some(())?;
        n.heartbeat = Heartbeat::None;
        Some(next)
    }

    /// A lazy cache has evicted a key, and reads it again.
    pub fn read_key(&self, state: &State, node: u8, key: u8) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        let active = state.databases[usize::from(state.primary)].seq[usize::from(key)] == 0;
        (n.phase == Phase::Running && n.reaches() && n.fill.is_none() && active).then_some(())?;
        n.fill = Some(key);
        Some(next)
    }

    /// It stores what it read.
    pub fn store_key(&self, state: &State, node: u8) -> Option<State> {
        let mut next = *state;
        let n = &mut next.nodes[usize::from(node)];
        n.runs().then_some(())?;
        n.denied &= !(1 << n.fill.take()?);
        Some(next)
    }
}
