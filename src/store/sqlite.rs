//! The embedded store.
/// placeholder
pub struct SqliteStore;
