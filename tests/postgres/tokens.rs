//! Access tokens in a fleet: one gateway issues them, every one believes them, and when one ends it ends everywhere.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use serde_json::Value;
use sigmagate::entity::Role;
use sigmagate::id::{KeyId, UserId};
use sigmagate::lifecycle::{Issued, NewClientRequest, Overlap};
use sigmagate::token::{Algorithm, MasterKey};

use crate::fleet::Gateway;
use crate::link::{Link, Mode};
use crate::load::Connection;
use crate::support::Postgres;
use crate::world::{App, World, basic, practice};

const NODES: usize = 3;
const MASTER_KEY: [u8; 32] = [7; 32];
/// How much later the last node hears of everything: whoever does not wait for it is found out.
const LATE: Duration = Duration::from_millis(100);

/// Gateways that issue tokens under one name.
struct Nodes {
    world: World,
    gateways: Vec<Arc<Gateway>>,
    http: reqwest::Client,
    _server: Postgres,
}

impl Nodes {
    async fn start() -> Self {
        let server = Postgres::start(&[]);
        let world = World::new(&server.database()).await;
        let settings = format!(
            "lease_ms = 60000\nheartbeat_ms = 100\n[oauth]\nissuer = \"https://gw.test\"\nmaster_key = \"{}\"",
            STANDARD.encode(MASTER_KEY)
        );
        let mut gateways = Vec::new();
        for _ in 0..NODES {
            gateways.push(world.gateway(Link::to(server.port()).await, &settings));
        }
        join_all(gateways.iter().map(|gateway| gateway.start())).await;
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let nodes = Self { world, gateways, http, _server: server };
        nodes.last().link.set(Mode::Pass, Mode::Delay(LATE));
        nodes
    }

    fn last(&self) -> &Gateway {
        &self.gateways[NODES - 1]
    }

    fn url(&self, node: usize, path: &str) -> String {
        format!("http://{}{path}", self.gateways[node].address().unwrap())
    }

    async fn post(&self, node: usize, path: &str, app: &App, form: String) -> (u16, Value) {
        let request = self.http.post(self.url(node, path)).header("authorization", &app.authorization);
        let answer = request.header("content-type", "application/x-www-form-urlencoded").body(form).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn token(&self, node: usize, app: &App) -> Token {
        let (status, document) = self.post(node, "/oauth/token", app, "grant_type=client_credentials".to_owned()).await;
        assert_eq!(status, 200, "node {node}: {document}");
        Token(document["access_token"].as_str().unwrap().to_owned())
    }

    /// How each node answers this token, all of them asked at the same time.
    async fn answers(&self, token: &Token) -> Vec<u16> {
        let bearer = format!("Bearer {}", token.0);
        let ask = async |gateway: &Gateway| Connection::default().ask(gateway.address().unwrap(), &bearer).await;
        join_all(self.gateways.iter().map(|gateway| ask(gateway))).await
    }

    async fn all_answer(&self, token: &Token, wanted: u16, of: &str) {
        assert_eq!(self.answers(token).await, [wanted; NODES], "{of}");
    }

    /// Which keys a node tells others of.
    async fn published(&self, node: usize) -> BTreeSet<String> {
        let document: Value = self.http.get(self.url(node, "/.well-known/jwks.json")).send().await.unwrap().json().await.unwrap();
        document["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    async fn rotate(&self, ahead: Duration) -> KeyId {
        let master = MasterKey::parse(&STANDARD.encode(MASTER_KEY)).unwrap();
        self.world.lifecycle.rotate_signing_key(&master, Algorithm::EdDsa, ahead, &self.world.by).await.unwrap().id
    }

    /// A client of a user's own.
    async fn personal(&self, user: &UserId) -> App {
        let World { lifecycle, by, .. } = &self.world;
        lifecycle.put_user(&practice(), user, Role::Member, by).await.unwrap();
        lifecycle.set_user_access(user, true, by).await.unwrap();
        let mut new = NewClientRequest::new(practice(), "personal", vec!["billing".parse().unwrap()]);
        new.owner = Some(user.clone());
        let Issued { client, secret, .. } = lifecycle.create_client(new, by).await.unwrap();
        App { id: client.id, authorization: basic(client.id, secret.reveal()) }
    }
}

struct Token(String);

impl Token {
    /// Which key has signed it.
    fn kid(&self) -> String {
        let header = URL_SAFE_NO_PAD.decode(self.0.split('.').next().unwrap()).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_a_call_has_returned_no_node_accepts_what_it_has_ended() {
    let nodes = Nodes::start().await;
    let World { lifecycle, by, .. } = &nodes.world;
    let bystander = nodes.world.client().await;
    let untouched = nodes.token(0, &bystander).await;
    // Every node knows a token before it ends, and has answered it by heart.
    let known = async |node: usize, app: &App| {
        let token = nodes.token(node, app).await;
        nodes.all_answer(&token, 200, "issued by one, believed by all").await;
        nodes.all_answer(&token, 200, "and once more").await;
        token
    };

    let app = nodes.world.client().await;
    let (token, another) = (known(0, &app).await, known(1, &app).await);
    let (status, document) = nodes.post(0, "/oauth/revoke", &app, format!("token={}", token.0)).await;
    nodes.all_answer(&token, 401, "the token").await;
    assert_eq!((status, document.to_string().as_str()), (200, "{}"));
    nodes.all_answer(&another, 200, "not another one of its client").await;

    let (status, _) = nodes.post(NODES - 1, "/oauth/revoke", &app, format!("token={}", another.0)).await;
    nodes.all_answer(&another, 401, "the token, at the node that is late").await;
    assert_eq!(status, 200);

    let token = known(0, &app).await;
    lifecycle.rotate(app.id, Overlap::None, by).await.unwrap();
    nodes.all_answer(&token, 401, "the secret, by another one").await;

    let app = nodes.world.client().await;
    let token = known(1, &app).await;
    lifecycle.end_secret(app.id, 1, by).await.unwrap();
    nodes.all_answer(&token, 401, "the secret").await;

    let app = nodes.world.client().await;
    let token = known(2, &app).await;
    nodes.world.revoke(&app).await;
    nodes.all_answer(&token, 401, "the client").await;

    let user = "member".parse().unwrap();
    let app = nodes.personal(&user).await;
    let token = known(0, &app).await;
    lifecycle.set_user_access(&user, false, by).await.unwrap();
    nodes.all_answer(&token, 403, "the owner's access").await;
    lifecycle.set_user_access(&user, true, by).await.unwrap();
    nodes.all_answer(&token, 200, "and back").await;
    lifecycle.remove_user(&user, by).await.unwrap();
    nodes.all_answer(&token, 403, "the owner").await;

    nodes.all_answer(&untouched, 200, "nobody else").await;
    lifecycle.disable(&practice(), by).await.unwrap();
    nodes.all_answer(&untouched, 403, "the practice").await;
    lifecycle.enable(&practice(), by).await.unwrap();
    nodes.all_answer(&untouched, 200, "and back").await;

    let other_key = nodes.rotate(Duration::ZERO).await;
    let (old, new) = (untouched, known(1, &bystander).await);
    assert!(new.kid() == other_key.as_str() && old.kid() != new.kid());
    lifecycle.revoke_signing_key(&old.kid().parse().unwrap(), by).await.unwrap();
    nodes.all_answer(&old, 401, "the key that signs no more").await;
    nodes.all_answer(&new, 200, "not the one that does").await;
    lifecycle.revoke_signing_key(&other_key, by).await.unwrap();
    nodes.all_answer(&new, 401, "the key").await;
    let key = nodes.rotate(Duration::ZERO).await;
    for node in 0..NODES {
        assert_eq!(known(node, &bystander).await.kid(), key.as_str(), "after it, another");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_node_signs_by_a_key_that_another_one_does_not_know() {
    let nodes = Nodes::start().await;
    let app = nodes.world.client().await;
    let old = nodes.token(0, &app).await;
    nodes.all_answer(&old, 200, "").await;

    // Planned ahead: published by all, and not in use.
    let planned = nodes.rotate(Duration::from_secs(3600)).await;
    for node in 0..NODES {
        assert!(nodes.published(node).await.is_superset(&[old.kid(), planned.to_string()].into()), "node {node}");
        assert_eq!(nodes.token(node, &app).await.kid(), old.kid(), "node {node}");
    }
    nodes.world.lifecycle.revoke_signing_key(&planned, &nodes.world.by).await.unwrap();

    // One node hears nothing: then the others, which do, wait for it, at once or not.
    nodes.last().link.set(Mode::Hold, Mode::Hold);
    let held: BTreeSet<String> = nodes.published(NODES - 1).await;
    {
        let rotating = nodes.rotate(Duration::ZERO);
        tokio::pin!(rotating);
        let others_know = async {
            loop {
                let (one, two) = (nodes.published(0).await, nodes.published(1).await);
                if one.difference(&held).count() == 1 && one == two {
                    break;
                }
            }
        };
        tokio::select! {
            key = &mut rotating => panic!("{key} signs, and one node does not know it"),
            () = others_know => {}
        }
        for node in 0..NODES {
            let token = nodes.token(node, &app).await;
            assert_eq!(token.kid(), old.kid(), "node {node}");
            nodes.all_answer(&token, 200, "a node that hears nothing, too").await;
        }
        assert_eq!(nodes.published(NODES - 1).await, held);
        nodes.last().link.set(Mode::Pass, Mode::Delay(LATE));
        let key = rotating.await;
        for node in 0..NODES {
            let token = nodes.token(node, &app).await;
            assert_eq!(token.kid(), key.as_str(), "node {node}");
            nodes.all_answer(&token, 200, "by the new key").await;
        }
    }
    nodes.all_answer(&old, 200, "by the old key, which is in use no more").await;

    // While keys take over, ahead of time and at once, every token counts everywhere from its first moment.
    for ahead in [Duration::from_millis(300), Duration::ZERO] {
        let rotating = nodes.rotate(ahead);
        tokio::pin!(rotating);
        let mut key = None;
        let mut signed = BTreeSet::new();
        while signed.len() < NODES {
            for node in 0..NODES {
                let asking = nodes.token(node, &app);
                tokio::pin!(asking);
                let token = loop {
                    tokio::select! {
                        made = &mut rotating, if key.is_none() => key = Some(made),
                        token = &mut asking => break token,
                    }
                };
                nodes.all_answer(&token, 200, "in the midst of it").await;
                if key.as_ref().is_some_and(|key| key.as_str() == token.kid()) {
                    signed.insert(node);
                }
            }
        }
    }
    nodes.all_answer(&old, 200, "two keys later").await;
}
