//! Frames that no well-meaning client of HTTP/2 sends.

use std::net::SocketAddr;

use base64::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Process;
use crate::support::{ROUTES, World};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const REFUSED_STREAM: u32 = 7;
const MIB: f64 = 1024.0 * 1024.0;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Fields as literals that no table keeps (RFC 7541, section 6.2.2), each string shorter than 127 bytes.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "{text}");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn preface() -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &[]));
    bytes
}

const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "http"), (":path", "/docs"), (":authority", "gate.test")];

/// What became of a stream.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// The answer's header block begins with this byte: 0x88 is 200 (RFC 7541, appendix A).
    Answered(u8),
    Reset(u32),
    Closed,
}

async fn next_frame(from: &mut TcpStream) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    from.read_exact(&mut head).await.ok()?;
    let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    from.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

async fn outcome(of: u32, from: &mut TcpStream) -> Outcome {
    loop {
        match next_frame(from).await {
            Some((HEADERS, _, stream, payload)) if stream == of => return Outcome::Answered(payload[0]),
            Some((RST_STREAM, _, stream, payload)) if stream == of => {
                return Outcome::Reset(u32::from_be_bytes(payload[..4].try_into().unwrap()));
            }
            Some((GOAWAY, ..)) | None => return Outcome::Closed,
            Some(_) => (),
        }
    }
}

async fn sent(to: SocketAddr, bytes: &[u8]) -> Outcome {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(&preface()).await.unwrap();
    // Closing early is one of the outcomes.
    let _ = stream.write_all(bytes).await;
    outcome(1, &mut stream).await
}

/// `GET` with one field in place of another, or more.
fn changed(name: &str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    GET.into_iter().map(|(n, v)| (n, if n == name { value } else { v })).collect()
}

fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    GET.iter().chain(more).copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_never_reaches_the_upstream() {
    let world = World::new().await;
    assert_eq!(sent(world.address(), &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&GET))).await, Outcome::Answered(0x88));
    assert_eq!(world.upstream.take().len(), 1);
    let rows = [
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", "keep-alive")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")])),
        ("te", with(&[("te", "gzip")])),
        ("CR LF in a name", with(&[("x-a: b\r\nx-b", "c")])),
        ("NUL in a name", with(&[("x-\0a", "c")])),
        ("a blank in a name", with(&[("x a", "c")])),
        ("a colon in a name", with(&[("x:a", "c")])),
        ("upper case in a name", with(&[("X-A", "c")])),
        ("an empty name", with(&[("", "c")])),
        ("CR LF in a value", with(&[("x-a", "b\r\nx-b: c")])),
        ("LF in a value", with(&[("x-a", "b\nc")])),
        ("NUL in a value", with(&[("x-a", "b\0c")])),
        ("CR LF in the path", changed(":path", "/docs\r\nx: y")),
        ("CR LF in the authority", changed(":authority", "gate.test\r\nx: y")),
        ("CR LF in the method", changed(":method", "GET / HTTP/1.1\r\nx: y")),
        ("no slash", changed(":path", "docs")),
        ("a blank in the path", changed(":path", "/docs x")),
        ("an absolute path", changed(":path", "http://gate.test/docs")),
        ("an empty path", changed(":path", "")),
        ("dot segments", changed(":path", "/docs/%2e%2e/billing")),
        ("two paths", with(&[(":path", "/billing")])),
        ("two methods", with(&[(":method", "POST")])),
        ("two authorities", with(&[(":authority", "gate.test")])),
        ("an unknown pseudo-field", with(&[(":nonsense", "x")])),
        ("a pseudo-field after a field", [("x-a", "b")].into_iter().chain(GET).collect()),
        ("the status of an answer", with(&[(":status", "200")])),
        ("another Host", with(&[("host", "other.test")])),
        ("two Hosts", with(&[("host", "gate.test"), ("host", "gate.test")])),
        ("extended CONNECT", changed(":method", "CONNECT").into_iter().chain([(":protocol", "websocket")]).collect()),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "gate.test:443")]),
        ("TRACE", changed(":method", "TRACE")),
        ("another scheme", changed(":scheme", "ftp")),
        ("a length, and no content", with(&[("content-length", "5")])),
    ];
    for (what, fields) in rows {
        let outcome = sent(world.address(), &frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields))).await;
        assert!(!matches!(outcome, Outcome::Answered(0x88..=0x8b)), "{what}: {outcome:?}");
        assert!(world.upstream.untouched(), "{what}: {:?}", world.upstream.take());
    }
    // The parser of frames leaves a fragment out before anybody sees the path: what is decided on and what is sent are without it.
    let fragment = block(&changed(":path", "/docs#/billing"));
    sent(world.address(), &frame(HEADERS, END_HEADERS | END_STREAM, 1, &fragment)).await;
    assert_eq!(world.upstream.take().iter().map(|seen| seen.target.as_str()).collect::<Vec<_>>(), ["/docs"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_belies_its_length_is_never_a_whole_request() {
    let world = World::new().await;
    let mut fields = changed(":method", "POST");
    fields.push(("content-length", "5"));
    for data in ["hello, and more", "hell"] {
        let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(&fields));
        bytes.extend(frame(DATA, END_STREAM, 1, data.as_bytes()));
        let outcome = sent(world.address(), &bytes).await;
        assert!(!matches!(outcome, Outcome::Answered(0x88)), "{data}: {outcome:?}");
        for seen in world.upstream.take() {
            assert!(seen.body.len() < 5, "{data}: {seen:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trailer_field_never_becomes_a_field_of_the_header() {
    let world = World::new().await;
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(&changed(":method", "POST")));
    bytes.extend(frame(DATA, 0, 1, b"hello"));
    let trailers = [("authorization", "Basic eDp5"), ("x-sigmamd-practice-id", "other"), ("x-forwarded-for", "10.0.0.1")];
    bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&trailers)));
    assert_eq!(sent(world.address(), &bytes).await, Outcome::Answered(0x88));
    let seen = world.upstream.take().pop().unwrap();
    assert!(seen.all("authorization").is_empty() && seen.all("x-sigmamd-practice-id").is_empty(), "{seen:?}");
    assert_eq!(seen.one("x-forwarded-for"), "127.0.0.1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_the_hundredth_is_refused() {
    let world = World::new().await;
    let slow = [(":method", "POST"), (":scheme", "http"), (":path", "/docs"), (":authority", "gate.test")];
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    stream.write_all(&preface()).await.unwrap();
    // Each waits for its content.
    for id in (1..=201).step_by(2) {
        stream.write_all(&frame(HEADERS, END_HEADERS, id, &block(&slow))).await.unwrap();
    }
    assert_eq!(outcome(201, &mut stream).await, Outcome::Reset(REFUSED_STREAM));
    // Its neighbours go on.
    stream.write_all(&frame(DATA, END_STREAM, 1, b"hello")).await.unwrap();
    assert_eq!(outcome(1, &mut stream).await, Outcome::Answered(0x88));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reset_is_carried_no_more_than_a_hundred_times_at_once() {
    // The upstream never answers.
    let world = World::with("", &ROUTES.replace("response_timeout_ms = 200", "response_timeout_ms = 60000")).await;
    let app = &world.apps["billing"];
    let credential = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", app.id, app.secret));
    let mut slow = changed(":path", "/slow");
    let authorization = format!("Basic {credential}");
    slow.push(("authorization", authorization.leak()));
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    stream.write_all(&preface()).await.unwrap();
    let mut ended = None;
    for id in (1..=301).step_by(2) {
        let begun = [frame(HEADERS, END_HEADERS | END_STREAM, id, &block(&slow)), frame(PING, 0, 0, &id.to_be_bytes().repeat(2))].concat();
        // It is not reset before the gateway has taken it up.
        let taken = async {
            stream.write_all(&begun).await.ok()?;
            while next_frame(&mut stream).await?.0 != PING {}
            stream.write_all(&frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())).await.ok()
        };
        if taken.await.is_none() {
            ended = Some(id);
            break;
        }
    }
    assert!(ended.is_some(), "{} requests", world.upstream.take().len());
    assert!(world.upstream.take().len() <= 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_thirty_second_malformed_request_ends_its_connection() {
    let world = World::new().await;
    let mut stream = TcpStream::connect(world.address()).await.unwrap();
    stream.write_all(&preface()).await.unwrap();
    let malformed = block(&with(&[("host", "other.test")]));
    for id in (1..=61).step_by(2) {
        stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, id, &malformed)).await.unwrap();
        assert!(matches!(outcome(id, &mut stream).await, Outcome::Answered(0x8c)), "{id}");
    }
    // What is in order is answered until then.
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 63, &block(&GET))).await.unwrap();
    assert_eq!(outcome(63, &mut stream).await, Outcome::Answered(0x88));
    stream.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 65, &malformed)).await.unwrap();
    while next_frame(&mut stream).await.is_some() {}
    assert_eq!(world.upstream.take().len(), 1);
}

const FLOOD: u32 = 10_000;

/// A connection's worth of frames, by what they are.
fn floods() -> Vec<(&'static str, Vec<u8>)> {
    let get = block(&GET);
    let post = block(&changed(":method", "POST"));
    let ids = || (0..FLOOD).map(|n| 2 * n + 1);
    let repeated = |first: Vec<u8>, again: Vec<u8>| [first, again.repeat(FLOOD as usize)].concat();
    vec![
        (
            "rapid reset",
            ids()
                .flat_map(|id| [frame(HEADERS, END_HEADERS | END_STREAM, id, &get), frame(RST_STREAM, 0, id, &8_u32.to_be_bytes())])
                .collect::<Vec<_>>()
                .concat(),
        ),
        (
            "resets that the gateway is made to send",
            ids()
                .flat_map(|id| [frame(HEADERS, END_HEADERS | END_STREAM, id, &get), frame(WINDOW_UPDATE, 0, id, &0_u32.to_be_bytes())])
                .collect::<Vec<_>>()
                .concat(),
        ),
        ("streams", ids().map(|id| frame(HEADERS, END_HEADERS, id, &post)).collect::<Vec<_>>().concat()),
        ("CONTINUATION", repeated(frame(HEADERS, END_STREAM, 1, &get), frame(CONTINUATION, 0, 1, &block(&[("x-a", "0123456789"); 50])))),
        ("empty CONTINUATION", repeated(frame(HEADERS, END_STREAM, 1, &get), frame(CONTINUATION, 0, 1, &[]))),
        ("SETTINGS", repeated(vec![], frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]))),
        ("PING", repeated(vec![], frame(PING, 0, 0, &[7; 8]))),
        ("empty DATA", repeated(frame(HEADERS, END_HEADERS, 1, &post), frame(DATA, 0, 1, &[]))),
        ("DATA of padding", repeated(frame(HEADERS, END_HEADERS, 1, &post), frame(DATA, 8, 1, &[1, 0]))),
        ("PRIORITY", repeated(vec![], frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 1]))),
        ("WINDOW_UPDATE", repeated(frame(HEADERS, END_HEADERS, 1, &post), frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()))),
        ("frames of no known type", repeated(vec![], frame(0x77, 0, 0, &[0; 100]))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_frames_is_nobody_elses_concern() {
    let world = World::without_gateway("", ROUTES).await;
    let gateway = Process::serve(&world, &[]).await;
    let bystander = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let app = &world.apps["billing"];
    let served = async || {
        let request = bystander.get(gateway.url("/billing")).basic_auth(app.id, Some(&app.secret));
        assert_eq!(request.send().await.unwrap().status(), 200);
    };
    let resident = async || {
        let metrics = gateway.metrics(&world).await;
        let line = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
        line.parse::<f64>().unwrap()
    };
    served().await;
    let before = resident().await;
    for (what, bytes) in floods() {
        // Once from a client that reads what it is told, and once from one that does not.
        for reads in [true, false] {
            let (mut from, mut to) = TcpStream::connect(gateway.addresses[0]).await.unwrap().into_split();
            let bytes = [preface(), bytes.clone()].concat();
            let reader = tokio::spawn(async move {
                if reads {
                    // However it ends.
                    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
                } else {
                    std::future::pending::<()>().await;
                }
                drop(from);
            });
            let flood = tokio::spawn(async move {
                let _ = to.write_all(&bytes).await;
                to
            });
            for _ in 0..10 {
                served().await;
            }
            if reads {
                // All of it was taken, or the gateway has closed the connection.
                flood.await.unwrap();
            } else {
                flood.abort();
            }
            reader.abort();
            served().await;
            let grown = (resident().await - before) / MIB;
            assert!(grown < 64.0, "{what}: {grown} MiB more");
        }
    }
}
