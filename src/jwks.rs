//! Keys of others, fetched from where they say: those of trusted issuers, kept current, and those of clients.
//!
//! A URL may come from somebody who would like to see what the gateway can reach. So it is the public internet that is
//! fetched from, and what the operator allows besides: see [`Networks`].

mod address;
mod clients;
mod fetcher;
mod remote;
mod source;
mod url;

pub use address::Networks;
pub use clients::ClientKeySets;
pub use fetcher::Fetcher;
pub use remote::{Fetched, MAX_AGE, MIN_INTERVAL, Observer, Remote};
pub use url::{check, is_loopback};

use std::net::IpAddr;
use std::sync::Arc;

use crate::token::MalformedKey;

/// Why there are no keys. None of it has what was answered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// It is no URL that keys are fetched from.
    #[error("it {0}: write `https://` and where the keys are")]
    Url(&'static str),
    /// The host is not one that may be connected to.
    #[error("{0} is not on the public internet, and not in `oauth.key_networks`")]
    Forbidden(IpAddr),
    /// No answer.
    #[error("it cannot be reached")]
    Unreachable(#[source] Arc<reqwest::Error>),
    /// No answer in time.
    #[error("it has not answered within {} seconds", fetcher::WHOLE.as_secs())]
    Slow,
    /// Anything but 200, a redirect too.
    #[error("it answers {0}, not 200")]
    Status(u16),
    /// More than any set of keys needs.
    #[error("it answers more than {} bytes", fetcher::MAX_BYTES)]
    TooLarge,
    /// No set of keys.
    #[error("it answers something else than keys")]
    Keys(#[from] MalformedKey),
    /// There is no TLS here.
    #[error("no client for HTTPS can be made")]
    Client(#[source] Arc<reqwest::Error>),
}

/// The error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
