//! A server with a manner of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// What a server does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// 200.
    Answers,
    /// 503.
    Fails,
    /// Closes the connection.
    Closes,
    /// Nothing.
    Waits,
    /// Sends a header that never ends.
    Dribbles,
}

pub struct Server {
    pub address: SocketAddr,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
    ill: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
}

impl Server {
    pub async fn start(manner: Manner) -> Self {
        Self::start_with(manner, None).await
    }

    pub async fn start_with(manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), manner, tls).await
    }

    /// At an address where another one was stopped.
    pub async fn start_at(address: SocketAddr, manner: Manner, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (stop, stopped) = watch::channel(false);
        let server = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            connections: Arc::default(),
            ill: Arc::default(),
            stop,
        };
        let (requests, connections, ill) = (Arc::clone(&server.requests), Arc::clone(&server.connections), Arc::clone(&server.ill));
        tokio::spawn(async move {
            let mut stopping = stopped.clone();
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap().0,
                    _ = stopping.wait_for(|stop| *stop) => return,
                };
                connections.fetch_add(1, Ordering::SeqCst);
                let (requests, ill, tls, mut stopping) = (Arc::clone(&requests), Arc::clone(&ill), tls.clone(), stopped.clone());
                tokio::spawn(async move {
                    let served = async {
                        match tls {
                            None => serve(accepted, manner, &requests, &ill).await,
                            Some(tls) => match tls.accept(accepted).await {
                                Ok(stream) => serve(stream, manner, &requests, &ill).await,
                                Err(_) => None,
                            },
                        }
                    };
                    tokio::select! {
                        _ = served => {}
                        _ = stopping.wait_for(|stop| *stop) => {}
                    }
                });
            }
        });
        server
    }

    /// Requests other than health checks.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// What it answers to health checks.
    pub fn be_ill(&self, ill: bool) {
        self.ill.store(ill, Ordering::SeqCst);
    }

    /// Closes the port and every connection.
    pub async fn stop(&self) {
        self.stop.send_replace(true);
        while tokio::net::TcpStream::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

/// One connection to its end; `None` when the client has left.
async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, manner: Manner, requests: &AtomicUsize, ill: &AtomicBool) -> Option<()> {
    let mut ahead = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = ahead.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut ahead).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8_lossy(&ahead[..end]).to_ascii_lowercase();
        let length = head.split_once("content-length: ").map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse().unwrap());
        while ahead.len() < end + length {
            if stream.read_buf(&mut ahead).await.ok()? == 0 {
                return None;
            }
        }
        ahead.drain(..end + length);
        if head.starts_with("get /healthz ") {
            assert!(
                head.contains("user-agent: sigmagate/") && (head.contains("host: 127.0.0.1:") || head.contains("host: localhost:")),
                "{head}"
            );
            let status = if ill.load(Ordering::SeqCst) { "500 Ill" } else { "204 Well" };
            stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes()).await.ok()?;
            continue;
        }
        requests.fetch_add(1, Ordering::SeqCst);
        match manner {
            Manner::Answers => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.ok()?,
            Manner::Fails => stream.write_all(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n").await.ok()?,
            Manner::Closes => return None,
            Manner::Waits => return std::future::pending().await,
            Manner::Dribbles => {
                stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.ok()?;
                loop {
                    stream.write_all(b"x").await.ok()?;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}
