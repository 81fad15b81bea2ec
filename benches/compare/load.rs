//! The load: the same requests over and over on kept connections, each answer checked and timed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;

pub const CONNECTIONS: usize = 32;
/// Of HTTP/2, connections and the streams at once on each: as many requests under way as with HTTP/1.1.
const WIDE: (usize, usize) = (8, 4);

/// What is sent, and what is expected of it.
pub struct Work {
    pub path: &'static str,
    /// One after the other, so that no caller is known better than the others.
    pub credentials: Arc<Vec<String>>,
    pub status: u16,
    /// Over TLS and HTTP/2, trusting this.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

/// How long each answer took.
pub struct Measured {
    pub nanos: Vec<u64>,
    pub elapsed: Duration,
}

/// Puts the load on `address` for so long.
pub fn run(address: SocketAddr, work: &Work, during: Duration) -> Measured {
    let (stop, turn) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let begun = Instant::now();
    let nanos = runtime.block_on(async {
        let mut tasks = Vec::new();
        if let Some(tls) = &work.tls {
            for _ in 0..WIDE.0 {
                let client = secure(address, Arc::clone(tls)).await;
                for _ in 0..WIDE.1 {
                    tasks.push(tokio::spawn(streams(client.clone(), Each::new(work, &stop, &turn))));
                }
            }
        } else {
            for _ in 0..CONNECTIONS {
                tasks.push(tokio::spawn(connection(address, Each::new(work, &stop, &turn))));
            }
        }
        tokio::time::sleep(during).await;
        stop.store(true, Ordering::Relaxed);
        let mut nanos = Vec::new();
        for task in tasks {
            nanos.extend(task.await.expect("no connection failed"));
        }
        nanos
    });
    Measured { nanos, elapsed: begun.elapsed() }
}

/// Asks until the answer is the one that is expected, on a connection for each question.
pub fn first(address: SocketAddr, work: &Work) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        while !answers(address, work).await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

async fn answers(address: SocketAddr, work: &Work) -> bool {
    let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { return false };
    let request = format!(
        "GET {} HTTP/1.1\r\nHost: api.example.test\r\nConnection: close\r\nAuthorization: {}\r\n\r\n",
        work.path, work.credentials[0]
    );
    let mut answer = Vec::new();
    let asked = stream.write_all(request.as_bytes()).await;
    asked.is_ok() && stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(format!("HTTP/1.1 {}", work.status).as_bytes())
}

struct Each {
    path: &'static str,
    credentials: Arc<Vec<String>>,
    status: u16,
    stop: Arc<AtomicBool>,
    turn: Arc<AtomicUsize>,
}

impl Each {
    fn new(work: &Work, stop: &Arc<AtomicBool>, turn: &Arc<AtomicUsize>) -> Self {
        Self {
            path: work.path,
            credentials: Arc::clone(&work.credentials),
            status: work.status,
            stop: Arc::clone(stop),
            turn: Arc::clone(turn),
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn credential(&self) -> &str {
        &self.credentials[self.turn.fetch_add(1, Ordering::Relaxed) % self.credentials.len()]
    }
}

async fn connection(address: SocketAddr, each: Each) -> Vec<u64> {
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let (mut buffer, mut nanos, mut request) = (vec![0; 16_384], Vec::new(), Vec::new());
    let status = format!("HTTP/1.1 {}", each.status);
    while each.goes_on() {
        request.clear();
        request.extend_from_slice(b"GET ");
        request.extend_from_slice(each.path.as_bytes());
        request.extend_from_slice(b" HTTP/1.1\r\nHost: api.example.test\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: ");
        request.extend_from_slice(each.credential().as_bytes());
        request.extend_from_slice(b"\r\n\r\n");
        let begun = Instant::now();
        stream.write_all(&request).await.expect("it reads");
        let mut held = 0;
        loop {
            let read = stream.read(&mut buffer[held..]).await.expect("it answers");
            assert!(read > 0, "closed: {}", String::from_utf8_lossy(&buffer[..held]));
            held += read;
            if let Some(end) = complete(&buffer[..held]) {
                assert_eq!(end, held, "one answer for one request");
                break;
            }
        }
        nanos.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
        assert!(buffer.starts_with(status.as_bytes()), "{}", String::from_utf8_lossy(&buffer[..held]));
    }
    nanos
}

/// Where the first answer ends, if it is all there.
fn complete(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?.to_ascii_lowercase();
    let length: usize = text.split("content-length:").nth(1)?.split("\r\n").next()?.trim().parse().ok()?;
    (bytes.len() >= head + length).then_some(head + length)
}

async fn secure(address: SocketAddr, tls: Arc<rustls::ClientConfig>) -> h2::client::SendRequest<bytes::Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a TCP socket");
    let name = ServerName::try_from("api.example.test").expect("a name");
    let stream = TlsConnector::from(tls).connect(name, stream).await.expect("a handshake");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    client
}

async fn streams(client: h2::client::SendRequest<bytes::Bytes>, each: Each) -> Vec<u64> {
    let mut nanos = Vec::new();
    while each.goes_on() {
        let request = http::Request::get(format!("https://api.example.test{}", each.path))
            .header("user-agent", "bench")
            .header("accept", "*/*")
            .header("authorization", each.credential())
            .body(())
            .expect("a request");
        let begun = Instant::now();
        let mut client = client.clone().ready().await.expect("room for a stream");
        let (answer, _) = client.send_request(request, true).expect("a stream");
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status().as_u16(), each.status);
        let mut body = answer.into_body();
        while let Some(piece) = body.data().await {
            let piece = piece.expect("the rest of it");
            let _ = body.flow_control().release_capacity(piece.len());
        }
        nanos.push(u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    nanos
}
