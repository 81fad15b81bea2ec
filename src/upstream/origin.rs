//! Where a server is, as the configuration writes it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::Server;

/// The origin of a server (RFC 9110 §4.3.1): scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// As the file has it, without a slash at the end: for logs and errors.
    pub text: Arc<str>,
    /// A name or an address.
    pub host: Arc<str>,
    /// 1 to 65535.
    pub port: u16,
    /// Whether it is `https`.
    pub tls: bool,
}

impl Origin {
    /// Reads `http://host:port` or `https://host`.
    ///
    /// # Errors
    /// What is wrong, and what one looks like.
    pub fn parse(origin: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{origin}` {why}: write an origin, as `http://127.0.0.1:9001` or `https://billing.internal`");
        let uri: http::Uri = origin.parse().map_err(|_| wrong("is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("has a scheme other than http and https")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("has a user name or password"));
        }
        if uri.path().len() > 1 || uri.query().is_some() || origin.contains('#') {
            return Err(wrong("has a path or a query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            // Without a name there would be nothing to verify a certificate against.
            return Err(wrong("has no host"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if port == 0 || (authority.port().is_none() && authority.as_str().ends_with(':')) {
            return Err(wrong("has no usable port"));
        }
        Ok(Self { text: origin.trim_end_matches('/').into(), host: host.into(), port, tls })
    }

    /// Whether it names a host, whose address may change.
    #[must_use]
    pub fn is_named(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }

    /// The authority, as `Host` has it (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self) -> &str {
        self.text.split_once("://").map_or("", |(_, authority)| authority)
    }

    /// The servers that it stands for: one for each address of its host.
    ///
    /// # Errors
    /// There is none.
    pub fn servers(&self, resolved: Vec<SocketAddr>, server_name: Option<&Arc<str>>) -> Result<Vec<Server>, String> {
        let addresses = of_one_kind(resolved);
        if addresses.is_empty() {
            return Err(format!("`{}` has no address: check the name", self.host));
        }
        let name = self.tls.then(|| Arc::clone(server_name.unwrap_or(&self.host)));
        Ok(addresses.into_iter().map(|address| Server::new(address, name.clone(), Arc::clone(&self.text))).collect())
    }
}

/// The addresses of IPv4 or those of IPv6, each once.
///
/// A host with both is one server under two addresses, and which of them can be reached the resolver knows: it puts that
/// kind first (RFC 6724). Not so for `localhost`, where a server seldom listens on both: IPv4 is the usual one.
fn of_one_kind(resolved: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let loopback = resolved.iter().find(|address| address.is_ipv4() && address.ip().is_loopback());
    let v4 = loopback.or(resolved.first()).is_some_and(SocketAddr::is_ipv4);
    let mut addresses: Vec<SocketAddr> = Vec::new();
    for address in resolved.into_iter().filter(|address| address.is_ipv4() == v4) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}
