//! A state in less than 128 bits, so that the checker remembers states themselves and not their hashes.

use crate::state::{Answer, Call, Database, Heartbeat, Node, Phase, Revoke, Row, State};

/// Writes small numbers one after another.
#[derive(Default)]
struct Writer {
    bits: u128,
    used: u32,
}

impl Writer {
    fn put(&mut self, value: u8, width: u32) {
        assert!(u32::from(value) < 1 << width, "{value} does not fit into {width} bits");
        self.bits |= u128::from(value) << self.used;
        self.used += width;
    }

    /// None is 0.
    fn put_option(&mut self, value: Option<u8>, width: u32) {
        self.put(value.map_or(0, |value| value + 1), width);
    }
}

/// Reads them in the same order.
struct Reader(u128);

impl Reader {
    #[expect(clippy::cast_possible_truncation, reason = "only the lowest bits are wanted")]
    fn take(&mut self, width: u32) -> u8 {
        let value = self.0 as u8 & ((1 << width) - 1);
        self.0 >>= width;
        value
    }

    fn flag(&mut self) -> bool {
        self.take(1) == 1
    }

    fn take_option(&mut self, width: u32) -> Option<u8> {
        self.take(width).checked_sub(1)
    }
}

/// The state as a number; [`unpack`] is its inverse.
pub fn pack(state: &State) -> u128 {
    let mut out = Writer::default();
    for database in &state.databases {
        put_database(&mut out, database);
    }
    out.put(state.primary, 1);
    for node in &state.nodes {
        put_node(&mut out, node);
    }
    for revoke in state.revokes {
        put_revoke(&mut out, revoke);
    }
    for seen in state.reaper {
        out.put(seen, 2);
    }
    out.put(state.faults, 2);
    assert!(out.used <= 127, "a state takes {} bits", out.used);
    out.bits
}

pub fn unpack(bits: u128) -> State {
    let mut from = Reader(bits);
    State {
        databases: [take_database(&mut from), take_database(&mut from)],
        primary: from.take(1),
        nodes: [take_node(&mut from), take_node(&mut from)],
        revokes: [take_revoke(&mut from), take_revoke(&mut from)],
        reaper: [from.take(2), from.take(2)],
        faults: from.take(2),
    }
}

fn put_database(out: &mut Writer, database: &Database) {
    out.put(database.seq[0], 2);
    out.put(database.seq[1], 2);
    out.put_option(database.limbo, 2);
    for row in &database.registry {
        out.put_option(row.owner, 2);
        out.put(row.applied, 2);
        out.put(row.timeline, 1);
    }
}

fn take_database(from: &mut Reader) -> Database {
    let seq = [from.take(2), from.take(2)];
    let limbo = from.take_option(2);
    let mut row = || Row { owner: from.take_option(2), applied: from.take(2), timeline: from.take(1) };
    Database { seq, limbo, registry: [row(), row()] }
}

fn put_node(out: &mut Writer, node: &Node) {
    out.put(node.phase as u8, 3);
    out.put(u8::from(node.paused), 1);
    out.put(u8::from(node.cut), 1);
    out.put(node.lease, 2);
    out.put(node.applied, 2);
    out.put(node.timeline, 1);
    out.put(node.denied, 2);
    match node.heartbeat {
        Heartbeat::None => out.put(0, 2),
        Heartbeat::Sent { age } => {
            out.put(1, 2);
            out.put(age, 2);
        }
        Heartbeat::Answered { age, answer } => {
            out.put(2, 2);
            out.put(age, 2);
            put_answer(out, answer);
        }
    }
    put_answer(out, node.fetched);
    out.put(u8::from(node.noticed), 1);
    out.put_option(node.fill, 2);
}

fn take_node(from: &mut Reader) -> Node {
    Node {
        phase: [Phase::Off, Phase::Started, Phase::Registered, Phase::Running, Phase::Unregistered][usize::from(from.take(3))],
        paused: from.flag(),
        cut: from.flag(),
        lease: from.take(2),
        applied: from.take(2),
        timeline: from.take(1),
        denied: from.take(2),
        heartbeat: match from.take(2) {
            0 => Heartbeat::None,
            1 => Heartbeat::Sent { age: from.take(2) },
            _ => Heartbeat::Answered { age: from.take(2), answer: take_answer(from) },
        },
        fetched: take_answer(from),
        noticed: from.flag(),
        fill: from.take_option(2),
    }
}

fn put_answer(out: &mut Writer, answer: Option<Answer>) {
    out.put(u8::from(answer.is_some()), 1);
    if let Some(answer) = answer {
        out.put(answer.head, 2);
        out.put(answer.revoked, 2);
        out.put(answer.timeline, 1);
    }
}

fn take_answer(from: &mut Reader) -> Option<Answer> {
    from.flag().then(|| Answer { head: from.take(2), revoked: from.take(2), timeline: from.take(1) })
}

fn put_revoke(out: &mut Writer, revoke: Revoke) {
    let (call, waited, number, timeline) = match revoke.call {
        Call::Idle => (0, 0, 0, 0),
        Call::Sent { waited, number } => (1, waited, number, 0),
        Call::Committed { waited, seq, timeline } => (2, waited, seq, timeline),
        Call::Waiting { waited, seq, timeline } => (3, waited, seq, timeline),
        Call::Done => (4, 0, 0, 0),
    };
    out.put(call, 3);
    out.put(waited, 2);
    out.put(number, 2);
    out.put(timeline, 1);
    out.put_option(revoke.committed, 3);
}

fn take_revoke(from: &mut Reader) -> Revoke {
    let (call, waited, number, timeline) = (from.take(3), from.take(2), from.take(2), from.take(1));
    let call = match call {
        0 => Call::Idle,
        1 => Call::Sent { waited, number },
        2 => Call::Committed { waited, seq: number, timeline },
        3 => Call::Waiting { waited, seq: number, timeline },
        _ => Call::Done,
    };
    Revoke { call, committed: from.take_option(3) }
}
