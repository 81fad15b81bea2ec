//! The services behind the gateway, as the configuration names them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Where it listens: resolved when the configuration was loaded, so that no request waits for DNS.
    pub address: SocketAddr,
    /// The name to ask for and to verify when it speaks TLS; `None`: plain HTTP.
    pub tls_name: Option<Arc<str>>,
    /// The origin as the file has it, for logs and errors.
    pub origin: Arc<str>,
}

/// A named group of servers that are taken in turn.
#[derive(Debug)]
pub struct Upstream {
    /// Its name in the route file.
    pub name: Arc<str>,
    /// At least one.
    pub servers: Vec<Server>,
    /// How long a connection may take to be made, TLS included.
    pub connect_timeout: Duration,
    /// How long the upstream may stay silent: before its answer, and between two parts of it.
    pub response_timeout: Duration,
    /// How many more servers are tried when one cannot be reached.
    pub retries: usize,
    /// Whose turn it is.
    pub turn: AtomicUsize,
}

impl Upstream {
    /// The server whose turn it is; over many calls each gets the same share.
    #[must_use]
    pub fn next(&self) -> &Server {
        // Relaxed: only the share matters, not the order between threads.
        &self.servers[self.turn.fetch_add(1, Ordering::Relaxed) % self.servers.len()]
    }
}
