//! A data plane on loopback, its upstream, and a client that speaks in bytes.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tokio::time::timeout;

use crate::bearer::Bearers;
use crate::cache::Replica;
use crate::clock::{Timestamp, boot_time};
use crate::credential::Secret;
use crate::entity::{ApiAccess, Client as Entity, ClientKeys, Practice, StoredSecret};
use crate::gate::{self, FailureBudget, Gate};
use crate::id::{ClientId, Revision, RouteId};
use crate::limit::{Allowance, Tier, TierNames};
use crate::proxy::live::Inflight;
use crate::proxy::{Active, Bound, Settings, Shared, start_on};
use crate::record::{Record, Recorder};
use crate::route::{MethodSet, Requirement, Route, RouteTable};
use crate::scope::{ScopeRegistry, ScopeToken};
use crate::store::Snapshot;
use crate::tls;
use crate::upstream::{self, Server, Upstream};

/// Long enough for anything that happens at all.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that the tests call by name: `Bearer good` in a request stands for its credential.
struct App {
    name: &'static str,
    n: u8,
    scope: &'static str,
    tier: Option<&'static str>,
    secret: Secret,
}

static APPS: LazyLock<[App; 3]> = LazyLock::new(|| {
    let app = |name, n, scope, tier| App { name, n, scope, tier, secret: Secret::generate() };
    [app("good", 0, "billing", None), app("narrow", 1, "tasks", None), app("often", 2, "billing", Some("one"))]
});

impl App {
    fn id(&self) -> ClientId {
        ClientId::from_random([self.n; 20])
    }

    fn client(&self) -> Entity {
        Entity {
            id: self.id(),
            practice_id: "p1".parse().unwrap(),
            owner: None,
            name: self.name.into(),
            scopes: vec![self.scope.parse().unwrap()],
            allowed_addresses: vec![],
            tier: self.tier.map(Into::into),
            created_at: Timestamp(0),
            expires_at: None,
            revoked_at: None,
            secrets: vec![StoredSecret {
                generation: 1,
                digest: self.secret.digest(None),
                created_at: Timestamp(0),
                expires_at: None,
                ended: false,
            }],
            keys: ClientKeys::None,
        }
    }
}

/// The row of a client, revoked.
pub fn revoked(name: &str) -> Entity {
    Entity { revoked_at: Some(Timestamp(1)), ..APPS.iter().find(|app| app.name == name).unwrap().client() }
}

/// The credential of a client.
pub fn authorization(name: &str) -> String {
    let app = APPS.iter().find(|app| app.name == name).unwrap();
    format!("Basic {}", STANDARD.encode(format!("{}:{}", app.id(), app.secret.reveal())))
}

fn with_credentials(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for app in &*APPS {
        let stands = format!("Bearer {}", app.name);
        while let Some(at) = bytes.windows(stands.len()).position(|w| w == stands.as_bytes()) {
            bytes.splice(at..at + stands.len(), authorization(app.name).into_bytes());
        }
    }
    bytes
}

pub struct World {
    pub address: SocketAddr,
    pub replica: Arc<Replica>,
    pub stalled: TcpListener,
    _filling: TcpStream,
    pub active: Arc<Active>,
    pub inflight: Arc<Inflight>,
    /// Each notice has the upstream send one more piece of each stream.
    pub more: Arc<Notify>,
    requests: Arc<AtomicUsize>,
    seen: Mutex<mpsc::UnboundedReceiver<String>>,
    records: Mutex<mpsc::UnboundedReceiver<String>>,
    stop: watch::Sender<bool>,
}

struct Notes(mpsc::UnboundedSender<String>);

impl Recorder for Notes {
    fn record(&self, r: &Record<'_>) {
        assert!(!r.request_id.is_empty());
        let _ = self.0.send(format!(
            "{} {} {} {} {:?} {:?}",
            r.outcome,
            r.status,
            r.method,
            r.path,
            r.route.map(|route| route.prefix.as_str()),
            r.practice
        ));
    }
}

impl World {
    pub async fn start() -> Self {
        Self::with(Settings::default()).await
    }

    pub async fn with(settings: Settings) -> Self {
        Self::build(settings, None, &[Handle::current()]).await
    }

    /// Served by these runtimes in turn.
    pub async fn on(runtimes: &[Handle]) -> Self {
        Self::build(Settings::default(), None, runtimes).await
    }

    pub async fn start_tls() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (folder.path().join("c"), folder.path().join("k"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        Self::build(Settings::default(), Some((&cert, &key)), &[Handle::current()]).await
    }

    async fn build(settings: Settings, tls: Option<(&Path, &Path)>, runtimes: &[Handle]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let (to_seen, seen) = mpsc::unbounded_channel();
        let requests = Arc::new(AtomicUsize::new(0));
        let more = Arc::<Notify>::default();
        let up = upstream(to_seen, Arc::clone(&requests), Arc::clone(&more)).await;
        let down = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        // A socket whose queue is full: a connection to it is made only once somebody takes from the queue.
        let stalled = tokio::net::TcpSocket::new_v4().unwrap();
        stalled.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let stalled = stalled.listen(0).unwrap();
        let filling = TcpStream::connect(stalled.local_addr().unwrap()).await.unwrap();
        let route = |n: u16, prefix: &str, servers: &[SocketAddr], requirement: Requirement, methods: MethodSet| Route {
            id: route_id(n),
            prefix: prefix.parse().unwrap(),
            methods,
            requirement,
            scopes: "billing".into(),
            upstream: Arc::new(Upstream::new(
                prefix,
                upstream::Settings {
                    connect_timeout: PATIENCE,
                    response_timeout: if prefix == "/billing/stream" { PATIENCE } else { Duration::from_millis(1500) },
                    // No certificate: the configuration refuses it, and here it stands for whatever else could panic.
                    trust: (prefix == "/open/panic").then(|| Arc::new(upstream::Trust::new(Some(vec![b"none".to_vec().into()]), None))),
                    ..upstream::Settings::default()
                },
                // Only what TLS is spoken with is verified at all.
                servers
                    .iter()
                    .map(|address| Server::new(*address, (prefix == "/open/panic").then(|| "x".into()), "http://x".into()))
                    .collect(),
            )),
            allow_path_parameters: false,
            websocket: false,
            forward_authorization: false,
            body_limit_bytes: 1000,
            stale_grace: Duration::ZERO,
        };
        let routes = vec![
            route(0, "/billing", &[up], Requirement::Public, MethodSet::ALL),
            route(1, "/open", &[up], Requirement::Public, MethodSet::ALL),
            route(2, "/down", &[down], Requirement::Public, MethodSet::ALL),
            route(3, "/half", &[down, up], Requirement::Public, MethodSet::ALL),
            route(4, "/stalled", &[stalled.local_addr().unwrap()], Requirement::Public, MethodSet::ALL),
            route(5, "/open/panic", &[up], Requirement::Public, MethodSet::ALL),
            route(6, "/billing/stream", &[up], Requirement::Public, MethodSet::ALL),
        ];
        let (registry, tiers) = (Arc::new(ScopeRegistry::default()), Arc::new(TierNames::default()));
        let billing: ScopeToken = "billing".parse().unwrap();
        let billing = registry.intern(&billing).unwrap();
        let mut routes = routes;
        routes[0].requirement = Requirement::AnyOf(billing);
        routes[4].requirement = Requirement::AnyOf(billing);
        routes[6].requirement = Requirement::AnyOf(billing);
        let replica = Arc::new(Replica::new(Arc::clone(&registry), Arc::clone(&tiers)));
        let practice = Practice { id: "p1".parse().unwrap(), name: "Practice".into(), api_access: ApiAccess::Active };
        let clients = APPS.iter().map(App::client).collect();
        replica.replace(Snapshot { head: Revision(1), practices: vec![practice], clients, ..Snapshot::default() });
        replica.extend_lease(boot_time().after(Duration::from_secs(3600)));
        let many = NonZeroU32::new(1_000_000).unwrap();
        let bearers = Arc::new(Bearers::new(Arc::clone(&replica), registry, None));
        let budget = FailureBudget { per_minute: many, burst: many };
        let gate = Arc::new(Gate::new(Arc::clone(&replica), tiers, budget, None, bearers));
        let tier = |name: &str, per_second: u32, burst: u32| Tier {
            name: name.into(),
            rate: Allowance { per_second: NonZeroU32::new(per_second).unwrap(), burst: NonZeroU32::new(burst).unwrap() },
            practice: None,
            concurrent: None,
        };
        gate.install(Arc::new(RouteTable::new(routes, false).unwrap()), [tier("standard", 50, 100), tier("one", 1, 1)]);
        // Used up before the test begins.
        let often = authorization("often");
        let request =
            gate::Request { method: b"GET", target: b"/billing", authorization: Some(often.as_bytes()), peer: [127, 0, 0, 1].into() };
        assert!(gate.decide(&request).outcome.is_ok());
        let (to_records, records) = mpsc::unbounded_channel();
        let shared = Shared::new(Arc::clone(&gate), Arc::new(Notes(to_records)), settings);
        let active = shared.active();
        let inflight = Arc::clone(&shared.inflight);
        let tls = tls.map(|(certificate, key)| {
            let first = tls::Pair { certificate: certificate.to_owned(), key: key.to_owned() };
            let listening = tls::Listening { first, more: Vec::new(), lowest: tls::Lowest::V12, client_authorities: None };
            Arc::new(tls::Live::load(listening).unwrap())
        });
        let bound = Bound::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), tls).unwrap();
        let address = bound.address();
        let (stop, stopped) = watch::channel(false);
        start_on(vec![bound], shared, &stopped, runtimes).unwrap();
        Self {
            address,
            replica,
            stalled,
            _filling: filling,
            active,
            inflight,
            more,
            requests,
            seen: Mutex::new(seen),
            records: Mutex::new(records),
            stop,
        }
    }

    pub async fn connect(&self) -> Client {
        Client { stream: TcpStream::connect(self.address).await.unwrap(), ahead: Vec::new() }
    }

    /// One request on a connection of its own; the answer.
    pub async fn send(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        client.write(request).await;
        client.answer().await
    }

    /// The next request that the upstream saw.
    pub async fn seen(&self) -> String {
        timeout(PATIENCE, self.seen.lock().await.recv()).await.expect("the upstream sees something").unwrap()
    }

    pub async fn record(&self) -> String {
        timeout(PATIENCE, self.records.lock().await.recv()).await.expect("a record is made").unwrap()
    }

    pub fn upstream_requests(&self) -> usize {
        self.requests.load(Ordering::Acquire)
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

fn route_id(n: u16) -> RouteId {
    RouteId(n.into())
}

pub struct Client {
    stream: TcpStream,
    ahead: Vec<u8>,
}

impl Client {
    pub async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(&with_credentials(bytes)).await.unwrap();
    }

    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        // A close shows itself to a reader first.
        let mut byte = [0];
        if self.stream.try_read(&mut byte).is_ok() {
            return false;
        }
        self.stream.write_all(bytes).await.is_ok()
    }

    pub async fn close_write(&mut self) {
        self.stream.shutdown().await.unwrap();
    }

    pub async fn head(&mut self) -> String {
        let end = loop {
            if let Some(end) = self.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            let n = timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await.expect("an answer comes").unwrap_or(0);
            if n == 0 {
                return String::from_utf8_lossy(&std::mem::take(&mut self.ahead)).into_owned();
            }
        };
        let rest = self.ahead.split_off(end);
        String::from_utf8(std::mem::replace(&mut self.ahead, rest)).unwrap()
    }

    /// One answer, with a body of its `Content-Length`.
    pub async fn answer(&mut self) -> String {
        let mut answer = self.head().await;
        let length: usize = header(&answer, "content-length").map_or(0, |v| v.parse().unwrap());
        while self.ahead.len() < length {
            let n = timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await.expect("a body comes").unwrap();
            assert!(n > 0, "{answer}");
        }
        let rest = self.ahead.split_off(length);
        answer.push_str(&String::from_utf8(std::mem::replace(&mut self.ahead, rest)).unwrap());
        answer
    }

    /// Reads on until `text` has come.
    pub async fn until(&mut self, text: &str) -> String {
        loop {
            let so_far = String::from_utf8_lossy(&self.ahead).into_owned();
            if so_far.contains(text) {
                self.ahead.clear();
                return so_far;
            }
            let n = timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await.expect("more comes").unwrap();
            assert!(n > 0, "closed after {so_far}");
        }
    }

    /// Everything until the connection is closed.
    pub async fn rest(&mut self) -> String {
        loop {
            match timeout(PATIENCE, self.stream.read_buf(&mut self.ahead)).await.expect("the connection is closed") {
                Ok(0) | Err(_) => return String::from_utf8_lossy(&std::mem::take(&mut self.ahead)).into_owned(),
                Ok(_) => {}
            }
        }
    }
}

pub fn status(answer: &str) -> u16 {
    answer.get(9..12).and_then(|code| code.parse().ok()).unwrap_or(0)
}

pub fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let head = message.split("\r\n\r\n").next().unwrap_or_default();
    let mut found = head.split("\r\n").skip(1).filter_map(|line| line.split_once(':')).filter(|(n, _)| n.eq_ignore_ascii_case(name));
    let value = found.next().map(|(_, value)| value.trim());
    // The second `WWW-Authenticate` is meant.
    assert!(found.next().is_none() || name == "www-authenticate", "{name} stands twice: {message}");
    value
}

async fn upstream(seen: mpsc::UnboundedSender<String>, requests: Arc<AtomicUsize>, more: Arc<Notify>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (seen, requests, more) = (seen.clone(), Arc::clone(&requests), Arc::clone(&more));
            tokio::spawn(async move {
                let mut client = Client { stream, ahead: Vec::new() };
                loop {
                    let mut request = String::new();
                    let Ok(()) = read_request(&mut client, &mut request, &requests).await else { return };
                    let (slow, hang) = (request.contains("/slow "), request.contains(" /open/hang "));
                    let stream = request.contains("/stream ");
                    let _ = seen.send(request);
                    if slow {
                        std::future::pending::<()>().await;
                    }
                    if stream {
                        let _ = client.stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
                        while client.stream.write_all(b"5\r\npiece\r\n").await.is_ok() {
                            more.notified().await;
                        }
                        return;
                    }
                    let head: &[u8] = if hang {
                        b"HTTP/1.1 100 Continue\r\n\r\n"
                    } else {
                        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: upstream\r\n\r\nok"
                    };
                    if client.stream.write_all(head).await.is_err() {
                        return;
                    }
                    if hang {
                        std::future::pending::<()>().await;
                    }
                }
            });
        }
    });
    address
}

async fn read_request(client: &mut Client, request: &mut String, requests: &AtomicUsize) -> Result<(), ()> {
    let more = async |client: &mut Client| match client.stream.read_buf(&mut client.ahead).await {
        Ok(0) | Err(_) => Err(()),
        Ok(_) => Ok(()),
    };
    let end = loop {
        if let Some(end) = client.ahead.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        more(client).await?;
    };
    requests.fetch_add(1, Ordering::AcqRel);
    let head = String::from_utf8_lossy(&client.ahead[..end]).into_owned();
    let length = if header(&head, "transfer-encoding").is_some() {
        loop {
            if let Some(last) = client.ahead[end..].windows(5).position(|w| w == b"0\r\n\r\n") {
                break last + 5;
            }
            more(client).await?;
        }
    } else {
        header(&head, "content-length").map_or(0, |v| v.parse().unwrap())
    };
    while client.ahead.len() < end + length {
        more(client).await?;
    }
    let rest = client.ahead.split_off(end + length);
    *request = String::from_utf8_lossy(&std::mem::replace(&mut client.ahead, rest)).into_owned();
    Ok(())
}
