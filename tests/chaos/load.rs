//! The upstream, and the clients that never stop asking.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use crate::history::Moment;

/// The one clock of a run.
#[derive(Clone, Copy)]
pub struct Clock(pub Instant);

impl Clock {
    pub fn now(&self) -> Moment {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap()
    }
}

/// Answers at once; on `/billing/stream` without end, each piece the moment at which it was sent.
pub async fn upstream(clock: Clock) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                loop {
                    while !bytes.ends_with(b"\r\n\r\n") {
                        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                            return;
                        }
                    }
                    let streams = bytes.starts_with(b"GET /billing/stream ");
                    bytes.clear();
                    if !streams {
                        if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.is_err() {
                            return;
                        }
                        continue;
                    }
                    if stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await.is_err() {
                        return;
                    }
                    loop {
                        let piece = format!("{:020}\n", clock.now());
                        if stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.is_err() {
                            return;
                        }
                        sleep(Duration::from_millis(5)).await;
                    }
                }
            });
        }
    });
    address
}

/// A client's connection to one gateway, made anew when that is elsewhere.
#[derive(Default)]
pub struct Connection {
    open: Option<(SocketAddr, TcpStream)>,
}

impl Connection {
    /// The status of the answer; 0 if there is none in time.
    pub async fn ask(&mut self, address: SocketAddr, authorization: &str) -> u16 {
        // Longer than a gateway may stand still in a run.
        let answered = timeout(Duration::from_secs(8), self.exchange(address, authorization)).await;
        if let Ok(Some(status)) = answered {
            return status;
        }
        self.open = None;
        0
    }

    async fn exchange(&mut self, address: SocketAddr, authorization: &str) -> Option<u16> {
        if self.open.as_ref().is_none_or(|(at, _)| *at != address) {
            self.open = Some((address, TcpStream::connect(address).await.ok()?));
        }
        let (_, stream) = self.open.as_mut()?;
        let request = format!("GET /billing/x HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        loop {
            let text = String::from_utf8_lossy(&answer);
            if let Some(end) = text.find("\r\n\r\n") {
                let length: usize = text.to_ascii_lowercase().split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
                if answer.len() >= end + 4 + length {
                    let closes = text.to_ascii_lowercase().contains("connection: close");
                    let status = text.get(9..12)?.parse().ok();
                    if closes {
                        self.open = None;
                    }
                    return status;
                }
            }
            if stream.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// Reads a stream until it ends, and tells when each piece that arrives was sent.
pub async fn follow(address: SocketAddr, authorization: Arc<str>, mut each: impl FnMut(Moment)) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let request = format!("GET /billing/stream HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return;
    }
    let mut bytes = Vec::new();
    while let Ok(Ok(1..)) = timeout(Duration::from_secs(8), stream.read_buf(&mut bytes)).await {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
            if line.starts_with("HTTP/1.1 ") && !line.starts_with("HTTP/1.1 200") {
                return;
            }
            if let (20, Ok(sent)) = (line.len(), line.parse()) {
                each(sent);
            }
            bytes.drain(..=end);
        }
    }
}
