//! Stock OAuth libraries against the real gateway, over TLS: each is told its address and does what an app developer would.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod libraries;
mod world;

use libraries::Library;
use world::World;

async fn walk(library: Library) {
    let world = World::new().await;
    library.walk(&world).await;
    world.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib() {
    walk(Library::Python("authlib_client.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_oauthlib() {
    walk(Library::Python("requests_oauthlib_client.py")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn simple_oauth2() {
    walk(Library::Node("simple_oauth2_client.mjs")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openid_client() {
    walk(Library::Node("openid_client.mjs")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth4webapi() {
    walk(Library::Node("oauth4webapi_client.mjs")).await;
}
