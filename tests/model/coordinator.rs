//! R1 to R7, and the reaper.

use crate::setting::{Setting, exists};
use crate::state::{Call, FIRST, Phase, Revoke, Row, Server, State};
use crate::variants::Variant;

impl Setting {
    /// R1 and R2: the UPDATE is sent.
    pub fn revoke(&self, state: &State, key: u8) -> Option<State> {
        let mut next = *state;
        let call = &mut next.revokes[usize::from(key)].call;
        (*call == Call::Idle).then_some(())?;
        let number = if self.is(Variant::Bigserial) { dealt(state) + 1 } else { 0 };
        *call = Call::Sent { waited: 0, number };
        Some(next)
    }

    /// R2: the transaction commits and becomes visible, its number being the next one. An old primary flushes it and waits
    /// for its standby, for ever. One that changes no row waits for all there is, and it writes too, so that only the
    /// primary can acknowledge it.
    pub fn commit(&self, state: &State, key: u8, at: Server) -> Option<State> {
        let k = usize::from(key);
        let Call::Sent { waited, number } = state.revokes[k].call else { return None };
        (exists(state, at) && (key == 0 || a_is_logged(state))).then_some(())?;
        let mut next = *state;
        let database = &mut next.databases[usize::from(at)];
        let (head, repeated) = (database.head(), database.seq[k] != 0);
        let mut seq = head;
        if at == state.primary {
            if !repeated {
                seq = if self.is(Variant::Bigserial) { number } else { head + 1 };
                database.seq[k] = seq;
                next.revokes[k].committed = Some(0);
                self.notify(&mut next);
            }
        } else if repeated {
            self.is(Variant::RetryWritesNothing).then_some(())?;
        } else {
            database.limbo.is_none().then_some(())?;
            database.limbo = Some(key);
            return Some(next);
        }
        next.revokes[k].call = Call::Committed { waited, seq, timeline: at };
        Some(next)
    }

    /// A notice only wakes a fetch that may happen anyway, except where nothing else does.
    fn notify(&self, next: &mut State) {
        if self.is(Variant::NotifyOnly) {
            for node in &mut next.nodes {
                node.noticed |= node.phase == Phase::Running && !node.cut;
            }
        }
    }

    /// R3: the commit is acknowledged, and W begins. R4: its number is known.
    pub fn committed(&self, state: &State, key: u8) -> Option<State> {
        let mut next = *state;
        let call = &mut next.revokes[usize::from(key)].call;
        let Call::Committed { waited, seq, timeline } = *call else { return None };
        *call = Call::Waiting { waited: if self.is(Variant::TimerBeforeCommit) { waited } else { 0 }, seq, timeline };
        Some(next)
    }

    /// R5: one read of the registry, on the timeline of the commit, finds nobody who lacks the change. After W it makes no
    /// difference.
    pub fn all_acked(&self, state: &State, key: u8, at: Server) -> Option<State> {
        let Call::Waiting { waited, seq, timeline } = state.revokes[usize::from(key)].call else { return None };
        let comparable = at == timeline || self.is(Variant::BarrierReadsAnywhere);
        (waited < self.wait() && exists(state, at) && comparable).then_some(())?;
        let registry = &state.databases[usize::from(at)].registry;
        registry.iter().all(|row| row.owner.is_none() || (row.applied >= seq && row.timeline == at)).then_some(())?;
        Some(done(state, key))
    }

    /// R6: W has passed since R3.
    pub fn expire(&self, state: &State, key: u8) -> Option<State> {
        let Call::Waiting { waited, .. } = state.revokes[usize::from(key)].call else { return None };
        (waited >= self.wait()).then_some(())?;
        Some(done(state, key))
    }

    /// The reaper has seen the same `hb` for W: the row goes. It counts from its own observation, which it makes at the
    /// commit of the heartbeat: it cannot make it earlier, and to be slower is to act later, which it may anyway.
    pub fn reap(&self, state: &State, row: u8) -> Option<State> {
        let mut next = *state;
        let unchanged = &mut next.reaper[usize::from(row)];
        let wait = if self.is(Variant::ReaperEarly) { self.wait() - 1 } else { self.wait() };
        (*unchanged >= wait).then_some(())?;
        *unchanged = 0;
        let row = &mut next.primary().registry[usize::from(row)];
        row.owner?;
        *row = Row::default();
        Some(next)
    }
}

/// R7.
fn done(state: &State, key: u8) -> State {
    let mut next = *state;
    next.revokes[usize::from(key)] = Revoke { call: Call::Done, committed: None };
    next
}

/// Whether A reached some log. The keys are alike until one of them does, so it is enough to look at runs in which A is first.
fn a_is_logged(state: &State) -> bool {
    state.databases.iter().any(|database| database.seq[0] != 0 || database.limbo == Some(0))
}

/// The last number that a sequence has dealt out.
fn dealt(state: &State) -> u8 {
    let open = state.revokes.iter().map(|revoke| match revoke.call {
        Call::Sent { number, .. } => number,
        _ => 0,
    });
    open.max().unwrap_or(0).max(state.databases[usize::from(FIRST)].head())
}
