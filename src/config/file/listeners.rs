//! Where applications connect, and how listeners speak TLS.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// One listener for applications.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub struct ListenerFile {
    /// Address and port; port 0 takes a free one.
    pub address: String,
    /// TLS with HTTP/2 and HTTP/1.1; left out: HTTP/1.1 and HTTP/2 in plain text.
    pub tls: Option<TlsFile>,
}

/// How a listener speaks TLS. The files are read again when they change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub struct TlsFile {
    /// The certificate chain, PEM, the listener's own certificate first: for whoever asks for no name that one of `certificates` has. A relative path counts from this file.
    pub certificate: PathBuf,
    /// The private key, PEM. A relative path counts from this file.
    pub key: PathBuf,
    /// Further certificates, each for the names in it (SNI, RFC 6066).
    pub certificates: Vec<PairFile>,
    /// The lowest version of TLS; `1.2`.
    pub min_version: Option<TlsVersion>,
    /// Authorities, PEM: whoever connects must show a certificate of one of them (mutual TLS). Left out: none is asked for. A relative path counts from this file.
    pub client_ca: Option<PathBuf>,
}

/// A certificate and its key.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["certificate", "key"]))]
pub struct PairFile {
    /// The certificate chain, PEM. A relative path counts from this file.
    pub certificate: PathBuf,
    /// The private key, PEM. A relative path counts from this file.
    pub key: PathBuf,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2, and 1.3.
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3 only.
    #[serde(rename = "1.3")]
    V13,
}
