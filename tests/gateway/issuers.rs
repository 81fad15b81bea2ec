//! Trusted issuers, and keys of clients, that are at a URL: fetched, kept, replaced and withdrawn while the gateway serves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sigmagate::clock::now;
use sigmagate::entity::ClientKeys;
use sigmagate::store::ClientEdit;
use sigmagate::token::{Algorithm, SigningKey};
use tokio::net::TcpListener;

use crate::support::{MANY_FAILURES, ROUTES, World};

const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A server with keys.
#[derive(Clone, Default)]
pub struct Keys {
    /// `None`: it answers 500.
    set: Arc<Mutex<Option<Vec<Value>>>>,
    asked: Arc<AtomicUsize>,
}

impl Keys {
    pub async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(Self::answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    fn answer(State(keys): State<Self>) -> std::future::Ready<Result<String, StatusCode>> {
        keys.asked.fetch_add(1, Ordering::SeqCst);
        let set = keys.set.lock().clone().ok_or(StatusCode::INTERNAL_SERVER_ERROR);
        std::future::ready(set.map(|set| json!({ "keys": set }).to_string()))
    }

    pub fn say(&self, keys: Option<&[&SigningKey]>) {
        *self.set.lock() = keys.map(|keys| keys.iter().map(|key| key.public().to_jwk()).collect());
    }
}

pub fn key() -> SigningKey {
    SigningKey::generate(Algorithm::Es256).unwrap()
}

pub fn signed(key: &SigningKey, claims: &Value) -> String {
    key.sign_json(&json!({ "alg": "ES256", "kid": key.kid() }), claims).unwrap()
}

/// A token of the issuer for the member.
fn token(key: &SigningKey) -> String {
    token_for("https://api.test", key)
}

fn token_for(audience: &str, key: &SigningKey) -> String {
    let claims = json!({
        "iss": "https://login.test", "aud": audience, "exp": now().0 / 1000 + 600,
        "org": "practice-1", "sub": "member-1", "scope": "openid billing",
    });
    signed(key, &claims)
}

async fn world(keys: &Keys) -> World {
    let block = format!(
        "\n[[issuers]]\nissuer = \"https://login.test\"\njwks_url = \"http://{}/jwks.json\"\naudiences = [\"https://api.test\"]\n\
         algorithms = [\"ES256\"]\npractice_claim = \"org\"\nuser_claim = \"sub\"\nrefresh_secs = 10\n",
        keys.start().await
    );
    World::with(&format!("{MANY_FAILURES}[oauth]\nkey_networks = [\"127.0.0.0/8\"]\n"), &format!("{ROUTES}{block}")).await
}

async fn status(world: &World, path: &str, token: &str) -> u16 {
    world.http.get(world.url(path)).bearer_auth(token).send().await.unwrap().status().as_u16()
}

async fn becomes(world: &World, token: &str, wanted: u16) {
    while status(world, "/billing", token).await != wanted {}
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_changes_its_keys_while_the_gateway_serves() {
    let (keys, a, b) = (Keys::default(), key(), key());
    keys.say(Some(&[&a]));
    let world = world(&keys).await;
    let (by_a, by_b) = (token(&a), token(&b));
    becomes(&world, &by_a, 200).await;
    let seen = world.upstream.take().pop().unwrap();
    assert_eq!((seen.one("x-sigmamd-practice-id"), seen.one("x-sigmamd-user-id")), ("practice-1", "member-1"));
    assert_eq!((seen.one("x-sigmamd-scopes"), seen.all("x-sigmamd-client-id").len()), ("billing", 0));
    assert_eq!(status(&world, "/patients", &by_a).await, 403);
    assert_eq!(status(&world, "/billing", &by_b).await, 401);
    // While it is down, what is known goes on.
    keys.say(None);
    world.metric("sigmagate_key_fetches_total{issuer=\"https://login.test\",result=\"failed\"}").await;
    assert_eq!((status(&world, "/billing", &by_a).await, status(&world, "/billing", &by_b).await), (200, 401));
    // What else the block says can be changed meanwhile.
    let routes = std::fs::read_to_string(world.path("routes.toml")).unwrap();
    std::fs::write(world.path("routes.toml"), routes.replace("[\"https://api.test\"]", "[\"https://api.test\", \"urn:new\"]")).unwrap();
    becomes(&world, &token_for("urn:new", &a), 200).await;
    assert_eq!((status(&world, "/billing", &by_a).await, status(&world, "/billing", &by_b).await), (200, 401));
    // Another key, and the first one withdrawn.
    keys.say(Some(&[&b]));
    becomes(&world, &by_b, 200).await;
    assert_eq!(status(&world, "/billing", &by_a).await, 401);
    // Keys that nobody has ever heard of are no reason to ask again and again.
    let before = keys.asked.load(Ordering::SeqCst);
    let strange: Vec<_> = (0..200).map(|_| token(&key())).collect();
    let answers = strange.iter().map(|token| status(&world, "/billing", token));
    assert!(futures_util::future::join_all(answers).await.iter().all(|status| matches!(status, 401 | 429)));
    assert!(keys.asked.load(Ordering::SeqCst) <= before + 3);
    // And what is switched off here is off, whatever anybody signs.
    world.lifecycle.set_user_access(&world.member, false, &world.by).await.unwrap();
    assert_eq!(status(&world, "/billing", &by_b).await, 403);
    world.lifecycle.set_user_access(&world.member, true, &world.by).await.unwrap();
    assert_eq!(status(&world, "/billing", &by_b).await, 200);
    world.lifecycle.disable(&world.practice, &world.by).await.unwrap();
    assert_eq!(status(&world, "/billing", &by_b).await, 403);
    world.server.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_was_never_reached_is_no_fault_of_the_caller() {
    let (keys, key) = (Keys::default(), key());
    let world = world(&keys).await;
    let token = token(&key);
    let answer = world.http.get(world.url("/billing")).bearer_auth(&token).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers().contains_key("retry-after")), (503, true));
    assert_eq!(world.status("/billing", "billing").await, 200, "others are not concerned");
    keys.say(Some(&[&key]));
    becomes(&world, &token, 200).await;
    // Out of the route map, out of the gateway.
    std::fs::write(
        world.path("routes.toml"),
        std::fs::read_to_string(world.path("routes.toml")).unwrap().split("\n[[issuers]]").next().unwrap(),
    )
    .unwrap();
    becomes(&world, &token, 401).await;
    world.server.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_a_file_are_taken_up_when_it_changes() {
    let (a, b) = (key(), key());
    let world = World::with(MANY_FAILURES, ROUTES).await;
    let says = |key: &SigningKey| {
        let (next, text) = (world.path("next"), json!({ "keys": [key.public().to_jwk()] }).to_string());
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, world.path("login.jwks")).unwrap();
    };
    says(&a);
    let routes = std::fs::read_to_string(world.path("routes.toml")).unwrap();
    let block = "\n[[issuers]]\nissuer = \"https://login.test\"\njwks_file = \"login.jwks\"\naudiences = [\"https://api.test\"]\n\
                 algorithms = [\"ES256\"]\npractice_claim = \"org\"\nuser_claim = \"sub\"\n";
    std::fs::write(world.path("routes.toml"), routes + block).unwrap();
    becomes(&world, &token(&a), 200).await;
    says(&b);
    becomes(&world, &token(&a), 401).await;
    assert_eq!(status(&world, "/billing", &token(&b)).await, 200);
    world.server.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_its_keys_at_a_url() {
    let (keys, own) = (Keys::default(), key());
    keys.say(Some(&[&own]));
    let url = format!("http://{}/keys", keys.start().await);
    let settings = format!("[oauth]\nmaster_key = \"{MASTER_KEY}\"\nkey_networks = [\"127.0.0.0/8\"]\n");
    let mut world = World::with(&settings, ROUTES).await;
    let lifecycle = world.lifecycle.clone().with_key_networks(&["127.0.0.0/8".parse().unwrap()]);
    let id = world.apps["billing"].id;
    let has_keys = |keys: ClientKeys| {
        let (lifecycle, by) = (lifecycle.clone(), world.by.clone());
        async move { lifecycle.edit(id, ClientEdit { keys: Some(keys), ..ClientEdit::default() }, &by).await.unwrap() }
    };
    let refused =
        world.lifecycle.edit(id, ClientEdit { keys: Some(ClientKeys::Url(url.as_str().into())), ..ClientEdit::default() }, &world.by).await;
    assert!(refused.unwrap_err().to_string().contains("127.0.0.1 is not on the public internet"));
    has_keys(ClientKeys::Url(url.as_str().into())).await;
    let endpoint = world.url("/oauth/token");
    let http = world.http.clone();
    let ask = |key: &SigningKey| {
        let claims = json!({
            "iss": id.to_text(), "sub": id.to_text(), "aud": endpoint, "exp": now().0 / 1000 + 60, "jti": format!("{:?}", std::time::Instant::now()),
        });
        let form = [
            ("grant_type", "client_credentials".to_owned()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()),
            ("client_assertion", signed(key, &claims)),
        ];
        let asked = http.post(&endpoint).form(&form);
        async move {
            let answer = asked.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
        }
    };
    let (got, document) = ask(&own).await;
    assert_eq!(got, 200, "{document}");
    let token = document["access_token"].as_str().unwrap().to_owned();
    assert_eq!(status(&world, "/billing", &token).await, 200);
    let (got, document) = ask(&key()).await;
    assert_eq!((got, document["error"].as_str()), (401, Some("invalid_client")));
    let asked = keys.asked.load(Ordering::SeqCst);
    keys.say(None);
    assert_eq!(ask(&own).await.0, 200, "kept for a while");
    assert_eq!(keys.asked.load(Ordering::SeqCst), asked);
    // Tokens that were got with keys from there end when the client has them elsewhere.
    let elsewhere = Keys::default();
    let other = format!("http://{}/keys", elsewhere.start().await);
    has_keys(ClientKeys::Url(other.as_str().into())).await;
    assert_eq!(status(&world, "/billing", &token).await, 401);
    let (got, document) = ask(&own).await;
    assert_eq!((got, document["code"].as_str()), (503, Some("unavailable")), "whether it is the client cannot be told");
    has_keys(ClientKeys::None).await;
    assert_eq!(ask(&own).await.0, 401);
    world.server.take().unwrap().stop().await;
}
