//! The command line: one file per verb.

pub mod audit;
pub mod client;
pub mod migrate;
pub mod output;
pub mod practice;
pub mod user;

use std::sync::Arc;

use crate::lifecycle::Lifecycle;
use crate::store::{Actor, Store};

/// What every management verb works with.
pub struct Context {
    /// Where things are looked up.
    pub store: Arc<dyn Store>,
    /// What changes them.
    pub lifecycle: Lifecycle,
    /// JSON for programs instead of tables for people.
    pub json: bool,
    /// Who does it, for the audit.
    pub actor: Actor,
}
