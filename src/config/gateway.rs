//! The settings, checked.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Found;
use super::document::Step::{Index, Key};
use super::file::{Durability, GatewayFile, LogFormat, SecretFile, TlsFile, TlsVersion};
use super::issuers;
use super::mail::{self, Mail};
use super::oauth::{self, OAuth};
use super::overrides::Environment;
use crate::credential::Pepper;
use crate::store::{self, Fleet, Timing};
use crate::tls::{self, Listening, Lowest, Pair};
use crate::token::ManagementIssuer;

/// The settings of a gateway.
#[derive(Clone, Debug)]
pub struct Gateway {
    /// Where applications connect; at least one.
    pub listeners: Vec<Listener>,
    /// The threads that serve applications.
    pub threads: usize,
    /// Where operators connect.
    pub management: SocketAddr,
    /// How the listener of operators speaks TLS; `None`: plain text.
    pub management_tls: Option<Listening>,
    /// Who else says who calls the management API.
    pub management_issuers: Vec<ManagementIssuer>,
    /// Where things are kept.
    pub store: StoreSettings,
    /// What it takes to issue tokens; `None`: none are issued.
    pub oauth: Option<OAuth>,
    /// Private networks in which keys of issuers and clients may be fetched, beside the public internet.
    pub key_networks: Vec<IpNet>,
    /// How people are told.
    pub mail: Mail,
    /// What a client may ask of the gateway itself.
    pub limits: Limits,
    /// Logs.
    pub telemetry: Telemetry,
    /// How often a key of the gateway's own is made and ended; `None`: never.
    pub canary: Option<Duration>,
    /// How long requests under way may take to finish when the gateway stops.
    pub grace: Duration,
    /// How long it says before that it is not ready.
    pub stop_delay: Duration,
}

/// A listener for applications.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// How it speaks TLS; `None`: plain text.
    pub tls: Option<Listening>,
}

/// Where practices, users and clients are kept.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// `sqlite://PATH` or `postgres://…`.
    pub url: String,
    /// How a fleet holds together.
    pub fleet: Fleet,
    /// Whether the schema is brought up to date at start.
    pub migrate: bool,
    /// The key that goes into every stored digest.
    pub secret_pepper: Option<Arc<Pepper>>,
}

/// What a client may ask of the gateway itself.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at once.
    pub connections: usize,
    /// Of one address.
    pub connections_per_address: NonZeroU32,
    /// Requests at once.
    pub requests: usize,
    /// Header fields of a request.
    pub header_fields: usize,
    /// Bytes of all of them.
    pub header_bytes: usize,
    /// Bytes of a request target.
    pub target_bytes: usize,
    /// Bytes of content, where a route does not say.
    pub body_bytes: u64,
    /// How long a header may take to arrive.
    pub header_timeout: Duration,
    /// How long a connection is kept without a request.
    pub idle_timeout: Duration,
    /// How long content may stand still on its way in.
    pub body_timeout: Duration,
    /// How long an answer may stand still on its way out.
    pub response_timeout: Duration,
    /// How long a request may take in all.
    pub request_timeout: Duration,
    /// Idle connections to upstreams that are kept.
    pub upstream_connections: usize,
    /// Networks whose forwarding fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Failed authentications of an address in a minute, for ever.
    pub failures_per_minute: NonZeroU32,
    /// And at once.
    pub failures_burst: NonZeroU32,
}

/// Logs.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it.
    pub log: String,
    /// How lines look.
    pub format: LogFormat,
    /// Whether each request is logged.
    pub access_log: bool,
}

/// Checks what the schema could not, and fills in the defaults. Paths count from `base`.
pub(super) fn build(file: &GatewayFile, base: &Path, env: &Environment, found: &mut Found<'_>) -> Gateway {
    let mut listeners = Vec::new();
    let mut taken = BTreeMap::new();
    for (at, listener) in file.listeners.iter().enumerate() {
        let steps = [Key("listeners"), Index(at), Key("address")];
        if let Some(address) = address(&listener.address, &steps, found) {
            if let Some(other) = taken.get(&address).filter(|_| address.port() != 0) {
                found.wrong(&steps, format!("`{address}` is the address of listeners[{other}] already: give each its own"));
            }
            taken.entry(address).or_insert(at);
            let tls = listener.tls.as_ref().map(|tls| listening(tls, base));
            listeners.push(Listener { address, tls });
        }
    }
    if listeners.is_empty() {
        listeners.push(Listener { address: ([127, 0, 0, 1], 8080).into(), tls: None });
    }
    let management = management(file, &listeners, &taken, found);
    let millis = |value: Option<u32>, default: u32| Duration::from_millis(value.unwrap_or(default).into());
    let size = |value: Option<u32>, default: u32| value.unwrap_or(default) as usize;
    let limits = &file.limits;
    let mut trusted_proxies = Vec::new();
    for (at, text) in limits.trusted_proxies.iter().enumerate() {
        let network = network(text, "everyone, who could then claim any address: name the networks of your proxies");
        trusted_proxies.extend(found.parsed(&[Key("limits"), Key("trusted_proxies"), Index(at)], network));
    }
    let failures = &limits.failed_authentications;
    let count = |value: Option<u32>, default: u32| value.or(Some(default)).and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
    let threads =
        file.data_plane.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), |threads| threads as usize);
    let store = store(file, base, env, found);
    let oauth = oauth::build(&file.oauth, base, env, found);
    let key_networks = oauth::key_networks(&file.oauth, found);
    let own = oauth.as_ref().and_then(|oauth| oauth.issuer.as_deref());
    Gateway {
        listeners,
        threads,
        management,
        management_tls: file.management.tls.as_ref().map(|tls| listening(tls, base)),
        management_issuers: issuers::build_management(&file.management.issuers, base, &key_networks, own, found),
        mail: mail::build(&file.mail, base, &store.url, env, found),
        store,
        oauth,
        key_networks,
        limits: Limits {
            connections: size(limits.connections, 10_000),
            connections_per_address: count(limits.connections_per_address, 1000),
            requests: size(limits.requests, 10_000),
            header_fields: size(limits.header_fields, 100),
            header_bytes: size(limits.header_bytes, 65_536),
            target_bytes: size(limits.target_bytes, 8192),
            body_bytes: limits.body_bytes.unwrap_or(10_485_760),
            header_timeout: millis(limits.header_timeout_ms, 10_000),
            idle_timeout: millis(limits.idle_timeout_ms, 75_000),
            body_timeout: millis(limits.body_timeout_ms, 30_000),
            response_timeout: millis(limits.response_timeout_ms, 30_000),
            request_timeout: millis(limits.request_timeout_ms, 300_000),
            upstream_connections: size(limits.upstream_connections, 256),
            trusted_proxies,
            failures_per_minute: count(failures.per_minute, 60),
            failures_burst: count(failures.burst, 30),
        },
        telemetry: telemetry(file, found),
        canary: (file.canary.enabled == Some(true)).then(|| Duration::from_secs(file.canary.every_secs.unwrap_or(60).into())),
        grace: millis(file.shutdown.grace_ms, 10_000),
        stop_delay: millis(file.shutdown.delay_ms, 0),
    }
}

/// Proves the certificates of all listeners: that a handshake would find what it needs is known before the first one.
pub(super) fn certificates(file: &GatewayFile, base: &Path, found: &mut Found<'_>) {
    let listeners = file.listeners.iter().enumerate().map(|(at, listener)| (vec![Key("listeners"), Index(at)], &listener.tls));
    for (steps, tls) in listeners.chain([(vec![Key("management")], &file.management.tls)]) {
        let Some(tls) = tls else { continue };
        for (part, error) in listening(tls, base).check() {
            let message = error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
            let of = |at: usize, key| match at.checked_sub(1) {
                None => vec![Key(key)],
                Some(more) => vec![Key("certificates"), Index(more), Key(key)],
            };
            let inside = match part {
                tls::Part::Certificate(at) => of(at, "certificate"),
                tls::Part::Key(at) => of(at, "key"),
                tls::Part::ClientAuthorities => vec![Key("client_ca")],
            };
            found.wrong(&[&steps[..], &[Key("tls")], &inside].concat(), message);
        }
    }
}

fn listening(file: &TlsFile, base: &Path) -> Listening {
    let pair = |certificate: &Path, key: &Path| Pair { certificate: base.join(certificate), key: base.join(key) };
    Listening {
        first: pair(&file.certificate, &file.key),
        more: file.certificates.iter().map(|more| pair(&more.certificate, &more.key)).collect(),
        lowest: if file.min_version == Some(TlsVersion::V13) { Lowest::V13 } else { Lowest::V12 },
        client_authorities: file.client_ca.as_ref().map(|path| base.join(path)),
    }
}

/// Where operators connect, which is nowhere that applications do.
fn management(file: &GatewayFile, listeners: &[Listener], taken: &BTreeMap<SocketAddr, usize>, found: &mut Found<'_>) -> SocketAddr {
    let steps = [Key("management"), Key("address")];
    let given = file.management.address.as_deref().and_then(|text| address(text, &steps, found));
    let address = given.unwrap_or_else(|| ([127, 0, 0, 1], 8081).into());
    if address.port() != 0 && listeners.iter().any(|listener| listener.address == address) {
        match taken.get(&address) {
            // What the file does not say has no place in it: the listener is what is to be changed.
            Some(at) if given.is_none() => {
                let message =
                    format!("`{address}` is where operators connect unless `management.address` says otherwise: change one of them");
                found.wrong(&[Key("listeners"), Index(*at), Key("address")], message);
            }
            at => {
                let of = at.map_or_else(|| "the listener that there is without [[listeners]]".to_owned(), |at| format!("listeners[{at}]"));
                found.wrong(&steps, format!("`{address}` is the address of {of} already: operators need one of their own"));
            }
        }
    }
    address
}

/// A network that something is allowed to; that of every address is `too_much`.
pub(super) fn network(text: &str, too_much: &str) -> Result<IpNet, String> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| format!("`{text}` is not a network: expected an address, or CIDR as `10.0.0.0/8`"))?;
    if network.prefix_len() == 0 {
        return Err(format!("`{text}` is {too_much}"));
    }
    // Whoever writes `10.1.0.0/8` meant either less or more than that.
    if network != network.trunc() {
        return Err(format!("`{text}` has bits set behind its prefix: write `{}`, or a longer prefix", network.trunc()));
    }
    Ok(network)
}

fn telemetry(file: &GatewayFile, found: &mut Found<'_>) -> Telemetry {
    let log = file.telemetry.log.clone().unwrap_or_else(|| "info".into());
    let parsed = tracing_subscriber::EnvFilter::try_new(&log)
        .map_err(|error| format!("`{log}` is not a log filter ({error}): write `info`, or `info,sigmagate::feed=debug`"));
    let valid = found.parsed(&[Key("telemetry"), Key("log")], parsed).is_some();
    Telemetry {
        log: if valid { log } else { "info".into() },
        format: file.telemetry.format.unwrap_or_default(),
        access_log: file.telemetry.access_log.unwrap_or(true),
    }
}

fn store(file: &GatewayFile, base: &Path, env: &Environment, found: &mut Found<'_>) -> StoreSettings {
    let steps = [Key("store"), Key("url")];
    let url = file.store.url.as_ref().and_then(|url| found.parsed(&steps, secret(url, base, env)));
    let url = url.unwrap_or_else(|| "sqlite://sigmagate.db".into());
    let fleet_store = store::is_fleet(&url);
    if !url.starts_with("sqlite://") && !fleet_store {
        // Not the value itself: it may hold a password.
        let scheme = url.split_once("://").map_or("no scheme", |(scheme, _)| scheme);
        found.wrong(&steps, format!("expected `sqlite://PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`, found {scheme}"));
    }
    let fleet = fleet(file, fleet_store, found);
    let steps = [Key("store"), Key("secret_pepper")];
    let pepper = file.store.secret_pepper.as_ref().and_then(|pepper| found.parsed(&steps, secret(pepper, base, env)));
    let secret_pepper = pepper.and_then(|text| {
        let pepper =
            Pepper::new(text.as_bytes()).ok_or_else(|| format!("has {} bytes: at least {} are needed", text.len(), Pepper::MIN_BYTES));
        found.parsed(&steps, pepper).map(Arc::new)
    });
    StoreSettings { url, fleet, migrate: file.store.migrate.unwrap_or(true), secret_pepper }
}

fn fleet(file: &GatewayFile, fleet_store: bool, found: &mut Found<'_>) -> Fleet {
    let file = &file.store;
    let given = [
        ("lease_ms", file.lease_ms.is_some()),
        ("heartbeat_ms", file.heartbeat_ms.is_some()),
        ("freeze_allowance_ms", file.freeze_allowance_ms.is_some()),
        ("durability", file.durability.is_some()),
    ];
    for (name, _) in given.iter().filter(|(_, given)| *given && !fleet_store) {
        found.wrong(
            &[Key("store"), Key(name)],
            "is for a fleet on PostgreSQL: an embedded store has one gateway, with a lease of one second".to_owned(),
        );
    }
    let lease = file.lease_ms.unwrap_or(5000);
    let heartbeat = file.heartbeat_ms.unwrap_or(lease / 5);
    if heartbeat < 10 || heartbeat > lease / 3 {
        let most = lease / 3;
        found.wrong(
            &[Key("store"), Key("heartbeat_ms")],
            format!("is {heartbeat}: expected 10 to {most}, a third of the lease, so that one that fails can be made up for"),
        );
    }
    let millis = |value: u32| Duration::from_millis(value.into());
    Fleet {
        timing: Timing {
            lease: millis(lease),
            heartbeat: millis(heartbeat),
            freeze_allowance: millis(file.freeze_allowance_ms.unwrap_or(0)),
        },
        durability_asserted: file.durability == Some(Durability::Asserted),
    }
}

pub(super) fn secret(value: &SecretFile, base: &Path, env: &Environment) -> Result<String, String> {
    match value {
        SecretFile::Plain(text) => Ok(text.clone()),
        SecretFile::File(from) => {
            let path = base.join(&from.file);
            let text = std::fs::read_to_string(&path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
            Ok(text.trim_end().to_owned())
        }
        SecretFile::Env(from) => env.text(&from.env).map(str::to_owned),
    }
}

fn address(text: &str, steps: &[super::document::Step<'_>], found: &mut Found<'_>) -> Option<SocketAddr> {
    let parsed = text.parse().map_err(|_| format!("`{text}` is not an address and a port: write `127.0.0.1:8080` or `[::1]:8080`"));
    found.parsed(steps, parsed)
}
