//! Every state that can be reached, breadth first, so that the first way to a state is a shortest one.
//!
//! The states themselves are kept, not their hashes, so that none is taken for another. They lie in the order in which they were
//! found, which makes the list the queue as well.
//!
//! Why not stateright: its web server comes with it, always, and ten more crates, and it keeps hashes of 64 bits. It was given
//! this model once, and counts the same states.

use std::fmt;
use std::time::{Duration, Instant};

use crate::pack::{pack, unpack};
use crate::properties::{Kind, PROPERTIES};
use crate::setting::Setting;

/// What was found.
pub struct Report {
    pub states: usize,
    /// Steps to the farthest state.
    pub depth: usize,
    pub took: Duration,
    /// The property that does not hold, and how.
    pub broken: Option<(&'static str, Trace)>,
    /// The properties that should hold sometimes, and never did.
    pub never: Vec<&'static str>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10} states, depth {:>2}, {:>6.1} s", self.states, self.depth, self.took.as_secs_f64())?;
        match &self.broken {
            Some((property, trace)) => write!(f, "; broken after {} steps: {property}", trace.steps),
            None => Ok(()),
        }
    }
}

/// A way from the initial state.
pub struct Trace {
    pub steps: usize,
    pub text: String,
}

/// Goes through the states until one breaks a property, or there are no more.
pub fn explore(setting: &Setting) -> Report {
    let begun = Instant::now();
    let steps = setting.steps();
    let always: Vec<_> = PROPERTIES.iter().filter(|property| matches!(property.kind, Kind::Always)).collect();
    let mut never: Vec<_> = PROPERTIES.iter().filter(|property| matches!(property.kind, Kind::Sometimes)).collect();
    let mut seen = Seen::new();
    seen.insert(&[pack(&setting.initial())]);
    let mut levels = vec![0, 1];
    let mut broken = None;
    let mut successors = Vec::new();
    let mut at = 0;
    while at < seen.states.len() {
        if at == levels[levels.len() - 1] {
            levels.push(seen.states.len());
        }
        let state = unpack(seen.states[at]);
        never.retain(|property| !(property.holds)(setting, &state));
        if let Some(property) = always.iter().find(|property| !(property.holds)(setting, &state)) {
            broken = Some((property.name, trace(setting, &seen.states, &levels, at)));
            break;
        }
        successors.clear();
        for &step in &steps {
            if let Some(next) = setting.next(&state, step) {
                successors.push(pack(&next));
            }
        }
        seen.insert(&successors);
        at += 1;
    }
    let never = never.into_iter().map(|property| property.name).collect();
    Report { states: seen.states.len(), depth: levels.len() - 2, took: begun.elapsed(), broken, never }
}

/// The states found, in order, and a table of open addressing to recognise them.
struct Seen {
    states: Vec<u128>,
    /// States, each with `TAKEN`; 0 is free. The length is a power of two.
    table: Vec<u128>,
}

const TAKEN: u128 = 1 << 127;

impl Seen {
    fn new() -> Self {
        Self { states: Vec::new(), table: vec![0; 1 << 12] }
    }

    /// Adds those that are new. In a large table every look misses the processor's caches, so the first looks are made
    /// together: they wait for the memory side by side.
    fn insert(&mut self, states: &[u128]) {
        let taken = states.iter().fold(0, |taken, &state| taken | self.table[self.home(state)]);
        std::hint::black_box(taken);
        for &state in states {
            let slot = self.slot(state);
            if self.table[slot] == 0 {
                self.table[slot] = state | TAKEN;
                self.states.push(state);
            }
        }
        if self.states.len() * 4 > self.table.len() * 3 {
            self.table = Vec::new();
            self.table = vec![0; (self.states.len() * 2).next_power_of_two()];
            for at in 0..self.states.len() {
                let slot = self.slot(self.states[at]);
                self.table[slot] = self.states[at] | TAKEN;
            }
        }
    }

    /// Where the state is, or would be.
    fn slot(&self, state: u128) -> usize {
        let mut slot = self.home(state);
        while self.table[slot] != 0 && self.table[slot] != state | TAKEN {
            slot = (slot + 1) & (self.table.len() - 1);
        }
        slot
    }

    #[expect(clippy::cast_possible_truncation, reason = "a hash keeps some of the bits")]
    fn home(&self, state: u128) -> usize {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        let folded = (state as u64).wrapping_mul(ODD) ^ ((state >> 64) as u64);
        let hash = (folded ^ folded >> 32).wrapping_mul(ODD);
        (hash ^ hash >> 29) as usize & (self.table.len() - 1)
    }
}

/// Goes back from the last state, level by level, to one that leads to it.
fn trace(setting: &Setting, states: &[u128], levels: &[usize], end: usize) -> Trace {
    let steps = setting.steps();
    let mut lines = Vec::new();
    let mut after = unpack(states[end]);
    for level in (0..levels.len() - 2).rev() {
        let leads = |&before: &u128| {
            let before = unpack(before);
            let step = steps.iter().find(|&&step| setting.next(&before, step) == Some(after))?;
            Some((before, step))
        };
        let (before, step) = states[levels[level]..levels[level + 1]].iter().find_map(leads).expect("a state has a predecessor");
        lines.push(format!("{:>3} {:40} {after}", level + 1, step.to_string()));
        after = before;
    }
    lines.push(format!("{:44} {after}", ""));
    lines.reverse();
    Trace { steps: lines.len() - 1, text: lines.join("\n") }
}
