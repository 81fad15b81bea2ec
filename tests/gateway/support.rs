//! A gateway with everything around it, on ports and in a folder of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use parking_lot::Mutex;
use sigmagate::config::{self, Sources};
use sigmagate::credential::Secret;
use sigmagate::entity::Role;
use sigmagate::id::{ClientId, PracticeId, UserId};
use sigmagate::lifecycle::{Issued, Lifecycle, NewClientRequest};
use sigmagate::scope::ScopeRegistry;
use sigmagate::server::Server;
use sigmagate::store::{self, Actor};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::postgres::Postgres;

/// What the upstream saw of one request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl Seen {
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn one(&self, name: &str) -> &str {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "`{name}` in {:?}", self.headers);
        all[0]
    }
}

#[derive(Clone, Default)]
pub struct Upstream {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Upstream {
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock())
    }

    pub fn untouched(&self) -> bool {
        self.seen.lock().is_empty()
    }

    async fn start(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }
}

async fn answer(State(upstream): State<Upstream>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    upstream.seen.lock().push(Seen { target: head.uri.to_string(), headers: headers.collect(), body });
    if head.uri.path().starts_with("/slow") {
        std::future::pending::<()>().await;
    }
    ([("server", "upstream"), ("x-request-id", "upstream-own")], "served").into_response()
}

/// A client of the world, ready to call.
#[derive(Clone)]
pub struct App {
    pub id: ClientId,
    pub secret: String,
}

/// One server for the databases of all tests.
static SERVER: LazyLock<Postgres> = LazyLock::new(|| Postgres::start(&[]));

/// Where a world keeps things.
#[derive(Clone, Copy, Debug)]
pub enum Database {
    Sqlite,
    Postgres,
}

pub struct World {
    pub dir: TempDir,
    database: String,
    pub server: Option<Server>,
    pub lifecycle: Lifecycle,
    pub upstream: Upstream,
    pub http: reqwest::Client,
    pub practice: PracticeId,
    pub member: UserId,
    pub apps: BTreeMap<&'static str, App>,
    pub by: Actor,
}

/// Whoever waits for an answer to become another one asks often.
pub const MANY_FAILURES: &str = "[limits.failed_authentications]\nper_minute = 1000000\nburst = 1000000\n";

pub const ROUTES: &str = r#"
scopes = ["billing", "clinical"]

[upstreams.core]
servers = ["http://CORE"]

[upstreams.slow]
servers = ["http://CORE"]
response_timeout_ms = 200

[upstreams.down]
servers = ["http://DOWN"]

[[routes]]
prefix = "/billing"
scopes = ["billing"]
upstream = "core"

[[routes]]
prefix = "/patients"
methods = ["GET", "HEAD"]
scopes = ["clinical"]
upstream = "core"

[[routes]]
prefix = "/small"
scopes = ["billing"]
upstream = "core"
body_limit_bytes = 10

[[routes]]
prefix = "/slow"
scopes = ["billing"]
upstream = "slow"

[[routes]]
prefix = "/down"
scopes = ["billing"]
upstream = "down"

[[routes]]
prefix = "/docs"
public = true
upstream = "core"

[tiers.one]
per_second = 1
burst = 1
"#;

/// A port where nobody listens, held so that nobody else is given it either.
fn closed_port() -> (SocketAddr, std::net::TcpListener) {
    // Bound, and connected to by nobody: a listener whose queue is never read would accept, so the port is only bound.
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    (socket.local_addr().unwrap(), socket)
}

impl World {
    pub async fn new() -> Self {
        Self::with("", ROUTES).await
    }

    /// A world whose `gateway.toml` has these lines too.
    pub async fn with(settings: &str, routes: &str) -> Self {
        Self::on(Database::Sqlite, settings, routes).await
    }

    /// A world on one store or the other.
    pub async fn on(database: Database, settings: &str, routes: &str) -> Self {
        sigmagate::tls::install_provider();
        let dir = tempfile::tempdir().unwrap();
        let upstream = Upstream::default();
        let core = upstream.start().await;
        let (down, held) = closed_port();
        drop(held);
        let routes = routes.replace("CORE", &core.to_string()).replace("DOWN", &down.to_string());
        std::fs::write(dir.path().join("routes.toml"), routes).unwrap();
        let (database, mail) = match database {
            Database::Sqlite => (format!("sqlite://{}", dir.path().join("gateway.db").display()), ""),
            // As beside a file, so that mail is found in the same place.
            Database::Postgres => (tokio::task::spawn_blocking(|| SERVER.database()).await.unwrap(), "[mail]\nfolder = \"mail\"\n"),
        };
        let listeners = if settings.contains("[[listeners]]") { "" } else { "[[listeners]]\naddress = \"127.0.0.1:0\"\n" };
        let text = format!(
            "{listeners}[management]\naddress = \"127.0.0.1:0\"\n[store]\nurl = \"{database}\"\n[telemetry]\naccess_log = false\n{mail}{}",
            settings.replace("DIR", &dir.path().display().to_string()),
        );
        std::fs::write(dir.path().join("gateway.toml"), text).unwrap();
        let sources = Sources { gateway: Some(dir.path().join("gateway.toml")), routes: dir.path().join("routes.toml") };
        let registry = Arc::new(ScopeRegistry::default());
        let config = config::load(&sources, std::iter::empty(), &registry).unwrap();
        let store = store::open(&database, &config.gateway.store.fleet, true).await.unwrap();
        let lifecycle = Lifecycle::new(Arc::clone(&store), config.gateway.store.secret_pepper.clone());
        let server = Server::start(config, &sources, registry, store).await.unwrap();
        let http = reqwest::Client::builder().no_proxy().http1_only().build().unwrap();
        let mut world = Self {
            dir,
            database,
            server: Some(server),
            lifecycle,
            upstream,
            http,
            practice: "practice-1".parse().unwrap(),
            member: "member-1".parse().unwrap(),
            apps: BTreeMap::new(),
            by: Actor { name: "operator".into(), origin: "test".into() },
        };
        world.provision().await;
        world
    }

    /// The store, the files and the upstream of a world, for a gateway in a process of its own.
    pub async fn without_gateway(settings: &str, routes: &str) -> Self {
        Self::without_gateway_on(Database::Sqlite, settings, routes).await
    }

    /// The same, on one store or the other.
    pub async fn without_gateway_on(database: Database, settings: &str, routes: &str) -> Self {
        let mut world = Self::on(database, settings, routes).await;
        world.server.take().unwrap().stop().await;
        world
    }

    async fn provision(&mut self) {
        let (practice, member) = (self.practice.clone(), self.member.clone());
        self.lifecycle.put_practice(&practice, "Clinic", &self.by).await.unwrap();
        self.lifecycle.approve(&practice, &self.by).await.unwrap();
        self.lifecycle.put_user(&practice, &member, Role::Member, &self.by).await.unwrap();
        self.lifecycle.set_user_access(&member, true, &self.by).await.unwrap();
        for (name, scope) in [
            ("billing", "billing"),
            ("clinical", "clinical"),
            ("all", "all"),
            ("personal", "billing"),
            ("listed", "billing"),
            ("limited", "billing"),
            ("revoked", "billing"),
        ] {
            let mut new = NewClientRequest::new(practice.clone(), name, vec![scope.parse().unwrap()]);
            new.owner = (name == "personal").then(|| member.clone());
            new.allowed_addresses = if name == "listed" { vec!["10.0.0.0/8".parse().unwrap()] } else { vec![] };
            new.tier = (name == "limited").then(|| "one".to_owned());
            let Issued { client, secret, .. } = self.lifecycle.create_client(new, &self.by).await.unwrap();
            self.apps.insert(name, App { id: client.id, secret: secret.reveal().to_owned() });
        }
        self.lifecycle.revoke(self.apps["revoked"].id, &self.by).await.unwrap();
    }

    pub fn address(&self) -> SocketAddr {
        self.server.as_ref().unwrap().addresses()[0]
    }

    pub fn management(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.as_ref().unwrap().management_address())
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    pub fn request(&self, method: &str, path: &str, app: &str) -> reqwest::RequestBuilder {
        let app = &self.apps[app];
        self.http.request(method.parse().unwrap(), self.url(path)).basic_auth(app.id, Some(&app.secret))
    }

    pub async fn status(&self, path: &str, app: &str) -> u16 {
        self.request("GET", path, app).send().await.unwrap().status().as_u16()
    }

    pub fn authorization(&self, app: &str) -> String {
        use base64::Engine;
        let app = &self.apps[app];
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", app.id, app.secret)))
    }

    /// The value of a series, once there is one.
    pub async fn metric(&self, series: &str) -> f64 {
        loop {
            let text = self.http.get(self.management("/metrics")).send().await.unwrap().text().await.unwrap();
            let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            if let Some(value) = value {
                return value.parse().unwrap();
            }
        }
    }

    pub fn database_url(&self) -> String {
        self.database.clone()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Sends bytes as they are, and reads until the gateway closes the connection.
    pub async fn raw(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = TcpStream::connect(self.address()).await.unwrap();
        stream.write_all(bytes.as_ref()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset after the answer is as good as an end.
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The program itself, in another process, on this world's store.
    pub async fn cli(&self, args: &[&str]) -> std::process::Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sigmagate"));
        command.arg("--database").arg(self.database_url()).args(args).output().await.unwrap()
    }
}

pub fn wrong_secret() -> String {
    Secret::generate().reveal().to_owned()
}
