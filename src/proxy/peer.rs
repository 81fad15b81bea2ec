//! A server of an upstream as pingora connects to it.

use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy};
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};

use crate::upstream::{Protocol, Server, Trust, Upstream};

/// Requests at once on one connection of HTTP/2; servers say themselves if they want fewer.
const STREAMS: usize = 100;
/// How often a connection of HTTP/2 is asked whether it is still there.
const PING: Duration = Duration::from_secs(15);

/// A trust as pingora takes it.
struct Prepared {
    authorities: Option<Arc<[WrappedX509]>>,
    identity: Option<Arc<CertKey>>,
}

impl Prepared {
    /// Everything in a trust was parsed when it was loaded.
    fn new(trust: &Trust) -> Self {
        let wrapped = |der: &[u8]| WrappedX509::new(der.to_vec(), parse_x509);
        Self {
            authorities: trust.authorities.as_ref().map(|authorities| authorities.iter().map(|der| wrapped(der)).collect()),
            identity: trust.identity.as_ref().map(|identity| {
                let chain = identity.chain.iter().map(|der| der.to_vec()).collect();
                Arc::new(CertKey::new(chain, identity.key.to_vec()))
            }),
        }
    }
}

/// The server as pingora connects to it; unused connections are kept for `idle`.
pub fn peer(upstream: &Upstream, server: &Server, idle: Duration) -> HttpPeer {
    let settings = &upstream.settings;
    let name = server.tls_name.as_deref().unwrap_or_default();
    let mut peer = HttpPeer::new(server.address, server.tls_name.is_some(), name.to_owned());
    let options = &mut peer.options;
    options.connection_timeout = Some(settings.connect_timeout);
    options.total_connection_timeout = Some(settings.connect_timeout);
    options.read_timeout = Some(settings.response_timeout);
    options.write_timeout = Some(settings.response_timeout);
    options.idle_timeout = Some(idle);
    options.alpn = match settings.protocol {
        Protocol::Http1 => ALPN::H1,
        Protocol::Http2 => {
            options.max_h2_streams = STREAMS;
            options.h2_ping_interval = Some(PING);
            ALPN::H2
        }
    };
    options.verify_cert = true;
    options.verify_hostname = true;
    // `headers::rewrite` does this and more; pingora's own policy would answer 400 to what we can simply leave out.
    options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    if let Some(trust) = &settings.trust {
        let prepared = trust.prepared(Prepared::new);
        options.ca.clone_from(&prepared.authorities);
        peer.client_cert_key.clone_from(&prepared.identity);
    }
    // pingora's pool tells connections apart by address and name, not by what they were verified against, nor by what is
    // spoken on them.
    peer.group_key = group(upstream, server);
    peer
}

/// What two connections to the same address must have in common, so that one can do for the other.
pub fn group(upstream: &Upstream, server: &Server) -> u64 {
    let settings = &upstream.settings;
    let mut hasher = foldhash::fast::FixedState::default().build_hasher();
    upstream.name.hash(&mut hasher);
    server.tls_name.hash(&mut hasher);
    settings.protocol.hash(&mut hasher);
    if let Some(trust) = &settings.trust {
        trust.fingerprint().hash(&mut hasher);
    }
    hasher.finish()
}
