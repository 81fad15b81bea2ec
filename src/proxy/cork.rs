//! Holds back what a connection of HTTP/2 writes until all of it has been worked on: the answers of several streams go out in
//! one piece, and TLS seals them as one record. By itself each content is sent before the next header is looked at.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// One end of what is held back: who works on the connection.
pub struct Cork<S>(Arc<Mutex<Inner<S>>>);

/// The other end: the connection.
pub struct Corked<S>(Arc<Mutex<Inner<S>>>);

struct Inner<S> {
    stream: S,
    held: bool,
}

impl<S> fmt::Debug for Corked<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Corked")
    }
}

/// Both ends. The stream gathers what is written to it until it is flushed, or as much as it has room for.
pub fn cork<S>(stream: S) -> (Cork<S>, Corked<S>) {
    let inner = Arc::new(Mutex::new(Inner { stream, held: false }));
    (Cork(Arc::clone(&inner)), Corked(inner))
}

impl<S: AsyncWrite + Unpin> Cork<S> {
    /// Works on the connection, and then sends what it wrote. Ready when there is no more work, or nothing can be sent any more.
    pub fn poll<T>(&self, cx: &mut Context<'_>, work: Pin<&mut impl Future<Output = T>>) -> Poll<()> {
        self.0.lock().held = true;
        let worked = work.poll(cx);
        let mut inner = self.0.lock();
        inner.held = false;
        // Also when it was the last of the work: what was flushed before is believed to be sent.
        let flushed = Pin::new(&mut inner.stream).poll_flush(cx);
        if worked.is_ready() || matches!(flushed, Poll::Ready(Err(_))) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.lock().stream).poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        if inner.held { Poll::Ready(Ok(())) } else { Pin::new(&mut inner.stream).poll_flush(cx) }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, BufWriter};

    use super::*;

    /// What arrives, write by write; none once it is closed.
    #[derive(Clone, Default)]
    struct Writes {
        seen: Arc<Mutex<Vec<Vec<u8>>>>,
        closed: Arc<Mutex<bool>>,
    }

    impl AsyncWrite for Writes {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            if *self.closed.lock() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            self.seen.lock().push(data.to_vec());
            Poll::Ready(Ok(data.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes and flushes each word, and would go on.
    async fn tell(corked: &mut Corked<BufWriter<Writes>>, words: &[&str]) {
        for word in words {
            corked.write_all(word.as_bytes()).await.unwrap();
            corked.flush().await.unwrap();
        }
        std::future::pending::<()>().await;
    }

    async fn once(cork: &Cork<BufWriter<Writes>>, mut work: Pin<&mut impl Future<Output = ()>>) -> Poll<()> {
        std::future::poll_fn(|cx| Poll::Ready(cork.poll(cx, work.as_mut()))).await
    }

    #[tokio::test]
    async fn what_one_turn_of_work_writes_goes_out_in_one_piece_at_its_end() {
        let writes = Writes::default();
        let (cork, mut corked) = cork(BufWriter::with_capacity(16, writes.clone()));
        assert!(once(&cork, std::pin::pin!(tell(&mut corked, &["one ", "two ", "three"]))).await.is_pending());
        assert_eq!(*writes.seen.lock(), [b"one two three"]);

        // More than there is room for does not wait.
        assert!(once(&cork, std::pin::pin!(tell(&mut corked, &["0123456789", "abcdef", "more"]))).await.is_pending());
        assert_eq!(writes.seen.lock()[1..], [&b"0123456789abcdef"[..], b"more"]);

        // Nor does what is written at another time.
        corked.write_all(b"bye").await.unwrap();
        corked.flush().await.unwrap();
        assert_eq!(writes.seen.lock()[3..], [b"bye"]);
    }

    #[tokio::test]
    async fn the_last_that_is_written_goes_out_too() {
        let writes = Writes::default();
        let (cork, mut corked) = cork(BufWriter::new(writes.clone()));
        let work = async {
            corked.write_all(b"bye").await.unwrap();
            corked.flush().await.unwrap();
        };
        assert!(once(&cork, std::pin::pin!(work)).await.is_ready());
        assert_eq!(*writes.seen.lock(), [b"bye"]);
    }

    #[tokio::test]
    async fn a_connection_that_takes_nothing_more_is_over() {
        let writes = Writes::default();
        let (cork, mut corked) = cork(BufWriter::new(writes.clone()));
        *writes.closed.lock() = true;
        assert!(once(&cork, std::pin::pin!(tell(&mut corked, &["lost"]))).await.is_ready());
    }
}
