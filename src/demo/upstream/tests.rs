use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;

async fn start() -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(serve(listener, async {
        // Dropped without a word means the same.
        let _ = stopped.await;
    }));
    (address, stop)
}

async fn send(address: SocketAddr, request: &str, headers: &str, content: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = content.len();
    let message = format!("{request} HTTP/1.1\r\nHost: u\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{content}");
    stream.write_all(message.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (header, content) = answer.split_once("\r\n\r\n").unwrap();
    (header[9..12].parse().unwrap(), serde_json::from_str(content).unwrap_or(Value::Null))
}

#[tokio::test]
async fn every_scope_has_lists_and_records() {
    let (address, _running) = start().await;
    for area in ["billing", "appointments", "tasks", "patients", "forms", "communication", "docs"] {
        let (status, body) = send(address, &format!("GET {PREFIX}/{area}"), "", "").await;
        assert!(status == 200 && body["gateway"].is_object(), "{area}: {status} {body}");
        assert!(records::collections().any(|(name, _)| name.split('/').next() == Some(area)), "{area}");
    }
    for (name, items) in records::collections() {
        let (status, body) = send(address, &format!("GET {PREFIX}/{name}?page=1"), "", "").await;
        assert_eq!((status, body["data"].as_array().unwrap().len()), (200, items.len()), "{name}");
        assert!(items.len() >= 2, "{name}");
        for item in items {
            let id = item["id"].as_str().unwrap();
            let (status, body) = send(address, &format!("GET {PREFIX}/{name}/{id}"), "", "").await;
            assert_eq!((status, &body["data"]), (200, item), "{name}/{id}");
        }
        let (status, body) = send(address, &format!("POST {PREFIX}/{name}"), "", r#"{"note":"x","id":"mine"}"#).await;
        assert_eq!((status, &body["data"]), (201, &json!({ "id": "new-1", "note": "x" })), "{name}");
    }
}

#[tokio::test]
async fn the_identity_it_was_told_is_echoed() {
    let (address, _running) = start().await;
    let headers = "X-SigmaMD-Practice-Id: p1\r\nX-SigmaMD-Client-Id: smd_x\r\nX-SigmaMD-Scopes: billing tasks\r\nX-Request-Id: r1\r\n\
                   X-SigmaMD-Client-Id: smd_forged\r\nAuthorization: Basic c2VjcmV0\r\n";
    let (_, body) = send(address, &format!("GET {PREFIX}/tasks"), headers, "").await;
    let want = json!({
        "practice_id": "p1", "client_id": "smd_x, smd_forged", "user_id": null, "scopes": "billing tasks", "request_id": "r1"
    });
    assert_eq!(body["gateway"], want);
    assert!(!body.to_string().contains("c2VjcmV0"));
}

#[tokio::test]
async fn other_answers_are_json_too() {
    let (address, _running) = start().await;
    for (request, content, want) in [
        ("GET /api/public/v1/tasks/none", "", 404),
        ("GET /elsewhere", "", 404),
        ("DELETE /api/public/v1/tasks", "", 405),
        ("POST /api/public/v1/tasks/tsk-71", "{}", 405),
        ("POST /api/public/v1/tasks", "[1]", 400),
        ("POST /api/public/v1/tasks", "", 201),
        ("PATCH /api/public/v1/tasks/tsk-71", r#"{"status":"done"}"#, 200),
    ] {
        let (status, body) = send(address, request, "", content).await;
        assert_eq!(status, want, "{request}: {body}");
        assert!(body["gateway"].is_object(), "{request}: {body}");
    }
    assert_eq!(send(address, "DELETE /api/public/v1/tasks/tsk-71", "", "").await.0, 204);
    assert_eq!(send(address, "GET /healthz", "", "").await.0, 200);
}
