//! Stub of the real one.
use std::sync::Arc;
/// What is left of a rate limit.
#[derive(Clone, Debug)]
pub struct Quota {
    /// The tier's name.
    pub policy: Arc<str>,
    /// `q`
    pub burst: u32,
    /// `w`
    pub window_secs: u32,
    /// `r`
    pub remaining: u32,
    /// `t`
    pub reset_secs: u32,
}
