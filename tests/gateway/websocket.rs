//! WebSockets: admitted like any other request, and ended like any other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use crate::support::{ROUTES, World};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Which header fields the server saw in the handshake.
fn said(request: &Request) -> String {
    let value = |name: &str| request.headers().get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
    ["x-sigmamd-practice-id", "authorization", "sec-websocket-protocol", "x-forwarded-proto"].map(value).join(" ")
}

/// A server that says at once, with its handshake, what it saw, then sends back what it gets; under `/chat/no` it refuses.
async fn server() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let stream = listener.accept().await.unwrap().0;
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut heard = String::new();
                #[expect(clippy::result_large_err, reason = "the library's type")]
                let check = |request: &Request, mut response: Response| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    heard = said(request);
                    if request.uri().path() == "/chat/no" {
                        let refusal: ErrorResponse = http::Response::builder().status(409).body(Some("not now".to_owned())).unwrap();
                        return Err(refusal);
                    }
                    if let Some(protocol) = request.headers().get("sec-websocket-protocol") {
                        response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
                    }
                    Ok(response)
                };
                let Ok(mut socket) = tokio_tungstenite::accept_hdr_async(stream, check).await else { return };
                let _ = socket.send(Message::text(heard)).await;
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, seen)
}

async fn world(settings: &str) -> (World, Arc<AtomicUsize>) {
    let (address, seen) = server().await;
    let route =
        |prefix: &str, more: &str| format!("[[routes]]\nprefix = \"{prefix}\"\nscopes = [\"billing\"]\nupstream = \"chat\"\n{more}");
    let routes = format!(
        "{ROUTES}[upstreams.chat]\nservers = [\"http://{address}\"]\n{}{}",
        route("/chat", "websocket = true\n"),
        route("/plain", "")
    );
    (World::with(settings, &routes).await, seen)
}

async fn connect(world: &World, path: &str, app: Option<&str>) -> Result<Socket, Error> {
    let mut request = format!("ws://{}{path}", world.address()).into_client_request().unwrap();
    if let Some(app) = app {
        request.headers_mut().insert("authorization", world.authorization(app).parse().unwrap());
    }
    request.headers_mut().insert("sec-websocket-protocol", "chat.v1".parse().unwrap());
    let (socket, answer) = tokio_tungstenite::connect_async(request).await?;
    assert!(answer.headers().contains_key("x-request-id"));
    assert_eq!(answer.headers()["sec-websocket-protocol"], "chat.v1");
    Ok(socket)
}

/// The status with which a handshake was refused.
fn refused(connected: Result<Socket, Error>) -> u16 {
    match connected {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

async fn text(socket: &mut Socket) -> String {
    socket.next().await.unwrap().unwrap().into_text().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_go_both_ways_under_the_callers_identity() {
    let (world, _) = world("").await;
    let mut socket = connect(&world, "/chat", Some("billing")).await.unwrap();
    assert_eq!(text(&mut socket).await, "practice-1 - chat.v1 http");
    for n in 0..100 {
        let long = "x".repeat(n * 700);
        socket.send(Message::text(long.clone())).await.unwrap();
        assert_eq!(text(&mut socket).await, long);
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        assert!(message.is_close(), "{message:?}");
    }
    while world.metric("sigmagate_requests_total{method=\"safe\",outcome=\"permit\",route=\"/chat\"}").await < 1.0 {}
    while world.metric("sigmagate_upstream_requests_in_flight{upstream=\"chat\"}").await > 0.0 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn no_handshake_is_lost_whoever_speaks_first() {
    let (world, seen) = world("[limits.failed_authentications]\nper_minute = 1000000\nburst = 1000000\n").await;
    let routes = std::fs::read_to_string(world.path("routes.toml")).unwrap();
    std::fs::write(world.path("routes.toml"), format!("{routes}[tiers.standard]\nper_second = 100000\nburst = 100000\n")).unwrap();
    while world.metric("sigmagate_config_generation").await < 2.0 {}
    for _ in 0..400 {
        let mut socket = connect(&world, "/chat", Some("billing")).await.unwrap();
        socket.send(Message::text("hello")).await.unwrap();
        assert_eq!((text(&mut socket).await.len(), text(&mut socket).await.as_str()), (25, "hello"));
    }
    assert_eq!(seen.load(Ordering::SeqCst), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_meets_every_check_before_the_upstream_hears_of_it() {
    let (world, seen) = world("").await;
    assert_eq!(refused(connect(&world, "/chat", None).await), 401);
    assert_eq!(refused(connect(&world, "/chat", Some("clinical")).await), 403);
    assert_eq!(refused(connect(&world, "/chat", Some("revoked")).await), 401);
    assert_eq!(refused(connect(&world, "/none", Some("billing")).await), 404);
    let authorization = world.authorization("billing");
    for (line, fields) in [
        ("POST", "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        ("GET", "upgrade: websocket\r\nsec-websocket-version: 8\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        ("GET", "upgrade: websocket\r\nsec-websocket-version: 13\r\n"),
        ("GET", "upgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"),
        ("GET", "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\ncontent-length: 4\r\n"),
    ] {
        let request =
            format!("{line} /chat HTTP/1.1\r\nhost: gate\r\nauthorization: {authorization}\r\nconnection: upgrade\r\n{fields}\r\nrest");
        let answer = world.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{fields}: {answer}");
    }
    assert_eq!(seen.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_none_is_allowed_the_upgrade_is_not_handed_on() {
    let (world, _) = world("").await;
    // To the upstream it is a plain GET, and this one wants WebSockets only.
    let status = refused(connect(&world, "/plain", Some("billing")).await);
    assert!(status >= 400, "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_upstream_answers_instead_is_handed_on_and_nothing_behind_it() {
    let (world, seen) = world("").await;
    assert_eq!(refused(connect(&world, "/chat/no", Some("billing")).await), 409);
    let authorization = world.authorization("billing");
    let before = seen.load(Ordering::SeqCst);
    // Behind the handshake, a request that nobody has checked.
    let request = format!(
        "GET /chat/no HTTP/1.1\r\nhost: gate\r\nauthorization: {authorization}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\nGET /patients HTTP/1.1\r\nhost: gate\r\n\r\n"
    );
    let answer = world.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 409 ") && answer.contains("not now") && answer.matches("HTTP/1.1 ").count() == 1, "{answer}");
    assert_eq!(seen.load(Ordering::SeqCst), before + 1);
    assert!(world.upstream.untouched());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_socket_is_cut_when_its_client_is_revoked() {
    let (world, _) = world("").await;
    let mut revoked = connect(&world, "/chat", Some("billing")).await.unwrap();
    let mut other = connect(&world, "/chat", Some("all")).await.unwrap();
    text(&mut revoked).await;
    text(&mut other).await;
    world.lifecycle.revoke(world.apps["billing"].id, &world.by).await.unwrap();
    assert!(!matches!(revoked.next().await, Some(Ok(_))), "no farewell: it is just over");
    other.send(Message::text("still here")).await.unwrap();
    assert_eq!(text(&mut other).await, "still here");
    while world.metric("sigmagate_requests_total{method=\"safe\",outcome=\"revoked\",route=\"/chat\"}").await < 1.0 {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_on_which_nobody_says_anything_is_closed() {
    let (world, _) = world("[limits]\nidle_timeout_ms = 300\n").await;
    let mut socket = connect(&world, "/chat", Some("billing")).await.unwrap();
    text(&mut socket).await;
    assert!(!matches!(socket.next().await, Some(Ok(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_switches_to_something_else_is_not_believed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let mut stream = listener.accept().await.unwrap().0;
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n").await;
            });
        }
    });
    let route = "[[routes]]\nprefix = \"/chat\"\nscopes = [\"billing\"]\nupstream = \"chat\"\nwebsocket = true\n";
    let world = World::with("", &format!("{ROUTES}[upstreams.chat]\nservers = [\"http://{address}\"]\n{route}")).await;
    assert_eq!(refused(connect(&world, "/chat", Some("billing")).await), 502);
}
