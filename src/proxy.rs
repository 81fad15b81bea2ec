//! The data plane: pingora, wrapped so that only checked messages reach it and nothing waits for ever.
//!
//! A connection is accepted by [`listener`], and read and watched over by `connection`. Most of its requests are carried by
//! `direct`; what needs more than a header goes through pingora's own loop, and `filter`. Both ask the gate by `decide`. pingora's
//! types stay in this module. [`wire`] and [`chunks`] are bytes in and a verdict out, and public so that they can be fuzzed.

mod active;
mod again;
mod answer;
mod bare;
pub mod chunks;
mod connection;
mod context;
mod cork;
mod date;
mod decide;
mod direct;
mod filter;
mod guard;
mod head;
mod headers;
mod ids;
mod later;
pub mod listener;
mod live;
mod own;
mod peer;
mod pool;
mod request;
mod respond;
mod streams;
#[cfg(test)]
mod tests;
mod timer;
mod tunnel;
mod upgrade;
mod upkeep;
pub mod wire;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

pub use active::Active;
pub use listener::{Bound, Error, Running, start, start_on};
use live::Inflight;
pub use upkeep::{Resolve, Upkeep};

use crate::gate::Gate;
use crate::oauth::OAuth;
use crate::record::Recorder;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The bounds of the data plane.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many connections may be open; over that they are closed at once.
    pub max_connections: usize,
    /// How many of them may be of one address that is none of `trusted_proxies`; over that they are closed at once.
    pub max_connections_per_address: NonZeroU32,
    /// How many requests may be under way; over that they are refused before anything else is looked at.
    pub max_requests: usize,
    /// How long a request header may take from its first byte to its last.
    pub header_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// How long the content of a request may pause.
    pub body_timeout: Duration,
    /// How long a client may leave an answer unread.
    pub write_timeout: Duration,
    /// How long a request may take, from its complete header to the end of its answer.
    pub request_timeout: Duration,
    /// How many fields a request header may have.
    pub header_fields: usize,
    /// How many bytes they may have together.
    pub header_bytes: usize,
    /// How many bytes a request target may have.
    pub target_bytes: usize,
    /// How long an unused connection to an upstream is kept.
    pub upstream_idle_timeout: Duration,
    /// How many of those are kept, per thread.
    pub upstream_pool: usize,
    /// Proxies in front of us, whose word on the client's address counts.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_address: NonZeroU32::new(1000).expect("not zero"),
            max_requests: 10_000,
            header_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_mins(5),
            header_fields: 100,
            header_bytes: 64 * 1024,
            target_bytes: 8 * 1024,
            upstream_idle_timeout: Duration::from_mins(1),
            upstream_pool: 512,
            trusted_proxies: Vec::new(),
        }
    }
}

impl From<&Settings> for wire::Limits {
    fn from(settings: &Settings) -> Self {
        // pingora itself takes 255 fields and less than 1 MiB; what it would refuse must not get that far.
        Self {
            fields: settings.header_fields.min(250),
            bytes: settings.header_bytes.min(900 * 1024),
            target: settings.target_bytes.min(60_000),
        }
    }
}

/// What every connection works with.
pub struct Shared {
    gate: Arc<Gate>,
    recorder: Arc<dyn Recorder>,
    settings: Settings,
    active: Arc<Active>,
    inflight: Arc<Inflight>,
    stopping: AtomicBool,
    own: Option<Arc<OAuth>>,
}

impl Shared {
    /// A data plane that asks this gate and reports to this recorder. What the gate no longer permits, it ends.
    pub fn new(gate: Arc<Gate>, recorder: Arc<dyn Recorder>, settings: Settings) -> Self {
        let inflight = Arc::<Inflight>::default();
        // The gate outlives neither its data plane nor the other way round, for the one holds the other.
        let (entries, asked) = (Arc::clone(&inflight), Arc::downgrade(&gate));
        gate.on_change(Box::new(move |touched| {
            if let Some(gate) = asked.upgrade() {
                entries.settle(touched, &gate);
            }
        }));
        Self { gate, recorder, settings, active: Arc::default(), inflight, stopping: AtomicBool::new(false), own: None }
    }

    /// The same, which answers these paths itself.
    #[must_use]
    pub fn with_own(self, own: Option<Arc<OAuth>>) -> Self {
        Self { own, ..self }
    }

    /// The count of connections and requests, to wait for after a stop.
    pub fn active(&self) -> Arc<Active> {
        Arc::clone(&self.active)
    }

    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
}
