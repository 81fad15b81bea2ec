//! What is written of requests: in the access log what it says it holds, and nothing anywhere else.

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::process::Process;
use crate::support::{ROUTES, World, wrong_secret};

/// An upstream whose answers are none, and tell what nobody may read.
async fn garbled(hidden: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = format!("HTTP/1.1 200 OK\r\nSet-Cookie : {hidden}\r\n{hidden}\r\n\r\n");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address.to_string()
}

async fn raw(gateway: &Process, bytes: &str) {
    let mut stream = TcpStream::connect(gateway.addresses[0]).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    // A reset after the answer is as good as an end.
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

/// Every way that a caller or an upstream has to make a framework talk.
async fn provoke(world: &World, gateway: &Process, hidden: &str) {
    let secret = wrong_secret();
    let app = &world.apps["all"];
    let http2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    for client in [&world.http, &http2] {
        for path in ["/billing", "/patients", "/down", "/slow", "/garbled", "/nowhere", "/docs", "/billing/a%2fb"] {
            let url = format!("{}/{secret}?{hidden}={hidden}&access={secret}", gateway.url(path));
            for request in [
                client.get(&url).basic_auth(app.id, Some(&app.secret)),
                client.get(&url).basic_auth(app.id, Some(&secret)),
                client.get(&url).bearer_auth(format!("{hidden}.{secret}")),
                client.post(&url).basic_auth(app.id, Some(&app.secret)).header("cookie", hidden).body(hidden.repeat(10)),
            ] {
                // What the answer is, other tests say; none is an answer too.
                let _ = request.send().await;
            }
        }
    }
    let authorization = world.authorization("all");
    for bytes in [
        format!("GET /billing/{secret}?{hidden} HTTP/1.1\r\nHost: a\r\nAuthorization: Basic {hidden}\r\nX-{hidden}: a\0b\r\n\r\n"),
        format!("GET /billing?{hidden} HTTP/1.1\r\nAuthorization: {authorization}\r\n{hidden}\r\n\r\n"),
        format!("GET http://{hidden}:{secret}@a/billing HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\n\r\n"),
        format!("POST /billing HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nContent-Length: 99\r\n\r\n{hidden}"),
        format!("POST /billing HTTP/1.1\r\nHost: a\r\nAuthorization: {authorization}\r\nTransfer-Encoding: chunked\r\n\r\n{hidden}\r\n"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{hidden}{hidden}{hidden}"),
        // The method is recorded, whatever it is; what else stands there is not.
        format!("GET\t{hidden}\r\n\r\n"),
        format!("\u{16}\u{3}\u{1}\0{hidden}\r\n\r\n"),
    ] {
        raw(gateway, &bytes).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_request_is_logged_but_what_the_access_log_is_for() {
    // Letters and digits that nothing else has.
    let hidden = "hUsh7";
    let routes = format!(
        "{}\n[upstreams.garbled]\nservers = [\"http://{}\"]\n[[routes]]\nprefix = \"/garbled\"\nscopes = [\"billing\"]\nupstream = \"garbled\"\n",
        ROUTES,
        garbled(hidden).await
    );
    let world = World::without_gateway("", &routes).await;
    for level in ["info", "debug", "trace", "info,h2=trace,hyper=trace,pingora_core=trace,pingora_proxy=trace"] {
        let env = &[("SIGMAGATE__TELEMETRY__LOG", level), ("SIGMAGATE__TELEMETRY__ACCESS_LOG", "true")];
        let mut gateway = Process::serve(&world, env).await;
        provoke(&world, &gateway, hidden).await;
        gateway.recorded("\"route\":\"/garbled\"").await;
        gateway.logged("the upstream failed").await;
        let metrics = gateway.metrics(&world).await;
        assert!(!metrics.contains(hidden) && !metrics.contains("smds_"), "{metrics}");
        let (status, output, errors) = gateway.end(Signal::TERM).await;
        assert!(status.success(), "{status:?} {errors}");
        let authorization = world.authorization("all");
        for (stream, text) in [("standard output", &output), ("standard error", &errors)] {
            for secret in [hidden, &world.apps["all"].secret, authorization.trim_start_matches("Basic ")] {
                assert!(
                    !text.contains(secret),
                    "{level}: `{secret}` on {stream}: {}",
                    text.lines().find(|line| line.contains(secret)).unwrap()
                );
            }
            // The access log says that there was one.
            let shown = text.replace("smds_(hidden)", "");
            assert!(
                !shown.contains("smds_"),
                "{level}: a secret on {stream}: {}",
                shown.lines().find(|line| line.contains("smds_")).unwrap()
            );
        }
        assert!(output.contains("/billing/smds_(hidden)"), "{output}");
        assert!(
            output.lines().chain(errors.lines()).all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
            "{output}{errors}"
        );
    }
}

/// pingora writes through the `log` crate, which is another one than ours: what it says of itself must not get lost.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_library_complains_of_is_in_the_log() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let core = listener.local_addr().unwrap().to_string();
    let (answered, mut told) = tokio::sync::watch::channel(());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            told.borrow_and_update();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
            // On a connection that is kept, nobody has asked for anything now.
            let _ = told.changed().await;
            let _ = stream.write_all(b"surplus").await;
        }
    });
    let world = World::without_gateway("", &ROUTES.replace("CORE", &core)).await;
    let gateway = Process::serve(&world, &[]).await;
    // The connection may not be kept yet when the surplus comes; then the next one is.
    for _ in 0..2000 {
        if gateway.has_said("Unexpected data read in idle connection") {
            break;
        }
        // The surplus may come just when the connection is used again: then it is no answer.
        let app = &world.apps["billing"];
        // Content, so that it is the library that keeps the connection.
        let request = world.http.post(gateway.url("/billing")).basic_auth(app.id, Some(&app.secret)).body("content");
        assert!(matches!(request.send().await.unwrap().status().as_u16(), 200 | 502));
        answered.send_replace(());
    }
    let (_, _, errors) = gateway.end(Signal::TERM).await;
    assert!(errors.lines().any(|line| line.contains("\"WARN\"") && line.contains("\"target\":\"pingora_core::connectors")), "{errors}");
    assert!(!errors.contains("surplus"), "{errors}");
}
