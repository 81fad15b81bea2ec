//! One fetch of one set of keys, from nowhere that it must not be from.

use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Response, Url, header, redirect};
use tokio::sync::{OnceCell, Semaphore};
use tokio::task::spawn_blocking;

use super::{Error, Networks, url};
use crate::tls;
use crate::token::KeySet;

/// How long a connection may take to be made, name and TLS included.
const CONNECT: Duration = Duration::from_secs(3);
/// How long all of it may take.
pub(super) const WHOLE: Duration = Duration::from_secs(5);
/// The most fetches under way: there may be as many URLs as clients.
const AT_ONCE: usize = 16;
/// The most that is read: an RSA key is 400 bytes, and an issuer has a handful.
pub(super) const MAX_BYTES: usize = 256 * 1024;

/// Fetches sets of keys. Clones share one client.
#[derive(Clone, Debug)]
pub struct Fetcher {
    /// Made when it is first needed: it reads the certificates that the system trusts.
    pub(super) client: Arc<OnceCell<Client>>,
    pub(super) networks: Networks,
    pub(super) at_once: Arc<Semaphore>,
}

impl Fetcher {
    /// A fetcher that connects to the public internet and to what is `allowed` besides. HTTPS trusts whom the system
    /// trusts; where it trusts nobody, nothing is fetched by HTTPS, and a line in the log says so.
    #[must_use]
    pub fn new(allowed: &[IpNet]) -> Self {
        Self { client: Arc::default(), networks: Networks::new(allowed), at_once: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// What may be connected to.
    #[must_use]
    pub const fn networks(&self) -> &Networks {
        &self.networks
    }

    /// What is behind `url` now. What is in the set and is no key that signatures can be checked with is left out; a set
    /// without any is a set: its owner may have withdrawn them all.
    ///
    /// # Errors
    /// [`Error`] says why there is none.
    pub async fn fetch(&self, url: &str) -> Result<KeySet, Error> {
        let url = url::parse(url, &self.networks)?;
        let body = tokio::time::timeout(WHOLE, async {
            let _turn = self.at_once.acquire().await;
            self.body(url.clone()).await
        });
        let body = body.await.map_err(|_| Error::Slow)??;
        let (keys, left_out) = KeySet::from_jwks(&body)?;
        if let (true, Some(why)) = (keys.is_empty(), left_out.first()) {
            tracing::info!(%url, %why, "no key in the set can be used");
        }
        Ok(keys)
    }

    /// What asks.
    pub(super) async fn client(&self) -> Result<&Client, Error> {
        self.client.get_or_try_init(|| made(self.networks.clone())).await
    }

    async fn body(&self, url: Url) -> Result<Vec<u8>, Error> {
        let asked = self.client().await?.get(url).header(header::ACCEPT, "application/jwk-set+json, application/json");
        let mut response = asked.send().await.map_err(unreachable)?;
        if response.status() != 200 {
            return Err(Error::Status(response.status().as_u16()));
        }
        if too_large(&response) {
            return Err(Error::TooLarge);
        }
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if body.len() + part.len() > MAX_BYTES {
                return Err(Error::TooLarge);
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}

async fn made(networks: Networks) -> Result<Client, Error> {
    let made = spawn_blocking(move || {
        // The client takes the provider of the process, and ends it if there is none.
        tls::install_provider();
        let made = |builder: ClientBuilder| builder.build().map_err(|error| Error::Client(Arc::new(error)));
        made(builder(&networks)).or_else(|error| {
            let error = super::chain(&error);
            tracing::error!(error, "no keys can be fetched by HTTPS: install the root certificates of the system (ca-certificates)");
            made(builder(&networks).tls_certs_only([]))
        })
    });
    made.await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

fn builder(networks: &Networks) -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("sigmagate/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        // A proxy of the environment would resolve names itself, and connect to what we must not.
        .no_proxy()
        .http1_only()
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT)
        // So seldom used that it would have been closed by then.
        .pool_max_idle_per_host(0)
        .dns_resolver(Arc::new(Permitted(networks.clone())))
}

/// What the answer itself says is enough to hang up.
fn too_large(response: &Response) -> bool {
    response.content_length().is_some_and(|length| length > MAX_BYTES as u64)
}

/// Names resolve to what may be connected to.
#[derive(Debug)]
pub(super) struct Permitted(pub(super) Networks);

/// What a name resolves to, of which nothing may be connected to.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not on the public internet")]
pub(super) struct NotPermitted(IpAddr);

impl Resolve for Permitted {
    fn resolve(&self, name: Name) -> Resolving {
        let networks = self.0.clone();
        Box::pin(async move {
            // Port 0 stands for the one of the URL.
            let all: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let permitted: Vec<SocketAddr> = all.iter().copied().filter(|address| networks.permit(address.ip())).collect();
            match all.first() {
                // What is connected to is what has been looked at: the name is not resolved again.
                Some(first) if permitted.is_empty() => Err(NotPermitted(first.ip()).into()),
                _ => Ok(Box::new(permitted.into_iter()) as Addrs),
            }
        })
    }
}

fn unreachable(error: reqwest::Error) -> Error {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(NotPermitted(address)) = inner.downcast_ref() {
            return Error::Forbidden(*address);
        }
        cause = inner.source();
    }
    Error::Unreachable(Arc::new(error.without_url()))
}
