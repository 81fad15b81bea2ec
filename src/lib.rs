//! sigmagate, the API gateway of SigmaMD.
//!
//! Deciding is pure; everything else is plumbing.
// words and decisions: no async, no I/O, `now` is always an argument
pub mod access;
pub mod clock;
pub mod credential;
pub mod entity;
pub mod id;
pub mod record;
pub mod route;
pub mod scope;
pub mod upstream;
// data plane
pub mod cache;
pub mod gate;
pub mod limit;
pub mod proxy;
// shared edges
pub mod store;
