//! The two ends that every contender stands between: an upstream that answers as cheaply as can be, and the same framework
//! that forwards without a decision.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::listeners::ListenerConfig;
use pingora::proxy::{ProxyHttp, ProxyServiceBuilder, Session};
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use pingora::upstreams::peer::HttpPeer;

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

/// What a child process does when it is the floor: it says where it listens, plain and with TLS, and serves.
pub fn run_unchecked(upstream: SocketAddr, certificate: &str, key: &str) {
    sigmagate::tls::install_provider();
    let conf = Arc::new(ServerConf { threads: 1, upstream_keepalive_pool_size: 256, ..ServerConf::default() });
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    let mut service = ProxyServiceBuilder::new(&conf, Unchecked(upstream)).server_options(options).build();
    let mut fds = pingora::server::Fds::new();
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        listener.set_nonblocking(true).expect("a socket can be made so");
        fds.add(address.clone(), std::os::fd::IntoRawFd::into_raw_fd(listener));
        addresses.push(address);
    }
    service.add_listener(ListenerConfig::tcp(&addresses[0]));
    let mut tls = pingora::listeners::tls::TlsSettings::intermediate(certificate, key).expect("a certificate");
    tls.enable_h2();
    service.add_tls_with_settings(&addresses[1], None, tls);
    let (_stop, stopped) = tokio::sync::watch::channel(false);
    let runtime = pingora_runtime::Runtime::new_no_steal(1, "unchecked");
    println!("{} {}", addresses[0], addresses[1]);
    runtime.get_handle().block_on(async move {
        service.start_service(Some(Arc::new(parking_lot::Mutex::new(fds))), stopped, 1).await;
    });
}

/// Answers every request with 1 KiB, as cheaply as can be.
pub fn upstream() -> SocketAddr {
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
