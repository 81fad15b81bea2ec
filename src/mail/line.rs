//! A connection whose plain text is read line by line.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How much is read at once.
const CHUNK: usize = 4096;

/// Gives out one line at a time. Whoever reads ahead of the answer to STARTTLS would take what somebody on the way has put
/// behind it, in plain text, for answers that came encrypted (as in CVE-2011-0411, the other way round). So it stays
/// here, and becomes the first bytes of the handshake, which fails.
#[derive(Debug)]
pub(super) struct Lines {
    stream: TcpStream,
    held: BytesMut,
}

impl Lines {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, held: BytesMut::new() }
    }
}

impl AsyncTokioStream for Lines {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

impl AsyncRead for Lines {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            let mut chunk = [0; CHUNK];
            let mut read = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut read))?;
            self.held.extend_from_slice(read.filled());
        }
        let line = self.held.iter().position(|byte| *byte == b'\n').map_or(self.held.len(), |at| at + 1);
        let length = line.min(buf.remaining());
        buf.put_slice(&self.held[..length]);
        self.held.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Lines {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
