//! A connection with nothing between it and the socket but TLS, if any: pingora's own keeps two buffers and two clocks for each.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What bytes go through, with what pingora wants to know of it.
#[derive(Debug)]
pub struct Bare<S> {
    stream: S,
    socket: Option<Arc<SocketDigest>>,
    id: UniqueIDType,
    http2: bool,
}

impl<S> Bare<S> {
    /// What HTTP/2 goes through, over this socket.
    pub fn http2(stream: S, socket: Option<Arc<SocketDigest>>, id: UniqueIDType) -> Self {
        Self { stream, socket, id, http2: true }
    }
}

impl Bare<TcpStream> {
    /// A connection with this peer.
    pub fn new(stream: TcpStream, peer: SocketAddr) -> Self {
        // Without it answers wait for acknowledgements; a socket that refuses is broken and will show it.
        let _ = stream.set_nodelay(true);
        let (id, socket) = (stream.as_raw_fd(), SocketDigest::from_raw_fd(stream.as_raw_fd()));
        let _ = socket.peer_addr.set(Some(peer.into()));
        Self { stream, socket: Some(Arc::new(socket)), id, http2: false }
    }

    /// A new connection to a server.
    ///
    /// # Errors
    /// None can be made. It may take as long as the system allows.
    pub async fn connect(server: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(TcpStream::connect(server).await?, server))
    }

    /// The same with TLS, once the client has shaken hands.
    ///
    /// # Errors
    /// It does not, or what it wants is not spoken here. It may take as long as the client likes.
    pub async fn secure(self, tls: TlsAcceptor) -> io::Result<Bare<TlsStream<TcpStream>>> {
        let Self { stream, socket, id, .. } = self;
        let stream = tls.accept(stream).await?;
        // RFC 9113, section 3.2.
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Bare { stream, socket, id, http2 })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Bare<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Bare<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[async_trait]
impl<S: AsyncWrite + Unpin + Send> Shutdown for Bare<S> {
    async fn shutdown(&mut self) {
        // One that is broken has ended already.
        let _ = AsyncWriteExt::shutdown(&mut self.stream).await;
    }
}

impl<S> UniqueID for Bare<S> {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl<S> Ssl for Bare<S> {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.http2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl<S> GetTimingDigest for Bare<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S> GetProxyDigest for Bare<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl<S> GetSocketDigest for Bare<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket.clone()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Peek for Bare<S> {}
