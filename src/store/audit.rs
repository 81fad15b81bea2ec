//! Audit events: who did what, when, from where; each holds the hash of the one before it.

/// placeholder
#[derive(Debug)]
pub struct Event;
