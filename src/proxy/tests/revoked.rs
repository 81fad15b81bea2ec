//! Requests on their way when their credential is revoked.

use http::Request;
use tokio::net::TcpStream;
use tokio::task::yield_now;

use super::world::{Client, World, authorization, revoked, status};
use crate::id::Revision;
use crate::store::Change;

const STREAM: &[u8] = b"GET /billing/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n";

fn revoke(world: &World) {
    let client = revoked("good");
    let applied = world.replica.apply(Revision(1), Revision(2), &[Change::Client(client.id, Some(client))]);
    assert_eq!(applied.revision(), Revision(2));
}

async fn streaming(world: &World) -> Client {
    let mut client = world.connect().await;
    client.write(STREAM).await;
    assert_eq!(status(&client.until("piece").await), 200);
    client
}

async fn entered(world: &World, n: usize) {
    while world.inflight.len() != n {
        yield_now().await;
    }
}

#[tokio::test]
async fn an_idle_stream_is_cut_at_once() {
    let world = World::start().await;
    let mut client = streaming(&world).await;
    entered(&world, 1).await;
    revoke(&world);
    let rest = client.rest().await;
    assert!(!rest.contains("0\r\n\r\n"), "the client can tell that it is not whole: {rest}");
    assert!(world.record().await.starts_with("revoked 200 "));
    entered(&world, 0).await;
}

#[tokio::test]
async fn a_stream_too_young_to_be_found_gets_no_further_piece() {
    let world = World::start().await;
    let mut client = streaming(&world).await;
    revoke(&world);
    world.more.notify_waiters();
    let rest = client.rest().await;
    assert!(!rest.contains("piece") && !rest.contains("0\r\n\r\n"), "{rest}");
    assert!(world.record().await.starts_with("revoked 200 "));
}

#[tokio::test]
async fn a_stream_that_was_cut_over_http2_is_reset_and_its_neighbour_goes_on() {
    let world = World::start().await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut send = |path: &str| {
        let request = Request::get(format!("http://a{path}")).header("authorization", authorization("good")).body(()).unwrap();
        client.send_request(request, true).unwrap().0
    };
    let (idle, public) = (send("/billing/stream").await.unwrap(), send("/open/stream"));
    let (mut idle, mut public) = (idle.into_body(), public.await.unwrap().into_body());
    assert_eq!(idle.data().await.unwrap().unwrap(), "piece");
    assert_eq!(public.data().await.unwrap().unwrap(), "piece");
    entered(&world, 2).await;
    revoke(&world);
    let end = loop {
        match idle.data().await {
            Some(Ok(data)) => assert!(data.is_empty(), "{data:?}"),
            end => break end,
        }
    };
    assert!(end.unwrap().unwrap_err().is_reset(), "not an end that looks whole");
    world.more.notify_waiters();
    assert_eq!(public.data().await.unwrap().unwrap(), "piece");
}

#[tokio::test]
async fn an_answer_that_has_not_begun_is_a_refusal() {
    let world = World::start().await;
    let mut client = world.connect().await;
    client.write(b"GET /billing/slow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\n\r\n").await;
    world.seen().await;
    revoke(&world);
    let answer = client.answer().await;
    assert_eq!(status(&answer), 401, "{answer}");
    assert!(world.record().await.starts_with("revoked 401 "));
}

#[tokio::test]
async fn without_a_lease_nothing_goes_on() {
    let world = World::start().await;
    let mut client = streaming(&world).await;
    entered(&world, 1).await;
    world.replica.end_lease();
    let rest = client.rest().await;
    assert!(!rest.contains("piece"), "{rest}");
    assert!(world.record().await.starts_with("unavailable 200 "));
}

#[tokio::test]
async fn a_change_that_does_not_concern_a_stream_leaves_it_alone() {
    let world = World::start().await;
    let mut client = streaming(&world).await;
    entered(&world, 1).await;
    let other = revoked("narrow");
    world.replica.apply(Revision(1), Revision(2), &[Change::Client(other.id, Some(other))]);
    world.more.notify_waiters();
    client.until("piece").await;
}
