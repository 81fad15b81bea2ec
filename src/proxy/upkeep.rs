//! Looks after upstreams while somebody uses them: asks their servers whether they are well, and resolves their names again.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use http::header::{HOST, USER_AGENT};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use tokio::time::{sleep, timeout};

use super::later::Later;
use super::peer::peer;
use crate::upstream::{Change, Health, Origin, Protocol, Server, Upstream};

/// The addresses of a host, as the system has them (`getaddrinfo`), on a thread where that may block.
pub type Resolve = dyn Fn(Arc<str>, u16) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync;

/// Looks after upstreams.
pub struct Upkeep {
    connector: Arc<Later<Connector>>,
    resolve: Box<Resolve>,
    /// How many checks were made: each has a connection of its own, since that it can be made is half of the answer.
    checks: AtomicU64,
}

impl fmt::Debug for Upkeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upkeep").finish_non_exhaustive()
    }
}

impl Upkeep {
    /// With the resolver of the system.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Self::with(Box::new(|host, port| {
            Box::pin(async move {
                let found = tokio::net::lookup_host((&*host, port)).await?;
                Ok(found.collect())
            })
        }))
    }

    /// With another resolver.
    #[must_use]
    pub fn with(resolve: Box<Resolve>) -> Arc<Self> {
        Arc::new(Self { connector: Later::new(|| Connector::new(None)), resolve, checks: AtomicU64::new(0) })
    }

    /// Looks after an upstream from now on, on the current runtime, until nobody uses it any more. One that is looked after
    /// already is left alone.
    pub fn take_up(self: &Arc<Self>, upstream: &Arc<Upstream>) {
        if !upstream.take_up() {
            return;
        }
        if let Some(health) = upstream.settings.health.clone() {
            tokio::spawn(Arc::clone(self).check(Arc::downgrade(upstream), health));
        }
        if upstream.settings.origins.iter().any(Origin::is_named) {
            tokio::spawn(Arc::clone(self).follow(Arc::downgrade(upstream), upstream.settings.resolve_every));
        }
    }

    async fn check(self: Arc<Self>, upstream: Weak<Upstream>, health: Health) {
        // Once: it is not the servers' fault that it takes a while.
        self.connector.get().await;
        while let Some(upstream) = upstream.upgrade() {
            let servers = upstream.servers();
            join_all(servers.iter().map(|server| self.check_one(&upstream, server, &health))).await;
            // Not held while nothing is done: an upstream that is in no route map any more must be able to go.
            drop((upstream, servers));
            sleep(health.every).await;
        }
    }

    async fn check_one(&self, upstream: &Upstream, server: &Server, health: &Health) {
        let why = match timeout(health.timeout, self.ask(upstream, server, health)).await {
            Ok(Ok(status)) if (200..300).contains(&status) => None,
            Ok(Ok(status)) => Some(format!("it answered {status}")),
            // Without pingora's own words, which quote what was answered.
            Ok(Err(error)) => Some(error.root_etype().as_str().to_owned()),
            Err(_) => Some("it did not answer in time".to_owned()),
        };
        let (name, address) = (&*upstream.name, server.address);
        match server.checked(why.is_none(), health) {
            Some(Change::Up) => tracing::info!(upstream = name, server = %address, "a server is in service again"),
            Some(_) => {
                let why = why.unwrap_or_default();
                tracing::warn!(upstream = name, server = %address, path = &*health.path, why, "a server is out of service, its health checks say");
            }
            None => {}
        }
    }

    async fn ask(&self, upstream: &Upstream, server: &Server, health: &Health) -> pingora::Result<u16> {
        let mut peer = peer(upstream, server, Duration::ZERO);
        peer.group_key ^= self.checks.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let (mut session, _) = self.connector.get().await.get_http_session(&peer).await?;
        let authority = server.origin.split_once("://").map_or("", |(_, authority)| authority);
        let mut request = RequestHeader::build("GET", health.path.as_bytes(), None)?;
        request.insert_header(USER_AGENT, concat!("sigmagate/", env!("CARGO_PKG_VERSION")))?;
        if upstream.settings.protocol == Protocol::Http2 {
            request.set_version(http::Version::HTTP_2);
            let scheme = if server.tls_name.is_some() { "https" } else { "http" };
            let uri = format!("{scheme}://{authority}{}", health.path).parse();
            request.set_uri(uri.map_err(|error| pingora::Error::because(pingora::ErrorType::InternalError, "the path", error))?);
        } else {
            request.insert_header(HOST, authority)?;
        }
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |header| header.status.as_u16());
        if let HttpSession::H2(session) = session {
            // The connector holds on to a connection of HTTP/2 until it is told that it is not needed.
            self.connector.get().await.release_http_session(HttpSession::H2(session), &peer, Some(Duration::from_millis(1))).await;
        }
        Ok(status)
    }

    async fn follow(self: Arc<Self>, upstream: Weak<Upstream>, every: Duration) {
        let mut failing = false;
        loop {
            sleep(every).await;
            let Some(upstream) = upstream.upgrade() else { return };
            let name = &*upstream.name;
            match self.resolve(&upstream).await {
                Ok(servers) => {
                    failing = false;
                    let count = servers.len();
                    if upstream.replace(servers) {
                        tracing::info!(upstream = name, servers = count, "the names of an upstream have other addresses");
                    }
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(upstream = name, error, "names cannot be resolved; the addresses of before stay in use");
                }
                Err(_) => {}
            }
        }
    }

    /// All its servers as they are now; none of them if one name cannot be resolved, since nothing is known of it then.
    async fn resolve(&self, upstream: &Upstream) -> Result<Vec<Server>, String> {
        let mut servers = Vec::new();
        for origin in &upstream.settings.origins {
            let resolved = (self.resolve)(Arc::clone(&origin.host), origin.port).await;
            let resolved = resolved.map_err(|error| format!("`{}`: {error}", origin.host))?;
            servers.extend(origin.servers(resolved, upstream.settings.server_name.as_ref())?);
        }
        Ok(servers)
    }
}
