//! Listeners: accepting connections, TLS, and the bound on both.

use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt;
use pingora::connectors::TransportConnector;
use pingora::protocols::Stream;
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::Shared;
use super::active::Counted;
use super::bare::Bare;
use super::connection::{Connection, Plane};
use super::filter::Filter;
use super::later::Later;
use super::pool::Pool;
use crate::limit::{self, Full, Slot, Slots};
use crate::tls;

/// Why a listener cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket cannot be used.
    #[error("the listener at {0} cannot be used")]
    Socket(SocketAddr, #[source] std::io::Error),
}

/// A bound socket, plain (HTTP/1.1 and h2c by prior knowledge) or with TLS (by ALPN).
#[derive(Debug)]
pub struct Bound {
    listener: StdListener,
    address: SocketAddr,
    tls: Option<Arc<tls::Live>>,
}

impl Bound {
    /// A listener for plain connections, or for TLS.
    ///
    /// # Errors
    /// The socket is not bound, or cannot be made non-blocking.
    pub fn new(listener: StdListener, tls: Option<Arc<tls::Live>>) -> Result<Self, Error> {
        let unbound = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = listener.local_addr().map_err(|e| Error::Socket(unbound, e))?;
        listener.set_nonblocking(true).map_err(|e| Error::Socket(address, e))?;
        Ok(Self { listener, address, tls })
    }

    /// Whether it is for TLS.
    pub fn is_secure(&self) -> bool {
        self.tls.is_some()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The listeners at work.
#[derive(Debug)]
pub struct Running {
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Waits until every listener is closed, which they are soon after the stop. Connections may go on: see
    /// [`super::Active::idle`].
    pub async fn closed(self) {
        for task in self.tasks {
            // A task that panicked is closed too.
            let _ = task.await;
        }
    }
}

/// Serves `listeners` on the current runtime until `shutdown` turns true.
///
/// # Errors
/// TLS or a socket cannot be set up; nothing is served then.
///
/// # Panics
/// Outside of a tokio runtime.
pub fn start(listeners: Vec<Bound>, shared: Shared, shutdown: &watch::Receiver<bool>) -> Result<Running, Error> {
    start_on(listeners, shared, shutdown, &[Handle::current()])
}

/// As [`start`]; connections are dealt out in turn to `runtimes`, which may be one thread each.
///
/// # Errors
/// As of [`start`].
///
/// # Panics
/// `runtimes` is empty.
pub fn start_on(listeners: Vec<Bound>, shared: Shared, shutdown: &watch::Receiver<bool>, runtimes: &[Handle]) -> Result<Running, Error> {
    assert!(!runtimes.is_empty(), "connections need a runtime to be served on");
    let shared = Arc::new(shared);
    let conf = ServerConf {
        threads: runtimes.len(),
        upstream_keepalive_pool_size: shared.settings.upstream_pool,
        max_retries: 32,
        ..ServerConf::default()
    };
    let connector = Later::new(|| TransportConnector::new(None));
    let (conf, behind, tunnels) = (Arc::new(conf), Arc::clone(&shared), Arc::clone(&connector));
    let proxy = Later::new(move || {
        let filter = Filter { shared: Arc::clone(&behind), tunnels: Arc::clone(&tunnels) };
        Arc::new(http_proxy(&conf, filter))
    });
    // One after the other, so that they leave a processor to those who ask already.
    let (then, runtime) = (Arc::clone(&connector), runtimes[0].clone());
    proxy.begin(&runtimes[0], move || then.begin(&runtime, || ()));
    let plane = Arc::new(Plane { shared: Arc::clone(&shared), proxy, connector });
    // A connection is used by the thread that made it: it is told of what arrives there.
    let pools: Vec<_> = runtimes.iter().map(|_| Arc::<Pool>::default()).collect();
    for (runtime, pool) in runtimes.iter().zip(&pools) {
        runtime.spawn(Pool::keep_clean(Arc::downgrade(pool)));
    }
    let room = Arc::new(Semaphore::new(shared.settings.max_connections));
    let by_address = Slots::default();

    let mut ready = Vec::new();
    for bound in listeners {
        let listener = {
            // Registers with the reactor of this runtime.
            let _inside = runtimes[0].enter();
            TcpListener::from_std(bound.listener).map_err(|e| Error::Socket(bound.address, e))?
        };
        ready.push(Endpoint {
            listener,
            tls: bound.tls,
            plane: Arc::clone(&plane),
            room: Arc::clone(&room),
            by_address: by_address.clone(),
            workers: runtimes.iter().cloned().zip(pools.iter().cloned()).collect(),
        });
    }
    let mut tasks: Vec<_> = ready.into_iter().map(|endpoint| runtimes[0].spawn(endpoint.run(shutdown.clone()))).collect();
    let mut stop = shutdown.clone();
    tasks.push(runtimes[0].spawn(async move {
        let _ = stop.wait_for(|stop| *stop).await;
        shared.stopping.store(true, Ordering::Release);
    }));
    Ok(Running { tasks })
}

struct Endpoint {
    listener: TcpListener,
    tls: Option<Arc<tls::Live>>,
    plane: Arc<Plane>,
    room: Arc<Semaphore>,
    by_address: Slots<IpAddr>,
    /// Where connections are served, each with the upstreams' connections of that thread.
    workers: Vec<(Handle, Arc<Pool>)>,
}

impl Endpoint {
    /// A place among the connections of an address. Behind a proxy of ours there are many clients.
    fn slot(&self, peer: IpAddr) -> Result<Option<Slot<IpAddr>>, Full> {
        let (peer, settings) = (peer.to_canonical(), &self.plane.shared.settings);
        if settings.trusted_proxies.iter().any(|network| network.contains(&peer)) {
            return Ok(None);
        }
        self.by_address.enter(&limit::network(peer), settings.max_connections_per_address).map(Some)
    }

    async fn run(self, mut shutdown: watch::Receiver<bool>) {
        let mut turn = 0_usize;
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = shutdown.wait_for(|stop| *stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => self.take(stream, peer, &mut turn, &shutdown),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    // Out of files, most likely: trying again at once would only burn the time that others need to finish.
                    sleep(Duration::from_millis(50)).await;
                }
            }
        }
        // The kernel has taken more for us, which it would reset.
        while let Some(Ok((stream, peer))) = self.listener.accept().now_or_never() {
            self.take(stream, peer, &mut turn, &shutdown);
        }
    }

    /// Has a connection served, if there is room for it.
    fn take(&self, stream: TcpStream, peer: SocketAddr, turn: &mut usize, shutdown: &watch::Receiver<bool>) {
        // Over the cap: closed before anything is spent on it.
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else { return };
        let Ok(slot) = self.slot(peer.ip()) else { return };
        let acceptor = self.tls.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
        let (plane, shutdown) = (Arc::clone(&self.plane), shutdown.clone());
        // Before anybody can ask whether there is one left.
        let places = (permit, slot, plane.shared.active.connection());
        *turn = turn.wrapping_add(1);
        let (runtime, pool) = &self.workers[*turn % self.workers.len()];
        let pool = Arc::clone(pool);
        if self.workers.len() == 1 {
            runtime.spawn(serve(plane, pool, stream, peer, acceptor, places, shutdown));
        } else if let Ok(stream) = stream.into_std() {
            runtime.spawn(async move {
                // Registered anew, with the reactor of the thread that serves it.
                if let Ok(stream) = TcpStream::from_std(stream) {
                    serve(plane, pool, stream, peer, acceptor, places, shutdown).await;
                }
            });
        }
    }
}

async fn serve(
    plane: Arc<Plane>,
    pool: Arc<Pool>,
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: Option<TlsAcceptor>,
    places: (OwnedSemaphorePermit, Option<Slot<IpAddr>>, Counted),
    shutdown: watch::Receiver<bool>,
) {
    let _places = places;
    let secure = acceptor.is_some();
    let stream = Bare::new(stream, peer);
    let stream: Stream = match acceptor {
        None => Box::new(stream),
        Some(acceptor) => match timeout(plane.shared.settings.handshake_timeout, stream.secure(acceptor)).await {
            Ok(Ok(stream)) => Box::new(stream),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "a TLS handshake failed");
                return;
            }
            Err(_) => return,
        },
    };
    Connection::new(plane, pool, peer.ip().to_canonical(), secure, shutdown).serve(stream).await;
}
