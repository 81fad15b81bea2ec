//! A practice with clients in a PostgreSQL, and an upstream: what gateways are started on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use sigmagate::id::{ClientId, PracticeId};
use sigmagate::lifecycle::{Lifecycle, NewClientRequest};
use sigmagate::store::{Actor, Fleet, PgStore};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use tokio::time::sleep;

use crate::fleet::Gateway;
use crate::link::Link;
use crate::load::{self, Clock, Connection};

pub struct World {
    pub lifecycle: Lifecycle,
    pub conn: PgConnection,
    database: String,
    dir: tempfile::TempDir,
    upstream: SocketAddr,
    pub by: Actor,
}

/// A client and what it says of itself.
pub struct App {
    pub id: ClientId,
    pub authorization: String,
}

impl World {
    /// In an empty database.
    pub async fn new(url: &str) -> Self {
        let world = Self::at(url).await;
        world.lifecycle.put_practice(&practice(), "Practice", &world.by).await.unwrap();
        world.lifecycle.approve(&practice(), &world.by).await.unwrap();
        world
    }

    /// In a database where everything is.
    pub async fn at(url: &str) -> Self {
        sigmagate::tls::install_provider();
        Self {
            lifecycle: Lifecycle::new(Arc::new(PgStore::open(url, &Fleet::default(), true).await.unwrap()), None),
            conn: url.parse::<PgConnectOptions>().unwrap().connect().await.unwrap(),
            database: url.rsplit('/').next().unwrap().to_owned(),
            dir: tempfile::tempdir().unwrap(),
            upstream: load::upstream(Clock(Instant::now())).await,
            by: Actor { name: "operator".into(), origin: "test".into() },
        }
    }

    pub async fn client(&self) -> App {
        let new = NewClientRequest::new(practice(), "app", vec!["billing".parse().unwrap()]);
        let issued = self.lifecycle.create_client(new, &self.by).await.unwrap();
        App { id: issued.client.id, authorization: basic(issued.client.id, issued.secret.reveal()) }
    }

    /// Revokes it, and waits for the receipt.
    pub async fn revoke(&self, app: &App) {
        self.lifecycle.revoke(app.id, &self.by).await.unwrap();
    }

    /// A gateway that is not started yet.
    pub fn gateway(&self, link: Link, store: &str) -> Arc<Gateway> {
        let dir = self.dir.path().join(link.address.port().to_string());
        Arc::new(Gateway::new(&dir, link, &self.database, store, self.upstream))
    }

    pub async fn sql(&mut self, text: &str) {
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut self.conn).await.unwrap();
    }

    /// Waits for a state, looking again and again.
    pub async fn until(&mut self, question: &'static str) {
        for _ in 0..4000 {
            if sqlx::query_scalar::<_, bool>(question).fetch_one(&mut self.conn).await.unwrap() {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("waited in vain: {question}");
    }
}

pub fn practice() -> PracticeId {
    "p".parse().unwrap()
}

pub fn basic(id: impl std::fmt::Display, secret: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}")))
}

/// How a gateway answers this client.
pub async fn status(gateway: &Gateway, authorization: &str) -> u16 {
    Connection::default().ask(gateway.address().unwrap(), authorization).await
}

/// Asks until the answer is `wanted`; the answers that came before it.
pub async fn answers_until(gateway: &Gateway, authorization: &str, wanted: u16) -> Vec<u16> {
    let mut before = Vec::new();
    for _ in 0..4000 {
        match status(gateway, authorization).await {
            answer if answer == wanted => return before,
            answer => before.push(answer),
        }
        sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain for {wanted}: {before:?}");
}
