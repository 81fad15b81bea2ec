//! The services behind the gateway, checked.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{SocketAddr, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;

use super::document::Step::{Index, Key};
use super::file::{BalanceFile, HashByFile, HealthFile, ProtocolFile, UpstreamFile, UpstreamTlsFile};
use super::routes::plain;
use super::{Found, Purpose};
use crate::tls;
use crate::upstream::{Balance, Ejection, HashBy, Health, Origin, Protocol, Server, Settings, Trust, Upstream};

/// The upstreams, by name.
pub type Upstreams = BTreeMap<Arc<str>, Arc<Upstream>>;

/// Checks what the schema could not. An upstream of `before` of which the same is said goes on, with all that is known of it.
pub(super) fn build(
    files: &BTreeMap<String, UpstreamFile>,
    base: &Path,
    purpose: Purpose,
    before: &Upstreams,
    found: &mut Found<'_>,
) -> Upstreams {
    let mut upstreams = BTreeMap::new();
    for (name, file) in files {
        plain(name, &[Key("upstreams"), Key(name)], found);
        let settings = settings(name, file, base, purpose, found);
        let upstream = match before.get(name.as_str()) {
            Some(known) if known.settings == settings => Arc::clone(known),
            _ => {
                // Whoever only tells of it need not be where the names can be resolved.
                let servers = if purpose == Purpose::Serving { servers(name, &settings, found) } else { Vec::new() };
                Arc::new(Upstream::new(name, settings, servers))
            }
        };
        upstreams.insert(Arc::from(name.as_str()), upstream);
    }
    upstreams
}

/// The files that say who vouches for servers, and what those are shown.
pub(super) fn files(files: &BTreeMap<String, UpstreamFile>, base: &Path) -> impl Iterator<Item = PathBuf> {
    let tls = files.values().filter_map(|file| file.tls.as_ref());
    tls.flat_map(|tls| [&tls.ca, &tls.certificate, &tls.key]).flatten().map(move |path| base.join(path))
}

fn settings(name: &str, file: &UpstreamFile, base: &Path, purpose: Purpose, found: &mut Found<'_>) -> Settings {
    let of = |key| [Key("upstreams"), Key(name), Key(key)];
    if file.servers.is_empty() {
        found.wrong(&of("servers"), "there is no server: name at least one, as `http://127.0.0.1:9001`");
    }
    let mut origins = Vec::new();
    for (at, origin) in file.servers.iter().enumerate() {
        let steps = [Key("upstreams"), Key(name), Key("servers"), Index(at)];
        origins.extend(found.parsed(&steps, Origin::parse(origin)));
    }
    if file.hash_by.is_some() && file.balance != Some(BalanceFile::ConsistentHash) {
        found.wrong(&of("hash_by"), "means something only with `balance = \"consistent_hash\"`: add that, or leave it out");
    }
    let hash_by = match file.hash_by {
        None | Some(HashByFile::Practice) => HashBy::Practice,
        Some(HashByFile::Client) => HashBy::Client,
        Some(HashByFile::Address) => HashBy::Address,
    };
    let millis = |ms: u32| Duration::from_millis(ms.into());
    let secs = |secs: u32| Duration::from_secs(secs.into());
    let health = file.health.as_ref().map(|health| checked(name, health, found));
    let (trust, server_name) = file.tls.as_ref().map(|tls| trusted(name, tls, &origins, base, purpose, found)).unwrap_or_default();
    let usual = Settings::default();
    Settings {
        origins,
        balance: match file.balance {
            None | Some(BalanceFile::RoundRobin) => Balance::RoundRobin,
            Some(BalanceFile::LeastConnections) => Balance::LeastConnections,
            Some(BalanceFile::ConsistentHash) => Balance::ConsistentHash(hash_by),
        },
        protocol: if file.protocol == Some(ProtocolFile::Http2) { Protocol::Http2 } else { Protocol::Http1 },
        trust,
        server_name,
        connect_timeout: file.connect_timeout_ms.map_or(usual.connect_timeout, millis),
        response_timeout: file.response_timeout_ms.map_or(usual.response_timeout, millis),
        total_timeout: file.request_timeout_ms.map(millis),
        retries: file.retries.map_or(usual.retries, |retries| retries as usize),
        retry_percent: file.retry_percent.unwrap_or(usual.retry_percent),
        max_requests: file.max_requests.and_then(|most| NonZeroUsize::new(most as usize)),
        health,
        ejection: Ejection {
            failures: file.ejection.failures.unwrap_or(usual.ejection.failures),
            time: file.ejection.for_secs.map_or(usual.ejection.time, secs),
        },
        resolve_every: file.resolve_secs.map_or(usual.resolve_every, secs),
    }
}

fn checked(name: &str, file: &HealthFile, found: &mut Found<'_>) -> Health {
    let plain = file.path.starts_with('/') && file.path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
    if !plain {
        let message = "is not a path: write one as `/healthz`, with anything but visible ASCII percent-encoded";
        found.wrong(&[Key("upstreams"), Key(name), Key("health"), Key("path")], message);
    }
    Health {
        path: file.path.as_str().into(),
        every: Duration::from_secs(file.every_secs.unwrap_or(5).into()),
        timeout: Duration::from_millis(file.timeout_ms.unwrap_or(2000).into()),
        healthy_after: file.healthy_after.unwrap_or(2),
        unhealthy_after: file.unhealthy_after.unwrap_or(3),
    }
}

fn trusted(
    name: &str,
    file: &UpstreamTlsFile,
    origins: &[Origin],
    base: &Path,
    purpose: Purpose,
    found: &mut Found<'_>,
) -> (Option<Arc<Trust>>, Option<Arc<str>>) {
    let of = |key| [Key("upstreams"), Key(name), Key("tls"), Key(key)];
    if let Some(plain) = origins.iter().find(|origin| !origin.tls) {
        let message = format!("means nothing for `{}`, which is plain HTTP: write `https`, or leave `tls` out", plain.text);
        found.wrong(&[Key("upstreams"), Key(name), Key("tls")], message);
    }
    if let Some(server_name) = &file.server_name
        && ServerName::try_from(server_name.as_str()).is_err()
    {
        found.wrong(&of("server_name"), format!("`{server_name}` is not the name of a host"));
    }
    let authorities =
        file.ca.as_ref().and_then(|ca| found.parsed(&of("ca"), tls::authorities(&base.join(ca)).map_err(|error| said(&error))));
    let identity = match (&file.certificate, &file.key) {
        (Some(certificate), Some(key)) if purpose == Purpose::Serving => {
            found.parsed(&of("key"), tls::identity(&base.join(certificate), &base.join(key)).map_err(|error| said(&error)))
        }
        (Some(_), None) => {
            found.wrong(&of("certificate"), "needs its `key`");
            None
        }
        (None, Some(_)) => {
            found.wrong(&of("key"), "needs its `certificate`");
            None
        }
        (None, None) | (Some(_), Some(_)) => None,
    };
    let trust = (authorities.is_some() || identity.is_some()).then(|| Arc::new(Trust::new(authorities, identity)));
    (trust, file.server_name.as_deref().map(Into::into))
}

fn said(error: &tls::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

fn servers(name: &str, settings: &Settings, found: &mut Found<'_>) -> Vec<Server> {
    let mut servers = Vec::new();
    // One that could not be read has been told of, and then nothing is made of the others: the places need not fit.
    for (at, origin) in settings.origins.iter().enumerate() {
        let resolved = resolve(origin, settings.server_name.as_ref(), |host, port| Ok((host, port).to_socket_addrs()?.collect()));
        servers.extend(found.parsed(&[Key("upstreams"), Key(name), Key("servers"), Index(at)], resolved).unwrap_or_default());
    }
    servers
}

/// The servers that an origin stands for now.
pub(super) fn resolve(
    origin: &Origin,
    server_name: Option<&Arc<str>>,
    resolve: impl FnOnce(&str, u16) -> std::io::Result<Vec<SocketAddr>>,
) -> Result<Vec<Server>, String> {
    let host = &*origin.host;
    let resolved = resolve(host, origin.port)
        .map_err(|error| format!("`{host}` cannot be resolved ({error}): check the name, and that DNS answers"))?;
    origin.servers(resolved, server_name)
}
