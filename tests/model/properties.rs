//! What must hold always, and what must happen at least once for that to mean something.

use crate::setting::Setting;
use crate::state::{Call, LONGEST, Revoke, State};

pub enum Kind {
    Always,
    Sometimes,
}

pub struct Property {
    pub name: &'static str,
    pub kind: Kind,
    pub holds: fn(&Setting, &State) -> bool,
}

pub const P1: &str = "P1 what is acknowledged, nobody admits";
pub const P2: &str = "P2 what was committed L + D ago, nobody admits";
pub const BOTH_ADMIT: &str = "both nodes admit";
pub const BOTH_ACKNOWLEDGED: &str = "both revocations are acknowledged";
pub const EARLY: &str = "a revocation is acknowledged before W";
pub const FENCED: &str = "a revocation is acknowledged while a node that has not applied it is out of lease";
pub const OTHER_KEY: &str = "a key is still admitted after the other's revocation is acknowledged";

pub const PROPERTIES: &[Property] = &[
    Property { name: P1, kind: Kind::Always, holds: |setting, state| !admitted(setting, state, acknowledged) },
    Property {
        name: P2,
        kind: Kind::Always,
        holds: |setting, state| !admitted(setting, state, |revoke| revoke.committed == Some(LONGEST)),
    },
    Property { name: BOTH_ADMIT, kind: Kind::Sometimes, holds: |setting, state| state.nodes.iter().all(|node| setting.admits(node, 0)) },
    Property { name: BOTH_ACKNOWLEDGED, kind: Kind::Sometimes, holds: |_, state| state.revokes.into_iter().all(acknowledged) },
    Property { name: EARLY, kind: Kind::Sometimes, holds: early },
    Property { name: FENCED, kind: Kind::Sometimes, holds: fenced },
    Property { name: OTHER_KEY, kind: Kind::Sometimes, holds: other_key },
];

fn acknowledged(revoke: Revoke) -> bool {
    revoke.call == Call::Done
}

/// Whether a node admits a key whose revocation is as described.
fn admitted(setting: &Setting, state: &State, revocation: fn(Revoke) -> bool) -> bool {
    (0..).zip(state.revokes).any(|(key, revoke)| revocation(revoke) && state.nodes.iter().any(|node| setting.admits(node, key)))
}

/// R5 can end a call.
fn early(setting: &Setting, state: &State) -> bool {
    (0..=state.primary).any(|at| setting.all_acked(state, 0, at).is_some())
}

/// R6 can end a call while the row of a node lacks the change.
fn fenced(setting: &Setting, state: &State) -> bool {
    let primary = &state.databases[usize::from(state.primary)];
    let lacks = |node: u8| primary.registry[setting.row(node)].owner == Some(node) && state.nodes[usize::from(node)].denied & 1 == 0;
    setting.expire(state, 0).is_some() && (0..2).any(lacks)
}

fn other_key(setting: &Setting, state: &State) -> bool {
    acknowledged(state.revokes[0]) && state.nodes.iter().any(|node| setting.admits(node, 1))
}
