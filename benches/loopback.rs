//! CPU time per request of the gateway, against the same pingora forwarding everything unchecked; in turn, in one run.
//! `cargo bench --bench loopback`
//!
//! One worker thread each, keep-alive, 1 KiB answers, 10,000 clients in the store, over loopback. The proxy under test is a
//! process of its own; what it costs is its user and system time, from the kernel's account of it, divided by the requests it
//! answered. Each round measures every contender once; medians and ranges are printed. With `-- key` only the contenders
//! with that word in their name are measured, beside the floors.

#![expect(clippy::print_stdout, clippy::cast_precision_loss, reason = "a benchmark prints what it measured, as ratios of counts")]

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine;
use pingora::apps::HttpServerOptions;
use pingora::listeners::ListenerConfig;
use pingora::proxy::{ProxyHttp, ProxyServiceBuilder, Session};
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::upstreams::peer::HttpPeer;
use sigmagate::credential::Secret;
use sigmagate::lifecycle::{Issued, Lifecycle, NewClientRequest};
use sigmagate::store::{Actor, SqliteStore, Store};

const CONNECTIONS: usize = 32;
const ROUNDS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(500);
const MEASURED: Duration = Duration::from_secs(2);
const CLIENTS: usize = 10_000;

/// The floor: the same framework, the same settings, no decision.
struct Unchecked(SocketAddr);

#[async_trait]
impl ProxyHttp for Unchecked {
    type CTX = ();
    fn new_ctx(&self) {}
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}
    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

/// What the child process does when it is the floor.
fn run_unchecked(upstream: SocketAddr) {
    let conf = Arc::new(ServerConf { threads: 1, upstream_keepalive_pool_size: 256, ..ServerConf::default() });
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    let mut service = ProxyServiceBuilder::new(&conf, Unchecked(upstream)).server_options(options).build();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let mut fds = pingora::server::Fds::new();
    listener.set_nonblocking(true).expect("a socket can be made so");
    fds.add(address.clone(), std::os::fd::IntoRawFd::into_raw_fd(listener));
    service.add_listener(ListenerConfig::tcp(&address));
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let runtime = pingora_runtime::Runtime::new_no_steal(1, "unchecked");
    println!("{address}");
    runtime.get_handle().block_on(async move {
        service.start_service(Some(Arc::new(parking_lot::Mutex::new(fds))), stopped, 1).await;
    });
}

/// Answers every request with 1 KiB, as cheaply as can be.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    let answer: Arc<[u8]> =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n{}", "x".repeat(1024)).into_bytes().into();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    std::thread::spawn(move || {
        runtime.block_on(async move {
            listener.set_nonblocking(true).expect("a socket can be made so");
            let listener = tokio::net::TcpListener::from_std(listener).expect("inside a runtime");
            while let Ok((mut stream, _)) = listener.accept().await {
                let answer = Arc::clone(&answer);
                tokio::spawn(async move {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let _ = stream.set_nodelay(true);
                    let (mut buffer, mut held) = ([0; 8192], 0);
                    while let Ok(read @ 1..) = stream.read(&mut buffer[held..]).await {
                        held += read;
                        if buffer[..held].ends_with(b"\r\n\r\n") {
                            held = 0;
                            if stream.write_all(&answer).await.is_err() {
                                break;
                            }
                        }
                    }
                });
            }
        });
    });
    address
}

/// Sends the request over and over on many connections; counts the answers, each of which must have the status.
fn load(address: SocketAddr, request: &str, status: &str, during: Duration) -> (u64, Duration) {
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let begun = Instant::now();
    runtime.block_on(async {
        let mut tasks = Vec::new();
        for _ in 0..CONNECTIONS {
            let (stop, count) = (Arc::clone(&stop), Arc::clone(&count));
            let (request, status) = (request.as_bytes().to_vec(), status.to_owned());
            tasks.push(tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let mut stream = tokio::net::TcpStream::connect(address).await.expect("the proxy listens");
                stream.set_nodelay(true).expect("a TCP socket");
                let mut buffer = vec![0; 16_384];
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(&request).await.expect("the proxy reads");
                    let mut held = 0;
                    loop {
                        let read = stream.read(&mut buffer[held..]).await.expect("the proxy answers");
                        assert!(read > 0, "the proxy closed: {}", String::from_utf8_lossy(&buffer[..held]));
                        held += read;
                        if let Some(end) = complete(&buffer[..held]) {
                            assert_eq!(end, held, "one answer for one request");
                            break;
                        }
                    }
                    assert!(buffer.starts_with(status.as_bytes()), "{}", String::from_utf8_lossy(&buffer[..held]));
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
        tokio::time::sleep(during).await;
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.expect("no connection failed");
        }
    });
    (count.load(Ordering::Relaxed), begun.elapsed())
}

/// Where the first answer ends, if it is all there.
fn complete(bytes: &[u8]) -> Option<usize> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?.to_ascii_lowercase();
    let length: usize = text.split("content-length:").nth(1)?.split("\r\n").next()?.trim().parse().ok()?;
    (bytes.len() >= head + length).then_some(head + length)
}

/// User and system time of a process so far, in ticks of 10 ms.
fn cpu(child: &Child) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("the proxy runs");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a process has a name") + 2..].split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
    Duration::from_millis(ticks * 10)
}

fn memory_kib(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).expect("the proxy runs");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

struct Contender {
    name: &'static str,
    /// The contender that forwards the same request unchecked.
    floor: usize,
    address: SocketAddr,
    request: String,
    status: &'static str,
    child: usize,
    micros: Vec<f64>,
    per_second: Vec<f64>,
}

/// Ends the child whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn provision(database: &str) -> (String, String) {
    let store: Arc<dyn Store> = Arc::new(SqliteStore::open(database, true).await.expect("a new database"));
    let lifecycle = Lifecycle::new(store, None);
    let by = Actor { name: "operator".into(), origin: "bench".into() };
    let practice = "practice-1".parse().expect("an id");
    lifecycle.put_practice(&practice, "Clinic", &by).await.expect("a practice");
    lifecycle.approve(&practice, &by).await.expect("approved");
    let mut last = None;
    for n in 0..CLIENTS {
        let new = NewClientRequest::new(practice.clone(), &format!("app {n}"), vec!["billing".parse().expect("a scope")]);
        let Issued { client, secret, .. } = lifecycle.create_client(new, &by).await.expect("a client");
        last = Some((client.id, secret.reveal().to_owned()));
    }
    let (id, right) = last.expect("there are clients");
    let basic = |secret: &str| base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
    (basic(&right), basic(Secret::generate().reveal()))
}

/// A token, got as any application gets one.
fn token(address: SocketAddr, basic: &str) -> String {
    use std::io::Read;
    let form = "grant_type=client_credentials";
    let request = format!(
        "POST /oauth/token HTTP/1.1\r\nHost: {address}\r\nAuthorization: Basic {basic}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let mut stream = TcpStream::connect(address).expect("the gateway listens");
    stream.write_all(request.as_bytes()).expect("the gateway reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the gateway answers");
    answer.split("\"access_token\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a token").to_owned()
}

fn gateway(dir: &Path, upstream: SocketAddr) -> (Running, SocketAddr) {
    let routes = format!(
        "scopes = [\"billing\", \"clinical\"]\n[upstreams.core]\nservers = [\"http://{upstream}\"]\n[[routes]]\nprefix = \"/billing\"\nscopes = [\"billing\"]\nupstream = \"core\"\n\
         [[routes]]\nprefix = \"/patients\"\nscopes = [\"clinical\"]\nupstream = \"core\"\n[[routes]]\nprefix = \"/docs\"\npublic = true\nupstream = \"core\"\n"
    );
    // A port that is free now; the gateway says in its log which it took, but that log is off while it is measured.
    let port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound");
    let settings = format!(
        "[[listeners]]\naddress = \"{port}\"\n[data_plane]\nthreads = 1\n[management]\naddress = \"127.0.0.1:0\"\n[store]\nurl = \"sqlite://{}\"\n[telemetry]\nlog = \"warn\"\naccess_log = false\n\
         [limits.failed_authentications]\nper_minute = 1000000\nburst = 1000000000\n[oauth]\nmaster_key = \"{}\"\ntoken_lifetime_secs = 3600\n",
        dir.join("gateway.db").display(),
        base64::engine::general_purpose::STANDARD.encode([7; 32])
    );
    std::fs::write(dir.join("routes.toml"), routes).expect("the folder is writable");
    std::fs::write(dir.join("gateway.toml"), settings).expect("the folder is writable");
    let child = Command::new(env!("CARGO_BIN_EXE_sigmagate"))
        .arg("serve")
        .arg("--config")
        .arg(dir.join("gateway.toml"))
        .spawn()
        .expect("the gateway runs");
    let running = Running(child);
    while TcpStream::connect(port).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    (running, port)
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    if let [_, flag, upstream] = args.as_slice()
        && flag == "--unchecked"
    {
        return run_unchecked(upstream.parse().expect("an address"));
    }
    let upstream = upstream();
    let dir = tempfile::tempdir().expect("a temporary folder");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let (right, wrong) = runtime.block_on(provision(&format!("sqlite://{}", dir.path().join("gateway.db").display())));
    let (gateway, gateway_address) = gateway(dir.path(), upstream);
    let mut child = Command::new(std::env::current_exe().expect("this program has a path"))
        .args(["--unchecked", &upstream.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the floor runs");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line).expect("the floor says where it listens");
    let unchecked_address: SocketAddr = line.trim().parse().expect("an address");
    let children = [Running(child), gateway];

    let request = |path: &str, authorization: Option<&str>| {
        let authorization = authorization.map(|credential| format!("Authorization: {credential}\r\n")).unwrap_or_default();
        format!("GET {path} HTTP/1.1\r\nHost: api.example.test\r\nUser-Agent: bench\r\nAccept: */*\r\n{authorization}\r\n")
    };
    let contender = |name, floor, child, request: String, status| Contender {
        name,
        floor,
        address: if child == 0 { unchecked_address } else { gateway_address },
        request,
        status,
        child,
        micros: vec![],
        per_second: vec![],
    };
    let bearer = format!("Bearer {}", token(gateway_address, &right));
    let (right, wrong) = (format!("Basic {right}"), format!("Basic {wrong}"));
    let contenders = [
        contender("pingora, unchecked", 0, 0, request("/billing/invoices", Some(&right)), "HTTP/1.1 200"),
        contender("pingora, unchecked, with a token", 1, 0, request("/billing/invoices", Some(&bearer)), "HTTP/1.1 200"),
        contender("gateway, key 200", 0, 1, request("/billing/invoices", Some(&right)), "HTTP/1.1 200"),
        contender("gateway, token 200", 1, 1, request("/billing/invoices", Some(&bearer)), "HTTP/1.1 200"),
        contender("gateway, public 200", 0, 1, request("/docs/x", None), "HTTP/1.1 200"),
        contender("gateway, key 401", 0, 1, request("/billing/invoices", Some(&wrong)), "HTTP/1.1 401"),
        contender("gateway, key 403", 0, 1, request("/patients", Some(&right)), "HTTP/1.1 403"),
    ];
    let wanted = args.iter().skip(1).find(|word| !word.starts_with('-'));
    let mut contenders: Vec<_> = contenders
        .into_iter()
        .enumerate()
        .filter(|(at, contender)| *at < 2 || wanted.is_none_or(|word| contender.name.contains(word.as_str())))
        .map(|(_, contender)| contender)
        .collect();
    for _ in 0..ROUNDS {
        for contender in &mut contenders {
            load(contender.address, &contender.request, contender.status, WARM_UP);
            let before = cpu(&children[contender.child].0);
            let (count, elapsed) = load(contender.address, &contender.request, contender.status, MEASURED);
            let spent = cpu(&children[contender.child].0).saturating_sub(before);
            contender.micros.push(spent.as_secs_f64() * 1e6 / count as f64);
            contender.per_second.push(count as f64 / elapsed.as_secs_f64());
        }
    }
    let median = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        (sorted[0], sorted[sorted.len() / 2], sorted[sorted.len() - 1])
    };
    println!(
        "| {CONNECTIONS} connections, {CLIENTS} clients, {ROUNDS} rounds of {} s | CPU us/request, median (range) | ratio to the same unchecked | requests/s |",
        MEASURED.as_secs()
    );
    println!("|---|---|---|---|");
    for contender in &contenders {
        let (low, middle, high) = median(&contender.micros);
        println!(
            "| {} | {middle:.1} ({low:.1}-{high:.1}) | {:.2} | {:.0} |",
            contender.name,
            middle / median(&contenders[contender.floor].micros).1,
            median(&contender.per_second).1
        );
    }
    println!("resident: unchecked {} KiB, gateway {} KiB", memory_kib(&children[0].0), memory_kib(&children[1].0));
    std::io::stdout().flush().expect("stdout is open");
}
