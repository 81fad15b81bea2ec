//! Messages that two parsers could read in two ways: refused, recorded, and not one byte forwarded.

use super::world::{World, header, status};

#[tokio::test]
async fn an_ambiguous_header_is_refused_with_id_record_and_closed_connection() {
    let world = World::start().await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(9000));
    let unended = format!("GET /{}", "a".repeat(9000));
    let wide = format!("GET /open HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "a".repeat(70_000));
    let many = format!("GET /open HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(101));
    for (request, want) in [
        // 1 to 5: lengths and codings
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 3.0\r\n\r\nabc", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0\r\n\r\nabc", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nabc", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\nabc", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        ("POST /open HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        // 9 to 12: lines and fields
        ("GET /open HTTP/1.1\nHost: a\n\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\r\nX: \u{e4}\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        // 13 and 14: who is asked
        ("GET /open HTTP/1.1\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost:\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a,b\r\n\r\n", 400),
        ("GET /open HTTP/1.1\r\nHost: a:99999\r\n\r\n", 400),
        ("GET http://b/open HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ftp://a/open HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET http://u@a/open HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET open HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET ?x HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        // 15 and 16: the request line
        ("GET /open HTTP/1.0\r\nHost: a\r\n\r\n", 400),
        ("GET /open HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        ("GET /open HTTP/2.0\r\nHost: a\r\n\r\n", 400),
        ("GET /open\r\n\r\n", 400),
        ("GET  /open HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /op en HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET\t/open HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /open\t HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\u{e4} HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("\x16\x03\x01\x02\0", 400),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 405),
        // 20 and 22: expectations and sizes
        ("POST /open HTTP/1.1\r\nHost: a\r\nExpect: nonsense\r\nContent-Length: 0\r\n\r\n", 417),
        ("GET /billing HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\nauthorization: Bearer good\r\n\r\n", 400),
        (&long, 414),
        (&unended, 414),
        (&wide, 431),
        (&many, 431),
    ] {
        let mut client = world.connect().await;
        client.write(request.as_bytes()).await;
        let answer = client.rest().await;
        let shown = &request[..request.len().min(80)];
        assert_eq!(status(&answer), want, "{shown:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{shown:?}: {answer}");
        assert_eq!(header(&answer, "connection"), Some("close"), "{shown:?}: {answer}");
        assert!(header(&answer, "x-request-id").is_some() && answer.contains("\"code\":"), "{shown:?}: {answer}");
        assert!(world.record().await.contains(&format!(" {want} ")), "{shown:?}");
    }
    assert_eq!(world.upstream_requests(), 0);
    // What is just within bounds passes.
    let within = format!("GET /open/{} HTTP/1.1\r\nHost: a:80\r\n\r\n", "a".repeat(8000));
    assert_eq!(status(&world.send(within.as_bytes()).await), 200);
    assert_eq!(status(&world.send(b"\r\nGET /open HTTP/1.1\r\nHost: [::1]:80\r\n\r\n").await), 200);
}

#[tokio::test]
async fn an_ambiguous_chunk_is_refused_and_the_connection_closed() {
    let world = World::start().await;
    for body in [
        "+3\r\nabc\r\n0\r\n\r\n",
        "0x3\r\nabc\r\n0\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "3\nabc\n0\n\n",
        "3;a\nb\r\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3\r\nabcd\r\n0\r\n\r\n",
        "ffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    ] {
        let mut client = world.connect().await;
        client.write(b"POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.write(body.as_bytes()).await;
        client.write(b"GET /open/smuggled HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.rest().await;
        assert_eq!(status(&answer), 400, "{body:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{body:?}: {answer}");
    }
    assert_eq!(status(&world.send(b"GET /open/last HTTP/1.1\r\nHost: a\r\n\r\n").await), 200);
    let seen = world.seen().await;
    assert!(seen.starts_with("GET /open/last "), "nothing was complete before: {seen}");
}
