//! The steps that a run consists of, named as in the design: J for a node, R for a revocation.

use std::fmt;

use crate::state::{PROMOTED, Server};

/// One step. `node`, `key` and `row` are indices; `at` is the server that answers. After a failover a connection may
/// lead to either server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Tick,
    /// J1: a process starts.
    Start {
        node: u8,
    },
    /// J2: its row is committed.
    Register {
        node: u8,
    },
    /// J3: it loads a snapshot.
    Snapshot {
        node: u8,
        at: Server,
    },
    /// J4, connection A: `gw.fetch(cursor)` is read.
    Fetch {
        node: u8,
        at: Server,
    },
    /// J4, connection A: its answer arrives.
    Apply {
        node: u8,
    },
    /// J4, connection A: `gw.ack` is written.
    Acknowledge {
        node: u8,
        at: Server,
    },
    /// J5, connection B: t0 is noted and the heartbeat sent.
    Send {
        node: u8,
    },
    /// J5: the heartbeat reads and commits.
    Beat {
        node: u8,
        at: Server,
    },
    /// J5 a to d: the answer arrives.
    Extend {
        node: u8,
    },
    /// J5a: the node stops waiting and closes the connection.
    GiveUp {
        node: u8,
    },
    /// A lazy cache reads a key that it lacks.
    ReadKey {
        node: u8,
        key: u8,
    },
    /// It stores what it read.
    StoreKey {
        node: u8,
    },
    /// R1 and R2: the UPDATE is sent.
    Revoke {
        key: u8,
    },
    /// R2: it commits.
    Commit {
        key: u8,
        at: Server,
    },
    /// R3 and R4: the acknowledgement of the COMMIT arrives.
    Committed {
        key: u8,
    },
    /// R5: every row is up to date; R7.
    AllAcked {
        key: u8,
        at: Server,
    },
    /// R6: W has passed; R7.
    Expire {
        key: u8,
    },
    /// The reaper deletes the row.
    Reap {
        row: u8,
    },
    /// SIGSTOP.
    Pause {
        node: u8,
    },
    /// SIGCONT.
    Resume {
        node: u8,
    },
    /// The process ends; it may start again.
    Crash {
        node: u8,
    },
    /// The node is cut off from the database.
    Cut {
        node: u8,
    },
    /// It is no longer.
    Heal {
        node: u8,
    },
    /// A server restarts. `synchronous_commit=off` acknowledgements may be gone.
    Restart {
        at: Server,
        forgets: bool,
    },
    /// The coordinator dies, or its connection does: no outcome.
    Abandon {
        key: u8,
    },
    /// The standby is promoted; it lacks this many commits.
    Failover {
        lost: u8,
    },
}

impl Step {
    /// All there are. Which of them are possible, their guards say.
    pub fn all() -> Vec<Self> {
        let mut all = vec![Self::Tick, Self::Failover { lost: 0 }, Self::Failover { lost: 1 }];
        for node in 0..2 {
            all.extend([
                Self::Start { node },
                Self::Register { node },
                Self::Apply { node },
                Self::Send { node },
                Self::Extend { node },
                Self::GiveUp { node },
                Self::StoreKey { node },
                Self::Reap { row: node },
                Self::Pause { node },
                Self::Resume { node },
                Self::Crash { node },
                Self::Cut { node },
                Self::Heal { node },
            ]);
            for at in 0..=PROMOTED {
                all.extend([
                    Self::Snapshot { node, at },
                    Self::Fetch { node, at },
                    Self::Acknowledge { node, at },
                    Self::Beat { node, at },
                ]);
            }
        }
        for key in 0..2 {
            all.extend([Self::Revoke { key }, Self::Committed { key }, Self::Expire { key }, Self::Abandon { key }]);
            for at in 0..=PROMOTED {
                all.extend([Self::Commit { key, at }, Self::AllAcked { key, at }]);
            }
            for node in 0..2 {
                all.push(Self::ReadKey { node, key });
            }
        }
        for at in 0..=PROMOTED {
            all.extend([Self::Restart { at, forgets: false }, Self::Restart { at, forgets: true }]);
        }
        all
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Tick => write!(f, "a tick passes"),
            Self::Start { node } => write!(f, "J1 node {node} starts"),
            Self::Register { node } => write!(f, "J2 node {node} registers"),
            Self::Snapshot { node, at } => write!(f, "J3 node {node} loads a snapshot from {}", name(at)),
            Self::Fetch { node, at } => write!(f, "J4 node {node} fetches from {}", name(at)),
            Self::Apply { node } => write!(f, "J4 node {node} gets what it fetched"),
            Self::Acknowledge { node, at } => write!(f, "J4 node {node} acknowledges at {}", name(at)),
            Self::Send { node } => write!(f, "J5 node {node} sends a heartbeat"),
            Self::Beat { node, at } => write!(f, "J5 node {node}'s heartbeat is done at {}", name(at)),
            Self::Extend { node } => write!(f, "J5 node {node} gets the heartbeat's answer"),
            Self::GiveUp { node } => write!(f, "J5a node {node} gives its heartbeat up"),
            Self::ReadKey { node, key } => write!(f, "node {node} reads key {}", letter(key)),
            Self::StoreKey { node } => write!(f, "node {node} stores what it read"),
            Self::Revoke { key } => write!(f, "R2 {} is sent", letter(key)),
            Self::Commit { key, at } => write!(f, "R2 {} commits at {}", letter(key), name(at)),
            Self::Committed { key } => write!(f, "R3 {}'s commit is acknowledged", letter(key)),
            Self::AllAcked { key, at } => write!(f, "R5 {}: every row at {} has it; R7", letter(key), name(at)),
            Self::Expire { key } => write!(f, "R6 {}: W has passed; R7", letter(key)),
            Self::Reap { row } => write!(f, "the reaper deletes row {row}"),
            Self::Pause { node } => write!(f, "FAULT node {node} is paused"),
            Self::Resume { node } => write!(f, "node {node} resumes"),
            Self::Crash { node } => write!(f, "FAULT node {node} crashes"),
            Self::Cut { node } => write!(f, "FAULT node {node} is cut off"),
            Self::Heal { node } => write!(f, "node {node} is connected again"),
            Self::Restart { at, forgets: false } => write!(f, "FAULT {} restarts", name(at)),
            Self::Restart { at, forgets: true } => write!(f, "FAULT {} restarts and forgets acknowledgements", name(at)),
            Self::Abandon { key } => write!(f, "FAULT the coordinator of {} dies", letter(key)),
            Self::Failover { lost: 0 } => write!(f, "FAULT failover"),
            Self::Failover { lost } => write!(f, "FAULT failover, commits lost: {lost}"),
        }
    }
}

pub fn letter(key: u8) -> char {
    char::from(b'A' + key)
}

fn name(server: Server) -> &'static str {
    if server == PROMOTED { "the promoted standby" } else { "the first primary" }
}
