//! Bytes that no well-meaning client sends.

use crate::support::World;

/// Each is refused with a 4xx or 501/505 or by closing the connection, and not one byte reaches the upstream.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_malformed_never_reaches_the_upstream() {
    let world = World::new().await;
    let auth = format!("Authorization: {}\r\n", world.authorization("all"));
    let rows = [
        ("no Host", format!("GET /billing HTTP/1.1\r\n{auth}\r\n")),
        ("two Hosts", format!("GET /billing HTTP/1.1\r\nHost: a\r\nHost: a\r\n{auth}\r\n")),
        ("Host with @", format!("GET /billing HTTP/1.1\r\nHost: a@b\r\n{auth}\r\n")),
        ("Host with a slash", format!("GET /billing HTTP/1.1\r\nHost: a/b\r\n{auth}\r\n")),
        ("Host with a blank", format!("GET /billing HTTP/1.1\r\nHost: a b\r\n{auth}\r\n")),
        ("empty Host", format!("GET /billing HTTP/1.1\r\nHost:\r\n{auth}\r\n")),
        ("a list as Host", format!("GET /billing HTTP/1.1\r\nHost: a,b\r\n{auth}\r\n")),
        (
            "length and chunked",
            format!("POST /billing HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ),
        ("two lengths", format!("POST /billing HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx")),
        ("two equal lengths", format!("POST /billing HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx")),
        ("a list of lengths", format!("POST /billing HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: 1, 1\r\n\r\nx")),
        ("length +5", format!("POST /billing HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: +5\r\n\r\nhello")),
        ("length 0x5", format!("POST /billing HTTP/1.1\r\nHost: a\r\n{auth}Content-Length: 0x5\r\n\r\nhello")),
        ("no length at all", format!("POST /billing HTTP/1.1\r\nHost: a\r\n{auth}Content-Length:\r\n\r\nhello")),
        ("gzip, chunked", format!("POST /billing HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n")),
        ("chunked twice", format!("POST /billing HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n")),
        ("xchunked", format!("POST /billing HTTP/1.1\r\nHost: a\r\n{auth}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("chunked over 1.0", format!("POST /billing HTTP/1.0\r\nHost: a\r\n{auth}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
        ("1.0", format!("GET /billing HTTP/1.0\r\nHost: a\r\n{auth}\r\n")),
        ("1.2", format!("GET /billing HTTP/1.2\r\nHost: a\r\n{auth}\r\n")),
        ("0.9", "GET /billing\r\n".to_owned()),
        ("blank before the colon", format!("GET /billing HTTP/1.1\r\nHost: a\r\nX-A : b\r\n{auth}\r\n")),
        ("no colon", format!("GET /billing HTTP/1.1\r\nHost: a\r\nnonsense\r\n{auth}\r\n")),
        ("obs-fold", format!("GET /billing HTTP/1.1\r\nHost: a\r\nX-A: b\r\n c\r\n{auth}\r\n")),
        ("NUL in a value", format!("GET /billing HTTP/1.1\r\nHost: a\r\nX-A: b\0c\r\n{auth}\r\n")),
        ("control in a value", format!("GET /billing HTTP/1.1\r\nHost: a\r\nX-A: b\x01c\r\n{auth}\r\n")),
        ("no slash", format!("GET billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("query alone", format!("GET ?x=1 HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("asterisk", format!("OPTIONS * HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("authority of another host", format!("GET http://b/billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("another scheme", format!("GET ftp://a/billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("userinfo", format!("GET http://u@a/billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("CONNECT", format!("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n{auth}\r\n")),
        ("TRACE", format!("TRACE /billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("two authorizations", format!("GET /billing HTTP/1.1\r\nHost: a\r\n{auth}{auth}\r\n")),
        ("a fragment", format!("GET /docs#/billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("a double slash", format!("GET //billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("dot segments", format!("GET /docs/../billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("encoded dot segments", format!("GET /docs/%2e%2e/billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("parameters", format!("GET /docs/..;/billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("a backslash", format!("GET /docs\\..\\billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("an encoded NUL", format!("GET /billing/%00 HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("a raw tab", format!("GET /billing/\tx HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("overlong UTF-8", format!("GET /docs/%c0%ae%c0%ae/billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
        ("encoded twice", format!("GET /docs/%252e%252e/billing HTTP/1.1\r\nHost: a\r\n{auth}\r\n")),
    ];
    for (what, bytes) in rows {
        let answer = world.raw(&bytes).await;
        let status = answer.get(9..12).unwrap_or("closed");
        assert!(["400", "405", "501", "505", "closed"].contains(&status), "{what}: {answer}");
        assert!(world.upstream.untouched(), "{what}: {:?}", world.upstream.take());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_follows_a_refused_request_with_a_body_is_never_read_as_a_request() {
    let world = World::new().await;
    let hidden = format!("GET /billing HTTP/1.1\r\nHost: a\r\nAuthorization: {}\r\n\r\n", world.authorization("all"));
    for path in ["/billing", "/nowhere", "/patients"] {
        let answer = world.raw(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len())).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert!(world.upstream.untouched(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_neither_switched_nor_a_way_around_the_checks() {
    let world = World::new().await;
    let auth = format!("Authorization: {}\r\n", world.authorization("all"));
    let upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
    let answer = world.raw(format!("GET /billing HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(world.upstream.untouched());
    let answer = world.raw(format!("GET /billing HTTP/1.1\r\nHost: a\r\n{auth}{upgrade}\r\n")).await;
    assert!(!answer.starts_with("HTTP/1.1 101"), "{answer}");
    for seen in world.upstream.take() {
        assert!(seen.all("upgrade").is_empty() && seen.all("http2-settings").is_empty(), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_body_is_cut_off_at_the_limit() {
    let world = World::new().await;
    let auth = world.authorization("all");
    let answer = world.raw(format!("POST /small HTTP/1.1\r\nHost: a\r\nAuthorization: {auth}\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n01234567890123456789\r\n0\r\n\r\n")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    for seen in world.upstream.take() {
        assert!(seen.body.len() <= 10, "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_client_holds_a_connection_for_ever() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let world =
        World::with("[limits]\nheader_timeout_ms = 200\nidle_timeout_ms = 300\nbody_timeout_ms = 200\n", crate::support::ROUTES).await;
    let auth = world.authorization("all");
    let begun = [
        String::new(),
        "GET /billing HTTP/1.1\r\nHost:".to_owned(),
        "PRI * HTTP/2.0\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        format!("GET /billing HTTP/1.1\r\nHost: a\r\nAuthorization: {auth}\r\n\r\n"),
        format!("POST /billing HTTP/1.1\r\nHost: a\r\nAuthorization: {auth}\r\nContent-Length: 10\r\n\r\nabc"),
    ];
    for bytes in begun {
        let mut stream = tokio::net::TcpStream::connect(world.address()).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The test ends when the gateway closes; how soon is for a benchmark to say.
        let _ = stream.read_to_end(&mut answer).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trailer_field_never_becomes_a_field_of_the_header() {
    let world = World::new().await;
    let auth = world.authorization("all");
    let trailers =
        "Authorization: Basic eDp5\r\nX-SigmaMD-Practice-Id: other\r\nContent-Length: 99\r\nHost: b\r\nX-Forwarded-For: 10.0.0.1\r\n";
    let answer = world
        .raw(format!(
            "POST /billing HTTP/1.1\r\nHost: a\r\nAuthorization: {auth}\r\nTransfer-Encoding: chunked\r\nTrailer: Authorization\r\n\r\n5\r\nhello\r\n0\r\n{trailers}\r\n"
        ))
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let seen = world.upstream.take().pop().unwrap();
    assert_eq!(&seen.body[..], b"hello");
    assert!(seen.all("authorization").is_empty() && seen.all("content-length").is_empty(), "{seen:?}");
    assert_eq!((seen.one("x-sigmamd-practice-id"), seen.one("host"), seen.one("x-forwarded-for")), ("practice-1", "a", "127.0.0.1"));
    // Nor do they open anything.
    let answer = world
        .raw(format!("POST /billing HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nAuthorization: {auth}\r\n\r\n"))
        .await;
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    assert!(world.upstream.untouched());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_are_nobody_elses_concern() {
    use tokio::io::AsyncWriteExt;
    let world = World::new().await;
    let auth = world.authorization("all");
    let mut slow = Vec::new();
    for n in 0..150 {
        let mut stream = tokio::net::TcpStream::connect(world.address()).await.unwrap();
        let begun = match n % 3 {
            0 => "GET /billing HTTP/1.1\r\nHo".to_owned(),
            1 => format!("POST /billing HTTP/1.1\r\nHost: a\r\nAuthorization: {auth}\r\nContent-Length: 1000\r\n\r\nabc"),
            _ => "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        };
        stream.write_all(begun.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..100 {
        assert_eq!(world.status("/billing", "all").await, 200);
        for stream in slow.iter_mut().step_by(3) {
            // Never the end of its header.
            stream.write_all(b"s").await.unwrap();
        }
    }
}
