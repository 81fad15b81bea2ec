//! The listener of operators: accepting connections, in plain text or with TLS.

use std::future::Future;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum_server::Handle;
use axum_server::accept::Accept;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;

use super::{State, router};
use crate::tls;

/// How long a handshake may take, and then the header of the first request.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long what is being answered may take when the gateway stops.
const GRACE: Duration = Duration::from_secs(1);

/// Serves until `stop` is done, in plain text or by `tls`.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<tls::Live>>,
    state: State,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let handle = Handle::new();
    let stopping = handle.clone();
    tokio::spawn(async move {
        stop.await;
        stopping.graceful_shutdown(Some(GRACE));
    });
    axum_server::from_tcp(listener)?
        .acceptor(Acceptor(tls))
        .handle(handle)
        .first_request_timeout(PATIENCE)
        .serve(router(state).into_make_service_with_connect_info::<SocketAddr>())
        .await
}

#[derive(Clone)]
struct Acceptor(Option<Arc<tls::Live>>);

impl<S: Send + 'static> Accept<TcpStream, S> for Acceptor {
    type Stream = Either<TcpStream, TlsStream<TcpStream>>;
    type Service = S;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, S)>> + Send>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let tls = self.0.as_ref().map(|tls| TlsAcceptor::from(tls.config()));
        Box::pin(async move {
            // Without it answers wait for acknowledgements.
            stream.set_nodelay(true)?;
            let stream = match tls {
                None => Either::Left(stream),
                Some(tls) => Either::Right(timeout(PATIENCE, tls.accept(stream)).await.map_err(|_| io::Error::from(ErrorKind::TimedOut))??),
            };
            Ok((stream, service))
        })
    }
}
