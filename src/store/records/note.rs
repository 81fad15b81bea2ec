//! What is in the ledger without having changed anything.

use serde_json::Value;

use crate::id::PracticeId;

/// An entry of the ledger about something that changed nothing: an attempt that was refused, or that the ledger was read.
#[derive(Clone, Debug)]
pub struct Note {
    /// Whose ledger; that of the fleet if there is no such practice.
    pub practice: Option<PracticeId>,
    /// What was done or tried: who may see it follows from it as from that of a change.
    pub action: &'static str,
    /// To what.
    pub target: String,
    /// What else there is to tell.
    pub after: Value,
}
