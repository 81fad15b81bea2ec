//! What the model remembers: the databases, the nodes, the revocations under way, and what the reaper has seen.
//!
//! Everything is a small number, and time is relative: an age or a rest, never a date, that stops counting once it makes
//! no difference any more. So the space of states is finite though runs are not.

/// L: how long a lease lasts on the node's own clock, in ticks.
pub const LEASE: u8 = 2;
/// D: how many ticks longer that may be in true time, where the node's clock is the slowest permitted.
pub const DRIFT: u8 = 1;
/// The longest lease in true time. Every lease lasts so long here: a shorter one only admits less.
pub const LONGEST: u8 = LEASE + DRIFT;

pub const NODES: usize = 2;
pub const KEYS: usize = 2;

/// A set of keys, one bit for each.
pub type Keys = u8;

/// Where a server is in [`State::databases`], which is its timeline too: the first primary, then the promoted standby.
pub type Server = u8;
pub const FIRST: Server = 0;
pub const PROMOTED: Server = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub databases: [Database; 2],
    pub primary: Server,
    pub nodes: [Node; NODES],
    pub revokes: [Revoke; KEYS],
    /// For how long each row's `hb` has not moved, up to W.
    pub reaper: [u8; NODES],
    /// How many more faults this run may have.
    pub faults: u8,
}

/// One server: the log of changes and the registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// The place of each key's revocation in the log; 0: the key is active.
    pub seq: [u8; KEYS],
    /// The key whose revocation was flushed on an old primary, waits there for the lost standby, and is seen by nobody
    /// until that server restarts.
    pub limbo: Option<u8>,
    pub registry: [Row; NODES],
}

/// A row of the registry. Its `hb` is not kept: [`State::reaper`] has all that matters of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The node that may write it; none: there is no row.
    pub owner: Option<u8>,
    pub applied: u8,
    pub timeline: Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    pub phase: Phase,
    pub paused: bool,
    pub cut: bool,
    /// Ticks until the lease has run out.
    pub lease: u8,
    /// The newest change in force here, a position on `timeline`.
    pub applied: u8,
    pub timeline: Server,
    /// The keys that the replica holds as revoked.
    pub denied: Keys,
    pub heartbeat: Heartbeat,
    /// What `gw.fetch` answered, under way on connection A.
    pub fetched: Option<Answer>,
    /// A notice is under way; only kept where notices matter.
    pub noticed: bool,
    /// A key that a lazy cache has read as active and is about to store; only in `StaleFill`.
    pub fill: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No process.
    Off,
    /// J1 is done: a process, and nothing else.
    Started,
    /// J2 is done: it has a row.
    Registered,
    /// J3 is done: it has a replica, and J4 and J5 go on. It admits while it has a lease.
    Running,
    /// A replica and no row; only in the variants that permit it.
    Unregistered,
}

/// Connection B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    None,
    /// On its way to the database, for this many ticks.
    Sent {
        age: u8,
    },
    /// Committed and read; the answer is on its way back. `None`: `ok = false`.
    Answered {
        age: u8,
        answer: Option<Answer>,
    },
}

/// What a read found after the cursor it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    pub head: u8,
    pub revoked: Keys,
    pub timeline: Server,
}

/// One call of R1 to R7. Key and call have the same index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Revoke {
    pub call: Call,
    /// Ticks since the change became visible, up to `LONGEST`; none: it did not yet, or the call is done, after which P1
    /// asks for more than P2 does.
    pub committed: Option<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Not made, or without an outcome: it can be made (again).
    Idle,
    /// R2 is on its way. `waited` counts here in `TimerBeforeCommit` only, `number` was dealt out in `Bigserial` only.
    Sent { waited: u8, number: u8 },
    /// R2 is committed; the acknowledgement is on its way back.
    Committed { waited: u8, seq: u8, timeline: Server },
    /// R3 and R4 are done: the loop of R5 and R6.
    Waiting { waited: u8, seq: u8, timeline: Server },
    /// R7: acknowledged.
    Done,
}

impl State {
    /// Node 0 serves under a fresh lease, node 1 does not exist, both keys are active.
    pub fn initial(faults: u8) -> Self {
        let mut first = Database::default();
        first.registry[0] = Row { owner: Some(0), applied: 0, timeline: FIRST };
        let serving = Node { phase: Phase::Running, lease: LONGEST, ..Node::OFF };
        Self {
            databases: [first, Database::default()],
            primary: FIRST,
            nodes: [serving, Node::OFF],
            revokes: [Revoke { call: Call::Idle, committed: None }; KEYS],
            reaper: [0; NODES],
            faults,
        }
    }

    /// The standby takes over with everything that was visible, except for the last `lost` changes.
    pub fn promote(&mut self, lost: u8) -> Option<()> {
        let mut promoted = self.databases[usize::from(FIRST)];
        let kept = promoted.head().checked_sub(lost)?;
        for seq in promoted.seq.iter_mut().filter(|seq| **seq > kept) {
            *seq = 0;
        }
        promoted.limbo = None;
        self.databases[usize::from(PROMOTED)] = promoted;
        self.primary = PROMOTED;
        Some(())
    }

    pub fn primary(&mut self) -> &mut Database {
        &mut self.databases[usize::from(self.primary)]
    }
}

impl Row {
    /// Whether the node may write it: id and epoch are those of its registration.
    pub fn belongs_to(self, index: u8, node: &Node) -> bool {
        self.owner == Some(index) && self.timeline == node.timeline
    }
}

impl Database {
    pub fn head(&self) -> u8 {
        self.seq[0].max(self.seq[1])
    }

    /// The keys that are revoked by changes after `cursor`.
    pub fn revoked_after(&self, cursor: u8) -> Keys {
        u8::from(self.seq[0] > cursor) | u8::from(self.seq[1] > cursor) << 1
    }

    pub fn answer(&self, cursor: u8, timeline: Server) -> Answer {
        Answer { head: self.head(), revoked: self.revoked_after(cursor), timeline }
    }
}

impl Node {
    pub const OFF: Self = Self {
        phase: Phase::Off,
        paused: false,
        cut: false,
        lease: 0,
        applied: 0,
        timeline: FIRST,
        denied: 0,
        heartbeat: Heartbeat::None,
        fetched: None,
        noticed: false,
        fill: None,
    };

    /// Whether it can do something that takes no network.
    pub fn runs(&self) -> bool {
        self.phase != Phase::Off && !self.paused
    }

    /// Whether it can take a step together with a server.
    pub fn reaches(&self) -> bool {
        self.runs() && !self.cut
    }

    /// The lease is given up, what is under way is dropped with its connections, and the process begins again at J1.
    /// The replica keeps what it knows as revoked.
    pub fn begins_again(&mut self) {
        *self = Self { phase: Phase::Started, paused: self.paused, cut: self.cut, denied: self.denied, ..Self::OFF };
    }
}
