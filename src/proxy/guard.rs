//! Stands between a connection and pingora: hands over one checked message at a time.
//!
//! What belongs to the next request stays here until the answer to this one is complete, so pipelined requests are
//! served in order, and nothing behind a refused request is ever taken for one without being checked itself.

use std::fmt;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::chunks::Decoder;
use super::wire::{self, Framing, Limits, Marks};
use crate::access::Denial;

/// What is read ahead of what was asked for, at most.
const AHEAD: usize = 16 * 1024;
/// What is gathered before it is written: a header and a small body go out in one packet, and some answers of HTTP/2 in one
/// record of TLS (RFC 8446, section 5.1: no more fits).
const GATHER: usize = 16 * 1024;
/// What a connection keeps its room for.
const KEEP: usize = 4 * 1024;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is to be handed over next.
#[derive(Debug)]
enum Content {
    /// HTTP/2, or a tunnel: everything, as it is.
    Everything,
    /// So much of the content of an HTTP/1.1 request; 0 when it is complete.
    Length(u64),
    /// The rest of a chunked content.
    Chunked(Decoder),
}

/// What comes out of reading a header.
#[derive(Debug)]
pub enum Arrival {
    /// A checked HTTP/1.1 header.
    Header(BytesMut),
    /// The client speaks HTTP/2.
    Http2,
    /// The client has left, or broke off.
    Closed,
    /// What arrived is refused.
    Refused(Denial),
}

/// A connection that was taken back from pingora, which ended it.
#[derive(Debug)]
pub struct Leftover {
    guard: Guard,
}

/// Where a [`Guard`] leaves its connection when pingora drops it.
pub type Slot = Arc<Mutex<Option<Leftover>>>;

/// A client's connection.
pub struct Guard {
    /// `None` only after it was moved into the slot.
    io: Option<Stream>,
    ahead: BytesMut,
    out: BytesMut,
    content: Content,
    /// Where the parts of the last header are.
    marks: Marks,
    shut: bool,
    eof: bool,
    slot: Option<Slot>,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("content", &self.content).field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

impl Guard {
    /// A guard of a new connection.
    pub fn new(io: Stream, slot: Option<Slot>) -> Self {
        Self {
            io: Some(io),
            ahead: BytesMut::new(),
            out: BytesMut::new(),
            content: Content::Length(0),
            marks: Marks::default(),
            shut: false,
            eof: false,
            slot,
        }
    }

    /// Whether bytes of the next request are here already.
    pub fn has_more(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// Waits for the first byte of a request; false if there will be none. May be cancelled.
    pub async fn wait(&mut self) -> bool {
        self.has_more() || matches!(std::future::poll_fn(|cx| self.poll_fill(cx)).await, Ok(n) if n > 0)
    }

    /// Reads one request header, and checks it. May be cancelled, and then starts from the beginning.
    pub async fn header(&mut self, limits: &Limits, http2: bool) -> Arrival {
        if self.ahead.starts_with(b"\r\n") {
            // RFC 9112 §2.2: one empty line before a request is to be ignored.
            self.ahead.advance(2);
        }
        let mut seen = 0;
        loop {
            let preface = http2 && !self.ahead.is_empty() && PREFACE.starts_with(&self.ahead[..self.ahead.len().min(PREFACE.len())]);
            if preface && self.ahead.len() >= PREFACE.len() {
                self.content = Content::Everything;
                // From here on pingora owns the connection to its end.
                self.slot = None;
                return Arrival::Http2;
            }
            if !preface && !matches!(&self.ahead[..], b"\r") {
                match wire::find_end(&self.ahead, &mut seen, limits) {
                    Ok(Some(end)) => return self.take_header(end, limits),
                    Ok(None) => {}
                    Err(denial) => return Arrival::Refused(denial),
                }
            }
            if !matches!(std::future::poll_fn(|cx| self.poll_fill(cx)).await, Ok(n) if n > 0) {
                return Arrival::Closed;
            }
            if seen == 0 && self.ahead.starts_with(b"\r\n") {
                self.ahead.advance(2);
            }
        }
    }

    fn take_header(&mut self, end: usize, limits: &Limits) -> Arrival {
        match wire::check(&self.ahead[..end], limits, &mut self.marks) {
            Ok(framing) => {
                self.content = match framing {
                    Framing::Length(length) => Content::Length(length),
                    Framing::Chunked => Content::Chunked(Decoder::default()),
                };
                // Mostly the header is all there is: then it is moved, without the shared storage of a split.
                let header = if end == self.ahead.len() { std::mem::take(&mut self.ahead) } else { self.ahead.split_to(end) };
                Arrival::Header(header)
            }
            Err(denial) => Arrival::Refused(denial),
        }
    }

    /// Where the parts of the last header are.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// What has arrived and was not handed over.
    pub fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Declares the connection HTTP/2 by ALPN.
    pub fn into_http2(mut self) -> Self {
        self.content = Content::Everything;
        self.slot = None;
        self
    }

    /// From here on everything is handed over as it is: the connection has switched to another protocol.
    pub fn into_tunnel(mut self) -> Self {
        self.content = Content::Everything;
        self.slot = None;
        self
    }

    /// A connection of which something was read, which is to be read again.
    pub fn everything(io: Stream, ahead: BytesMut) -> Self {
        let mut guard = Self::new(io, None).into_tunnel();
        guard.ahead = ahead;
        guard
    }

    /// Whether ALPN chose HTTP/2.
    pub fn alpn_http2(&self) -> bool {
        matches!(self.io.as_ref().and_then(|io| io.selected_alpn_proto()), Some(ALPN::H2))
    }

    /// Whether the last request's content has been handed over.
    pub fn content_is_done(&self) -> bool {
        match &self.content {
            Content::Everything => false,
            Content::Length(left) => *left == 0,
            Content::Chunked(decoder) => decoder.is_done(),
        }
    }

    /// Answers a header that was refused, and ends the connection.
    pub async fn refuse(self, answer: bytes::Bytes) {
        self.linger(Some(answer)).await;
    }

    /// Ends the connection so that the client can read what was sent: a reset, which unread bytes would cause, could
    /// overtake it. Reads on for a while, into nothing.
    pub async fn linger(mut self, last_word: Option<bytes::Bytes>) {
        const ENOUGH: usize = 16 * 1024 * 1024;
        if let Some(word) = last_word
            && self.write_all(&word).await.is_err()
        {
            return;
        }
        if !self.shut {
            Shutdown::shutdown(&mut self).await;
        }
        let Some(mut io) = self.io.take() else { return };
        self.ahead.clear();
        let mut read = 0;
        while let Ok(n) = io.read_buf(&mut self.ahead).await {
            read += n;
            if n == 0 || read > ENOUGH {
                break;
            }
            self.ahead.clear();
        }
    }

    /// Writes to the client, and sees it off.
    pub async fn tell(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(io) = self.io.as_mut() else { return Err(io::ErrorKind::NotConnected.into()) };
        io.write_all(bytes).await?;
        io.flush().await
    }

    /// Ends a connection whose last answer was given, or is this word.
    pub async fn end(mut self, last_word: Option<bytes::Bytes>) {
        if last_word.is_some() || self.has_more() {
            self.linger(last_word).await;
        } else {
            Shutdown::shutdown(&mut self).await;
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(io) = self.io.as_mut() else { return Poll::Ready(Ok(0)) };
        if self.ahead.capacity() - self.ahead.len() < 1024 {
            self.ahead.reserve(4096);
        }
        let read = ready!(pin!(io.read_buf(&mut self.ahead)).poll(cx));
        self.eof |= matches!(read, Ok(0));
        Poll::Ready(read)
    }

    fn poll_gathered(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(io) = self.io.as_mut() else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut *io).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.out.advance(n);
            if self.out.is_empty() && n > KEEP {
                self.out = BytesMut::new();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl Leftover {
    /// The guard as it was when pingora dropped it.
    pub fn into_guard(self) -> Guard {
        self.guard
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Some(slot) = self.slot.take() else { return };
        let Some(io) = self.io.take() else { return };
        let guard = Self {
            io: Some(io),
            ahead: std::mem::take(&mut self.ahead),
            out: std::mem::take(&mut self.out),
            content: std::mem::replace(&mut self.content, Content::Everything),
            marks: std::mem::take(&mut self.marks),
            slot: None,
            ..*self
        };
        *slot.lock() = Some(Leftover { guard });
    }
}

impl AsyncRead for Guard {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            let room = buf.remaining();
            match &mut this.content {
                Content::Everything => {
                    if this.ahead.is_empty() {
                        let Some(io) = this.io.as_mut() else { return Poll::Ready(Ok(())) };
                        return Pin::new(io).poll_read(cx, buf);
                    }
                    let n = room.min(this.ahead.len());
                    buf.put_slice(&this.ahead.split_to(n));
                    return Poll::Ready(Ok(()));
                }
                Content::Length(left) if *left > 0 => {
                    let n = room.min(this.ahead.len()).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if n > 0 {
                        buf.put_slice(&this.ahead[..n]);
                        this.ahead.advance(n);
                        *left -= n as u64;
                        return Poll::Ready(Ok(()));
                    }
                }
                Content::Chunked(decoder) if !decoder.is_done() => {
                    if !this.ahead.is_empty() {
                        let before = buf.filled().len();
                        let taken =
                            decoder.decode(&this.ahead, buf, room).map_err(|wrong| io::Error::new(io::ErrorKind::InvalidData, wrong))?;
                        this.ahead.advance(taken);
                        if buf.filled().len() > before || taken == 0 {
                            return Poll::Ready(Ok(()));
                        }
                        continue;
                    }
                }
                // The content is complete. pingora reads on to learn whether the client is still there: it shall
                // learn that, and no more.
                Content::Length(_) | Content::Chunked(_) => {
                    if this.eof && this.ahead.is_empty() {
                        return Poll::Ready(Ok(()));
                    }
                    if this.eof || this.ahead.len() >= AHEAD {
                        return Poll::Pending;
                    }
                }
            }
            if ready!(this.poll_fill(cx))? == 0 && (this.ahead.is_empty() || !this.content_is_done()) {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Guard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.out.len() + data.len() > GATHER {
            ready!(this.poll_gathered(cx))?;
        }
        if data.len() > GATHER {
            let Some(io) = this.io.as_mut() else { return Poll::Ready(Err(io::ErrorKind::NotConnected.into())) };
            return Pin::new(io).poll_write(cx, data);
        }
        this.out.extend_from_slice(data);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_gathered(cx))?;
        match this.io.as_mut() {
            Some(io) => Pin::new(io).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_gathered(cx))?;
        this.shut = true;
        match this.io.as_mut() {
            Some(io) => Pin::new(io).poll_shutdown(cx),
            None => Poll::Ready(Ok(())),
        }
    }
}

#[async_trait]
impl Shutdown for Guard {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::flush(self).await;
        self.shut = true;
        if let Some(io) = self.io.as_mut() {
            Shutdown::shutdown(io.as_mut()).await;
        }
    }
}

impl UniqueID for Guard {
    fn id(&self) -> UniqueIDType {
        self.io.as_ref().map_or(-1, |io| io.id())
    }
}

impl Ssl for Guard {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        // What the preface said counts as much as what ALPN said.
        Some(if matches!(self.content, Content::Everything) { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Guard {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Guard {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Guard {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.io.as_ref().and_then(|io| io.get_socket_digest())
    }
}

impl Peek for Guard {}
