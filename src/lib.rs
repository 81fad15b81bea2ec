//! sigmagate, the API gateway of SigmaMD: it proves who is calling, maps route prefixes to data scopes, and refuses
//! everything else. What is revoked or switched off stops at once.
//!
//! Deciding is pure; everything else is plumbing. Arrows point down: a module uses those below it and never one above.
//!
//! ```text
//! main -> cli -> demo -> server -> reload
//!      -> proxy | admin          data plane and management side never import each other
//!      -> telemetry, canary, oauth, mail -> metrics
//!      -> gate | lifecycle       one request | one change
//!      -> bearer, tally, feed, config
//!      -> authn, cache, limit, store, jwks
//!      -> access, credential, token, route, scope, upstream, entity, record, id, clock, tls
//! ```

// words and decisions: no async, no I/O, `now` is always an argument
pub mod access;
pub mod clock;
pub mod credential;
pub mod entity;
pub mod id;
pub mod record;
pub mod route;
pub mod scope;
pub mod token;
pub mod upstream;
// data plane
pub mod authn;
pub mod bearer;
pub mod cache;
pub mod feed;
pub mod gate;
pub mod limit;
pub mod oauth;
pub mod proxy;
pub mod tally;
// control plane
pub mod admin;
pub mod canary;
pub mod lifecycle;
pub mod mail;
pub mod manage;
// shared edges
pub mod cli;
pub mod config;
pub mod demo;
pub mod digest;
pub mod jwks;
pub mod metrics;
pub mod reload;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tls;
