//! The data plane over real sockets, with an upstream that tells what it saw.

mod framing;
mod revoked;
mod upkeep;
mod world;

use std::time::Duration;

use super::*;
use crate::id::Revision;
use crate::store::Change;
use world::{World, authorization, header, revoked, status};

#[tokio::test]
async fn an_admitted_request_reaches_the_upstream_with_identity_and_without_its_credential() {
    let world = World::start().await;
    let answer = world
        .send(b"GET /billing/7?q=%7e HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer good\r\nX_SigmaMD_Client_Id: evil\r\nx-sigmamd-scopes: all\r\nX-Forwarded-For: 127.0.0.1\r\nConnection: X-SigmaMD-Practice-Id, X-Forwarded-For, Host\r\nProxy: x\r\nUpgrade: websocket\r\nX-Request-Id: abc-1\r\nCookie: a=1\r\n\r\n")
        .await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(header(&answer, "x-request-id"), Some("abc-1"));
    assert_eq!(header(&answer, "ratelimit"), Some("\"standard\";r=99;t=1"));
    assert_eq!(header(&answer, "connection"), Some("keep-alive"));
    let seen = world.seen().await;
    assert!(seen.starts_with("GET /billing/7?q=%7e HTTP/1.1\r\n"), "{seen}");
    for (name, value) in [
        ("host", "api.test"),
        ("x-sigmamd-practice-id", "p1"),
        ("x-sigmamd-client-id", "smd_00000000000000000000"),
        ("x-sigmamd-scopes", "billing"),
        ("x-request-id", "abc-1"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", "http"),
        ("forwarded", "for=127.0.0.1;host=\"api.test\";proto=http"),
        ("cookie", "a=1"),
    ] {
        assert_eq!(header(&seen, name), Some(value), "{name}: {seen}");
    }
    assert!(header(&seen, "traceparent").is_some());
    for gone in ["authorization", "x_sigmamd_client_id", "x-sigmamd-user-id", "proxy", "upgrade", "connection"] {
        assert_eq!(header(&seen, gone), None, "{gone}: {seen}");
    }
    assert!(!seen.contains("evil"));
    let record = world.record().await;
    assert!(record.contains("permit 200 GET /billing/7 Some(\"/billing\") Some(\"p1\")"), "{record}");
}

#[tokio::test]
async fn a_public_route_tells_the_upstream_no_identity() {
    let world = World::start().await;
    let answer = world.send(b"GET /open HTTP/1.1\r\nHost: a\r\nX-SigmaMD-Client-Id: evil\r\nAuthorization: Bearer good\r\n\r\n").await;
    assert_eq!(status(&answer), 200, "{answer}");
    let seen = world.seen().await;
    assert!(!seen.to_ascii_lowercase().contains("x-sigmamd") && header(&seen, "authorization").is_none(), "{seen}");
}

#[tokio::test]
async fn what_is_forwarded_is_the_canonical_target() {
    let world = World::start().await;
    for (sent, forwarded) in [
        ("/open/%61?%61=/../x", "/open/a?%61=/../x"),
        ("http://a/open/x?y", "/open/x?y"),
        ("HTTPS://A/open", "/open"),
        ("/open/%c3%a4", "/open/%C3%A4"),
    ] {
        let answer = world.send(format!("GET {sent} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).await;
        assert_eq!(status(&answer), 200, "{sent}: {answer}");
        let seen = world.seen().await;
        assert!(seen.starts_with(&format!("GET {forwarded} HTTP/1.1\r\n")), "{sent}: {seen}");
    }
}

#[tokio::test]
async fn a_refusal_is_a_problem_document_and_keeps_the_connection() {
    let world = World::start().await;
    let mut client = world.connect().await;
    for (request, want, code) in [
        ("GET /billing HTTP/1.1\r\nHost: a\r\n\r\n", 401, "credential_missing"),
        ("GET /billing HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer bad\r\n\r\n", 401, "credential_invalid"),
        ("GET /billing HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer narrow\r\n\r\n", 403, "insufficient_scope"),
        ("GET /billing HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer often\r\n\r\n", 429, "rate_limited"),
        ("GET /nothing HTTP/1.1\r\nHost: a\r\n\r\n", 404, "no_route"),
        ("TRACE /billing HTTP/1.1\r\nHost: a\r\n\r\n", 405, "method_not_allowed"),
        ("GET /open/../billing HTTP/1.1\r\nHost: a\r\n\r\n", 400, "malformed_request"),
    ] {
        client.write(request.as_bytes()).await;
        let answer = client.answer().await;
        assert_eq!(status(&answer), want, "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
        assert_eq!(header(&answer, "content-type"), Some("application/problem+json"));
        assert_ne!(header(&answer, "connection"), Some("close"), "{answer}");
        assert!(header(&answer, "x-request-id").is_some() && header(&answer, "server").is_none());
        assert_eq!(header(&answer, "www-authenticate").is_some(), matches!(want, 401 | 403), "{answer}");
        assert_eq!(header(&answer, "ratelimit").is_some(), want == 429);
        let record = world.record().await;
        assert!(record.contains(&format!(" {want} ")), "{record}");
    }
    assert_eq!(world.upstream_requests(), 0);
}

#[tokio::test]
async fn a_head_refusal_has_no_body_and_the_next_request_is_read() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.write(b"HEAD /billing HTTP/1.1\r\nHost: a\r\n\r\nGET /open HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = client.head().await;
    assert_eq!(status(&head), 401);
    assert_eq!(status(&client.answer().await), 200);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_and_each_is_decided() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client
        .write(b"GET /open/1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /open/2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET /billing HTTP/1.1\r\nHost: a\r\n\r\nGET /open/4 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    for want in [200, 200, 401, 200] {
        assert_eq!(status(&client.answer().await), want);
    }
}

#[tokio::test]
async fn a_refused_body_is_never_the_next_request() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.write(b"POST /billing HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nGET /open HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = client.rest().await;
    assert_eq!(status(&answer), 401);
    assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    assert_eq!(world.upstream_requests(), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_up_front_or_cut_off() {
    let world = World::start().await;
    let answer = world.send(b"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n").await;
    assert_eq!(status(&answer), 413, "{answer}");
    assert_eq!(world.upstream_requests(), 0);
    let chunk = format!("400\r\n{}\r\n0\r\n\r\n", "x".repeat(1024));
    let answer = world.send(format!("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}").as_bytes()).await;
    assert_eq!(status(&answer), 413, "{answer}");
    let answer = world
        .send(b"POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-SigmaMD-A: b\r\n\r\n")
        .await;
    assert_eq!(status(&answer), 200, "{answer}");
    loop {
        let seen = world.seen().await;
        if seen.ends_with("3\r\nabc\r\n0\r\n\r\n") {
            assert!(!seen.contains("X-SigmaMD-A") && !seen.contains("x=y"), "{seen}");
            break;
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_down_or_slow_is_told_apart() {
    let world = World::start().await;
    let answer = world.send(b"GET /down HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((status(&answer), header(&answer, "connection")), (502, Some("close")), "{answer}");
    assert!(answer.contains("upstream_unreachable"));
    let answer = world.send(b"GET /open/slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&answer), 504, "{answer}");
    // One of its two servers is down: the other is tried.
    for _ in 0..4 {
        let answer = world.send(b"POST /half HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(status(&answer), 200, "{answer}");
    }
}

#[tokio::test]
async fn a_revocation_between_decision_and_forwarding_counts() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.write(b"GET /stalled HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n").await;
    // Admitted, and waiting for its connection to the upstream. (Were it revoked sooner still, the answer is the same.)
    while world.active.requests() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    let id = revoked("good").id;
    world.replica.apply(Revision(1), Revision(2), &[Change::Client(id, Some(revoked("good")))]);
    let (first, _) = world.stalled.accept().await.unwrap();
    let answer = client.answer().await;
    assert_eq!(status(&answer), 401, "{answer}");
    assert!(world.record().await.contains("revoked 401"));
    drop(first);
}

#[tokio::test]
async fn a_panic_ends_one_request_alone() {
    let world = World::start().await;
    let answer = world.send(b"GET /open/panic HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&answer), 500, "{answer}");
    assert!(world.record().await.contains("internal_error 500"));
    assert_eq!(status(&world.send(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n").await), 200);
}

#[tokio::test]
async fn a_panic_ends_one_stream_of_its_connection_alone() {
    let world = World::start().await;
    let (mut client, connection) = h2::client::handshake(tokio::net::TcpStream::connect(world.address).await.unwrap()).await.unwrap();
    let connection = tokio::spawn(connection);
    for (path, want) in [("/open", Some(200)), ("/open/panic", None), ("/open", Some(200))] {
        client = client.ready().await.unwrap();
        let request = http::Request::get(format!("http://{}{path}", world.address)).body(()).unwrap();
        let (answer, _) = client.send_request(request, true).unwrap();
        assert_eq!(answer.await.ok().map(|answer| answer.status().as_u16()), want, "{path}");
    }
    connection.abort();
}

#[tokio::test]
async fn slow_and_silent_clients_are_closed() {
    let short = Duration::from_millis(200);
    let settings = Settings { header_timeout: short, idle_timeout: short, body_timeout: short, ..Settings::default() };
    let world = World::with(settings).await;
    // Nothing; a part of a header; a part of the h2c preface; a preface and nothing more.
    for start in [&b""[..], b"GET / HT", b"PRI * HTTP", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut client = world.connect().await;
        client.write(start).await;
        client.rest().await;
    }
    // A byte now and then does not buy time.
    let mut client = world.connect().await;
    let mut dribbled = 0;
    while client.try_write(b"A").await && dribbled < 1000 {
        dribbled += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(dribbled < 100, "{dribbled}");
    // HTTP/2 content that stalls: the stream is reset.
    let mut client = world.connect().await;
    client.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
    // POST http /open, `:authority: a`, without END_STREAM (RFC 7541 §6: indexed 3 and 6, then literals).
    let block = b"\x83\x86\x04\x05/open\x01\x01a";
    client.write(&[&[0, 0, u8::try_from(block.len()).unwrap(), 1, 4, 0, 0, 0, 1][..], block].concat()).await;
    client.rest().await;
    while !world.record().await.contains("request_timeout 0 POST /open") {}
    // Idle after an answer, and a part of the second header.
    for more in [&b""[..], b"GET / HTTP/1.1\r\n"] {
        let mut client = world.connect().await;
        client.write(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(status(&client.answer().await), 200);
        client.write(more).await;
        client.rest().await;
    }
    // A body that stalls.
    let answer = world.send(b"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").await;
    assert_eq!(status(&answer), 408, "{answer}");
}

#[tokio::test]
async fn a_request_has_a_deadline() {
    let world = World::with(Settings { request_timeout: Duration::from_millis(300), ..Settings::default() }).await;
    let answer = world.send(b"GET /open/hang HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&answer), 504, "{answer}");
    assert!(world.record().await.contains("upstream_timeout 504"));
}

#[tokio::test]
async fn an_expectation_is_met_by_the_upstream_and_never_for_a_refused_request() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.write(b"POST /billing HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    let answer = client.rest().await;
    assert_eq!(status(&answer), 401, "{answer}");
    let mut client = world.connect().await;
    client.write(b"POST /open/hang HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(status(&client.head().await), 100);
}

#[tokio::test]
async fn a_client_that_closes_its_side_gets_its_answer() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.write(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.close_write().await;
    assert_eq!(status(&client.rest().await), 200);
}

#[tokio::test]
async fn connections_over_the_cap_are_closed() {
    let world = World::with(Settings { max_connections: 1, ..Settings::default() }).await;
    let mut first = world.connect().await;
    first.write(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&first.answer().await), 200);
    let mut second = world.connect().await;
    assert_eq!(second.rest().await, "");
    first.write(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(status(&first.answer().await), 200);
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_closes_the_rest() {
    let world = World::start().await;
    let mut idle = world.connect().await;
    idle.write(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n").await;
    idle.answer().await;
    let mut busy = world.connect().await;
    busy.write(b"POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh").await;
    world.seen().await;
    while world.upstream_requests() < 2 {
        tokio::task::yield_now().await;
    }
    world.stop();
    assert_eq!(idle.rest().await, "");
    busy.write(b"i").await;
    let answer = busy.rest().await;
    assert_eq!((status(&answer), header(&answer, "connection")), (200, Some("close")), "{answer}");
    world.active.idle().await;
}

#[tokio::test]
async fn connections_are_served_by_every_runtime() {
    let runtimes = [0; 2].map(|_| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap());
    let world = World::on(&runtimes.each_ref().map(|runtime| runtime.handle().clone())).await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        let mut client = world.connect().await;
        for _ in 0..3 {
            client.write(b"GET /open HTTP/1.1\r\nHost: a\r\n\r\n").await;
            assert_eq!(status(&client.answer().await), 200);
        }
        clients.push(client);
    }
    assert_eq!(world.active.connections(), 6);
    for runtime in runtimes {
        runtime.shutdown_background();
    }
}

#[tokio::test]
async fn http2_without_tls_is_held_to_the_same_rules() {
    let world = World::start().await;
    let client = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let url = |path: &str| format!("http://{}{path}", world.address);
    let request = |path: &str| client.get(url(path)).header("authorization", authorization("good"));
    let answer = request("/billing/%61").header("cookie", "a=1").header("cookie", "b=2").body("hello").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    let seen = world.seen().await;
    assert!(seen.starts_with("GET /billing/a HTTP/1.1\r\n"), "{seen}");
    assert_eq!(header(&seen, "cookie"), Some("a=1; b=2"), "{seen}");
    assert_eq!(header(&seen, "host").map(str::to_owned), Some(world.address.to_string()));
    assert_eq!(header(&seen, "x-sigmamd-practice-id"), Some("p1"));
    // This one pingora answers by itself, without an id.
    let answer = request("/billing").header("host", "other").send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 400);
    for (request, want) in [
        (request("/billing").header("authorization", "Bearer bad"), 400),
        (client.get(url("/billing")), 401),
        (request("/nothing"), 404),
        (request("/billing").header("x-bad", http::HeaderValue::from_bytes(b"\xff").unwrap()), 400),
        (request("/billing").header("expect", "nonsense"), 417),
        (request(&format!("/{}", "a".repeat(9000))), 414),
        (client.post(url("/open")).body("x".repeat(1001)), 413),
        (client.request(http::Method::TRACE, url("/billing")), 405),
    ] {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), want);
        assert!(answer.headers().contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn tls_serves_both_versions_by_alpn() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let world = World::start_tls().await;
    for (http1, version) in [(false, http::Version::HTTP_2), (true, http::Version::HTTP_11)] {
        let builder = reqwest::Client::builder().no_proxy().tls_danger_accept_invalid_certs(true);
        let client = if http1 { builder.http1_only() } else { builder }.build().unwrap();
        let answer = client.get(format!("https://{}/open", world.address)).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.version()), (200, version));
        assert_eq!(header(&world.seen().await, "x-forwarded-proto"), Some("https"));
    }
}
