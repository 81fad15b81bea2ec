//! Upstreams that speak HTTP/2, as gRPC services do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Request, Response};
use sigmagate::store::Actor;
use tokio::net::{TcpListener, TcpStream};

use super::world_of;
use crate::support::World;

/// A service that sends back what it gets, message by message, and then how it went, in trailers.
struct Echo {
    origin: String,
    requests: Arc<AtomicUsize>,
    connections: Arc<AtomicUsize>,
}

impl Echo {
    /// Which does not take the first `refused` calls.
    async fn start(refused: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (requests, connections) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let echo = Self { origin, requests: Arc::clone(&requests), connections: Arc::clone(&connections) };
        tokio::spawn(async move {
            loop {
                let stream = listener.accept().await.unwrap().0;
                connections.fetch_add(1, Ordering::SeqCst);
                let requests = Arc::clone(&requests);
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        if requests.fetch_add(1, Ordering::SeqCst) < refused {
                            respond.send_reset(Reason::REFUSED_STREAM);
                            continue;
                        }
                        let (head, body) = request.into_parts();
                        let te = head.headers.get("te").map_or("none", |te| te.to_str().unwrap()).to_owned();
                        let answer = Response::builder()
                            .header("content-type", "application/grpc")
                            .header("saw-te", te)
                            .header("saw-practice", &head.headers["x-sigmamd-practice-id"])
                            .header("saw-authority", head.uri.authority().unwrap().as_str())
                            .header("saw-authorization", head.headers.contains_key("authorization").to_string());
                        let send = respond.send_response(answer.body(()).unwrap(), false).unwrap();
                        tokio::spawn(echo_back(body, send));
                    }
                });
            }
        });
        echo
    }

    async fn world(&self) -> World {
        world_of(std::slice::from_ref(&self.origin), "protocol = \"http2\"").await
    }
}

async fn echo_back(mut body: RecvStream, mut send: SendStream<Bytes>) {
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
        if send.send_data(data, false).is_err() {
            return;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    trailers.insert("grpc-message", "well".parse().unwrap());
    // None of these may reach the caller from here.
    for name in ["content-length", "x-sigmamd-practice-id", "x-forwarded-for", "www-authenticate", "set-cookie"] {
        trailers.insert(name, "1".parse().unwrap());
    }
    let _ = send.send_trailers(trailers);
}

async fn connect(world: &World) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(world.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn call(world: &World, method: &Method) -> Request<()> {
    Request::builder()
        .method(method)
        .uri("http://gate/billing/Invoices/List")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .header("authorization", world.authorization("billing"))
        .body(())
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_grpc_goes_both_ways_at_once_and_ends_with_trailers() {
    let echo = Echo::start(0).await;
    let world = echo.world().await;
    let mut client = connect(&world).await;
    let (answer, mut send) = client.send_request(call(&world, &Method::POST), false).unwrap();
    send.send_data("one".into(), false).unwrap();
    let answer = answer.await.unwrap();
    assert_eq!(answer.status(), 200);
    for (name, value) in [("saw-te", "trailers"), ("saw-practice", "practice-1"), ("saw-authority", "gate"), ("saw-authorization", "false")]
    {
        assert_eq!(answer.headers()[name], value, "{name}");
    }
    assert!(answer.headers().contains_key("x-request-id"));
    let mut body = answer.into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "one");
    // The next message only after the answer to the first.
    send.send_data("two".into(), false).unwrap();
    assert_eq!(body.data().await.unwrap().unwrap(), "two");
    send.send_data(Bytes::new(), true).unwrap();
    assert!(body.data().await.is_none_or(|data| data.unwrap().is_empty()));
    let trailers = body.trailers().await.unwrap().unwrap();
    let names: Vec<&str> = trailers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!((names.len(), &trailers["grpc-status"], &trailers["grpc-message"]), (2, &"0".parse().unwrap(), &"well".parse().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_share_a_connection() {
    let echo = Echo::start(0).await;
    let world = echo.world().await;
    let client = connect(&world).await;
    let mut held = Vec::new();
    for n in 0..20 {
        let (answer, send) = client.clone().ready().await.unwrap().send_request(call(&world, &Method::POST), false).unwrap();
        held.push((answer.await.unwrap(), send));
        assert_eq!(echo.requests.load(Ordering::SeqCst), n + 1);
    }
    assert_eq!(echo.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_http1_is_served_by_an_upstream_of_http2() {
    let echo = Echo::start(0).await;
    let world = echo.world().await;
    let answer = world.request("POST", "/billing", "billing").header("te", "trailers").body("whole").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["saw-te"].to_str().unwrap()), (200, "none"), "no trailers reach it");
    assert_eq!(answer.text().await.unwrap(), "whole");
    let answer = world.request("GET", "/billing", "billing").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_the_upstream_did_not_take_is_sent_again_whatever_its_method() {
    let echo = Echo::start(1).await;
    let world = echo.world().await;
    let answer = world.request("POST", "/billing", "billing").body("once").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "once"));
    assert_eq!(echo.requests.load(Ordering::SeqCst), 2);
    let never = Echo::start(usize::MAX).await;
    let world = never.world().await;
    let answer = world.request("POST", "/billing", "billing").body("once").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), never.requests.load(Ordering::SeqCst)), (502, 4), "not for ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_under_way_is_cut_when_its_client_is_revoked() {
    let echo = Echo::start(0).await;
    let world = echo.world().await;
    let mut client = connect(&world).await;
    let (answer, mut send) = client.send_request(call(&world, &Method::POST), false).unwrap();
    send.send_data("one".into(), false).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "one");
    let by = Actor { name: "operator".into(), origin: "test".into() };
    world.lifecycle.revoke(world.apps["billing"].id, &by).await.unwrap();
    // Idle as it is, and with no trailers that say it went well.
    let ended = loop {
        match body.data().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break Some(error),
            None => break body.trailers().await.err(),
        }
    };
    assert!(ended.is_some_and(|error| error.is_reset()));
}
