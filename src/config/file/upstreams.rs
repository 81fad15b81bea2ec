//! What the route file says of the services behind the gateway.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

/// A service behind the gateway.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["servers"]))]
pub struct UpstreamFile {
    /// Origins, as `http://10.0.0.7:9001` or `https://billing.internal`. A name stands for all its addresses.
    pub servers: Vec<String>,
    /// Which server is next: `round_robin`, `least_connections`, or `consistent_hash` for always the same for the same caller; `round_robin`.
    pub balance: Option<BalanceFile>,
    /// What makes two callers the same for `consistent_hash`: `practice`, `client` or `address`; `practice`.
    pub hash_by: Option<HashByFile>,
    /// How servers are spoken to: `http1`, or `http2`, which gRPC needs; `http1`.
    pub protocol: Option<ProtocolFile>,
    /// How often names of servers are resolved again, in seconds; 10.
    #[schemars(range(min = 1, max = 86_400))]
    pub resolve_secs: Option<u32>,
    /// How servers are asked whether they are well; left out: they are not asked.
    pub health: Option<HealthFile>,
    /// When a server that fails requests is passed over.
    pub ejection: EjectionFile,
    /// Who vouches for servers of `https`, and what they are shown.
    pub tls: Option<UpstreamTlsFile>,
    /// How long a connection may take to be made, in milliseconds; 500.
    #[schemars(range(min = 1, max = 600_000))]
    pub connect_timeout_ms: Option<u32>,
    /// How long the service may stay silent, in milliseconds; 30000.
    #[schemars(range(min = 1, max = 3_600_000))]
    pub response_timeout_ms: Option<u32>,
    /// How long a request may take in all, in milliseconds; `limits.request_timeout_ms`, which it cannot exceed.
    #[schemars(range(min = 100, max = 86_400_000))]
    pub request_timeout_ms: Option<u32>,
    /// How often a request is tried again: any where no connection could be made, one whose method is idempotent also where there was no answer; 1.
    #[schemars(range(min = 0, max = 10))]
    pub retries: Option<u32>,
    /// How many of a hundred requests are tried again in the long run; a hundred at once after a good time; 20.
    #[schemars(range(min = 0, max = 100))]
    pub retry_percent: Option<u32>,
    /// Requests that may be under way at once, on each gateway; more are answered 503. Left out: any number.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_requests: Option<u32>,
}

/// Which server is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BalanceFile {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest requests under way.
    LeastConnections,
    /// Always the same for the same caller.
    ConsistentHash,
}

/// What makes two callers the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HashByFile {
    /// The practice; on a public route the address.
    Practice,
    /// The client; where there is none, the user, the practice or the address.
    Client,
    /// The address.
    Address,
}

/// How servers are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolFile {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2; without TLS by prior knowledge.
    Http2,
}

/// How servers are asked whether they are well.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["path"]))]
pub struct HealthFile {
    /// What is asked for with GET; any answer of 2xx is good.
    pub path: String,
    /// The pause between two questions to a server, in seconds; 5.
    #[schemars(range(min = 1, max = 86_400))]
    pub every_secs: Option<u32>,
    /// How long an answer may take, in milliseconds; 2000.
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_ms: Option<u32>,
    /// So many good answers in a row take a server in again; 2.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_after: Option<u32>,
    /// So many others in a row take it out; 3.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_after: Option<u32>,
}

/// When a server that fails requests is passed over.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EjectionFile {
    /// So many requests in a row without an answer, or with 502, 503 or 504; 5.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub failures: Option<u32>,
    /// For how long at first, in seconds; each further time as long again, up to ten times as long; 10.
    #[schemars(range(min = 1, max = 3_600))]
    pub for_secs: Option<u32>,
}

/// Who vouches for servers of `https`, and what they are shown. The files are read again when they change.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamTlsFile {
    /// Authorities, PEM, that alone are trusted; left out: those of the system. A relative path counts from this file.
    pub ca: Option<PathBuf>,
    /// The certificate chain that servers are shown (mutual TLS), PEM; goes with `key`. A relative path counts from this file.
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM. A relative path counts from this file.
    pub key: Option<PathBuf>,
    /// The name to ask for and to verify; the host of the origin if left out.
    pub server_name: Option<String>,
}
