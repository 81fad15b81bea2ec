//! What the two files may say. Their JSON Schemas are made of these types; whatever the schemas cannot say is checked
//! where the types are turned into what the program may assume.

mod listeners;
mod upstreams;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

pub use listeners::{ListenerFile, TlsFile, TlsVersion};
pub use upstreams::{BalanceFile, HashByFile, HealthFile, ProtocolFile, UpstreamFile, UpstreamTlsFile};

/// The settings of a gateway. Every key may be left out, and overridden by an environment variable: `SIGMAGATE__STORE__URL` stands for `url` in `[store]`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "sigmagate settings")]
pub struct GatewayFile {
    /// Where applications connect; one plain listener on 127.0.0.1:8080 if there is none.
    pub listeners: Vec<ListenerFile>,
    /// The threads that serve applications.
    pub data_plane: DataPlaneFile,
    /// Where operators connect.
    pub management: ManagementFile,
    /// Where practices, users and clients are kept.
    pub store: StoreFile,
    /// Tokens that the gateway issues itself, and where keys of others may be fetched. It issues some if there is a `master_key`.
    pub oauth: OAuthFile,
    /// How people are told: requests for access, and what becomes of it.
    pub mail: MailFile,
    /// What a client may ask of the gateway itself.
    pub limits: LimitsFile,
    /// Logs.
    pub telemetry: TelemetryFile,
    /// A key of the gateway's own that is made and ended again and again, to see that revocation works.
    pub canary: CanaryFile,
    /// How the gateway stops.
    pub shutdown: ShutdownFile,
}

/// The threads that serve applications.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataPlaneFile {
    /// How many; left out: one for each CPU.
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<u32>,
}

/// Where operators connect: metrics and health.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ManagementFile {
    /// Address and port; 127.0.0.1:8081 if left out.
    pub address: Option<String>,
    /// TLS; left out: plain text, in which tokens are sent: not for an address that others can reach.
    pub tls: Option<TlsFile>,
    /// Who else says who calls the management API, beside `sigmagate management-token`; nobody if left out.
    pub issuers: Vec<ManagementIssuerFile>,
}

/// Somebody else whose management tokens are believed: JWTs with `sub`, the practice and the role, which is `practice_admin`, `member` or `operator`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["issuer", "audiences", "algorithms"]))]
pub struct ManagementIssuerFile {
    /// `iss` of its tokens, letter by letter.
    pub issuer: String,
    /// Where its keys are (RFC 7517), as `https://login.example.test/jwks.json`. Exactly one of `jwks_url` and `jwks_file` is given.
    pub jwks_url: Option<String>,
    /// A file with its keys. A relative path counts from this file; it is read at the start.
    pub jwks_file: Option<PathBuf>,
    /// Its tokens must be for one of these: `aud`. None that an application could get a token for.
    pub audiences: Vec<String>,
    /// What its tokens may be signed by: `EdDSA`, `ES256`, `ES384`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`.
    pub algorithms: Vec<String>,
    /// The claim with the id of the practice; `practice_id`. An operator has none.
    pub practice_claim: Option<String>,
    /// The claim with the role; `role`. A practice admin is one whom the team says so of too.
    pub role_claim: Option<String>,
    /// Whether it may say that somebody is an operator, who may do everything; false.
    pub operators: bool,
    /// How far its clock and ours may be apart, in seconds; 30.
    #[schemars(range(max = 60))]
    pub leeway_secs: Option<u32>,
    /// How often keys are fetched from `jwks_url`, in seconds; 300.
    #[schemars(range(min = 10, max = 86_400))]
    pub refresh_secs: Option<u32>,
}

/// Where practices, users and clients are kept.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreFile {
    /// The database: `sqlite://PATH` for one gateway, `postgres://USER:PASSWORD@HOST/DATABASE?sslmode=verify-full` for a fleet; `sqlite://sigmagate.db` if left out.
    pub url: Option<SecretFile>,
    /// PostgreSQL only: how long a gateway may answer after it last proved itself current, and so how long a change made by plain SQL may take at the worst; 5000 if left out.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub lease_ms: Option<u32>,
    /// PostgreSQL only: how often a gateway proves itself current; a fifth of the lease if left out, and at most a third.
    #[schemars(range(min = 10, max = 1_200_000))]
    pub heartbeat_ms: Option<u32>,
    /// PostgreSQL only: the longest that the machine may stand still without its clock showing it, as when a virtual machine is moved; 0 if left out.
    #[schemars(range(max = 3_600_000))]
    pub freeze_allowance_ms: Option<u32>,
    /// PostgreSQL only: whether it is checked at start that no acknowledged change can be lost, or taken on your word; `checked` if left out.
    pub durability: Option<Durability>,
    /// Whether the schema is brought up to date at start; true if left out.
    pub migrate: Option<bool>,
    /// A key of at least 16 bytes that goes into every stored digest of a secret, so that the database alone proves nothing.
    pub secret_pepper: Option<SecretFile>,
}

/// How it is known that the database loses nothing that it has acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Its settings are looked at: what would lose commits is refused, what may is warned about.
    #[default]
    Checked,
    /// By other means, which you know: nothing is refused.
    Asserted,
}

/// A value that may be a secret.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SecretFile {
    /// The value itself.
    Plain(String),
    /// The content of a file, without white space at its end.
    File(FromFile),
    /// The value of an environment variable.
    Env(FromEnv),
}

/// The content of a file.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromFile {
    /// A relative path counts from this file.
    pub file: PathBuf,
}

/// The value of an environment variable.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FromEnv {
    /// Its name.
    pub env: String,
}

/// Tokens that the gateway issues itself, and where keys of others may be fetched. It issues some if there is a `master_key`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OAuthFile {
    /// The gateway's own address as clients know it, as `https://api.example.test`: `iss` of its tokens; the address of the first listener if left out.
    pub issuer: Option<String>,
    /// `aud` of its tokens; the issuer if left out.
    pub audience: Option<String>,
    /// What signing keys are sealed with in the store: 32 random bytes in base64, as `openssl rand -base64 32` prints them; the same for every gateway of a fleet.
    pub master_key: Option<SecretFile>,
    /// What new signing keys sign by; `EdDSA`.
    pub algorithm: Option<TokenAlgorithm>,
    /// How long a token is good for, in seconds; 900.
    #[schemars(range(min = 60, max = 3600))]
    pub token_lifetime_secs: Option<u32>,
    /// How long a new signing key is published before it signs, in seconds; 3600.
    #[schemars(range(max = 604_800))]
    pub publish_ahead_secs: Option<u32>,
    /// Services that may introspect every token.
    pub resource_servers: Vec<ResourceServerFile>,
    /// Private networks in which keys of issuers and clients may be fetched, beside the public internet; none.
    pub key_networks: Vec<String>,
}

/// What tokens of the gateway's own are signed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TokenAlgorithm {
    /// Ed25519.
    #[default]
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
}

/// A service that may introspect every token.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "secret"]))]
pub struct ResourceServerFile {
    /// Its name, which it gives as HTTP Basic user name.
    pub name: String,
    /// Its secret, of at least 32 characters.
    pub secret: Option<SecretFile>,
}

/// How people are told: requests for access, and what becomes of it. Left out: files beside a SQLite database; with PostgreSQL mails wait in the store.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MailFile {
    /// Whom mails are from, as `SigmaMD API <api@example.test>`; has to be given with `smtp`.
    pub from: Option<String>,
    /// Who is told of requests for access; without any nobody is.
    pub operators: Vec<String>,
    /// Who gets the answers; `from` if left out.
    pub reply_to: Option<String>,
    /// Where SigmaMD's web app is, as `https://app.example.test`: mails lead there.
    pub url: Option<String>,
    /// The server that mails are handed to. This or `folder` is given.
    pub smtp: Option<SmtpFile>,
    /// A folder for mails, each a file of its own. A relative path counts from this file.
    pub folder: Option<PathBuf>,
}

/// A server that takes mail.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["host"]))]
pub struct SmtpFile {
    /// Its name, which its certificate is for, or its address.
    pub host: String,
    /// Its port; 587 for `starttls`, 465 for `implicit`, 25 for `none`.
    #[schemars(range(min = 1, max = 65_535))]
    pub port: Option<u16>,
    /// How the connection is encrypted: after a first exchange, from the start, or not, which is only for a server on this machine; `starttls`.
    pub tls: Option<SmtpTls>,
    /// Who the gateway is to the server; goes with `password`.
    pub username: Option<String>,
    /// The password.
    pub password: Option<SecretFile>,
    /// Certificates that are trusted besides those that the system trusts, PEM. A relative path counts from this file.
    pub ca: Option<PathBuf>,
}

/// How a connection to a server that takes mail is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// After a first exchange in plain text (RFC 3207); a server that does not offer it is sent nothing.
    #[default]
    Starttls,
    /// From the start (RFC 8314).
    Implicit,
    /// Not at all.
    None,
}

/// What a client may ask of the gateway itself.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsFile {
    /// Connections at once; 10000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections: Option<u32>,
    /// Connections at once of one address (IPv6: of a /64), unless it is one of `trusted_proxies`; 1000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub connections_per_address: Option<u32>,
    /// Requests that are answered at once; more are answered 503; 10000.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub requests: Option<u32>,
    /// Header fields of a request; 100.
    #[schemars(range(min = 8, max = 250))]
    pub header_fields: Option<u32>,
    /// Bytes of all header fields of a request; 65536.
    #[schemars(range(min = 1024, max = 1_000_000))]
    pub header_bytes: Option<u32>,
    /// Bytes of a request target; 8192.
    #[schemars(range(min = 64, max = 65_000))]
    pub target_bytes: Option<u32>,
    /// Bytes of content that a route takes if it does not say itself; 10485760.
    #[schemars(range(min = 0, max = 1_099_511_627_776_i64))]
    pub body_bytes: Option<u64>,
    /// How long a header may take to arrive, in milliseconds, from its first byte to its last; 10000.
    #[schemars(range(min = 10, max = 600_000))]
    pub header_timeout_ms: Option<u32>,
    /// How long a connection may be kept without a request, in milliseconds; 75000.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub idle_timeout_ms: Option<u32>,
    /// How long content may stand still on its way in, in milliseconds; 30000.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub body_timeout_ms: Option<u32>,
    /// How long an answer may stand still on its way out, in milliseconds; 30000.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub response_timeout_ms: Option<u32>,
    /// How long a request may take in all, in milliseconds; 300000.
    #[schemars(range(min = 10, max = 86_400_000))]
    pub request_timeout_ms: Option<u32>,
    /// Idle connections to upstreams that are kept; 256.
    #[schemars(range(min = 1, max = 100_000))]
    pub upstream_connections: Option<u32>,
    /// Networks whose `X-Forwarded-*` fields are believed; none.
    pub trusted_proxies: Vec<String>,
    /// Failed authentications of one address before it is told to wait.
    pub failed_authentications: FailuresFile,
}

/// Failed authentications of one address before it is told to wait.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct FailuresFile {
    /// In a minute, for ever; 60.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_minute: Option<u32>,
    /// At once, after a pause; 30.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: Option<u32>,
}

/// Logs.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryFile {
    /// How much is logged: `error`, `warn`, `info`, `debug`, or by module, as `info,sigmagate::feed=debug`; `info`.
    pub log: Option<String>,
    /// `json` for programs, `text` for people; `json`.
    pub format: Option<LogFormat>,
    /// Whether each request is logged, as JSON on standard output; true.
    pub access_log: Option<bool>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// For people.
    Text,
}

/// A key of the gateway's own that is made and ended again and again, to see that revocation works.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CanaryFile {
    /// Whether it is; false. Writes to the store, so the role of a gateway on PostgreSQL needs `gateway_management` too.
    pub enabled: Option<bool>,
    /// How often, in seconds; 60. Each run leaves an ended secret and two audit events, which cannot be deleted: about 4 kB, or 2 GB in a year of one run a minute.
    #[schemars(range(min = 1, max = 86_400))]
    pub every_secs: Option<u32>,
}

/// How the gateway stops.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownFile {
    /// How long requests under way may take to finish, in milliseconds; 10000.
    #[schemars(range(min = 0, max = 3_600_000))]
    pub grace_ms: Option<u32>,
    /// How long the gateway says that it is not ready before it takes no connections any more, in milliseconds: as long as whoever sends them here takes to notice; 0.
    #[schemars(range(min = 0, max = 600_000))]
    pub delay_ms: Option<u32>,
}

/// The route map: which paths there are, what each asks for, where it leads.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "sigmagate route map", extend("required" = ["scopes", "routes"]))]
pub struct RoutesFile {
    /// The data scopes there are; `all`, which covers every one, is built in.
    pub scopes: Vec<String>,
    /// Whether letters of paths match in either case, for upstreams that do the same; false.
    pub ignore_case: bool,
    /// The services behind the gateway, by name.
    pub upstreams: BTreeMap<String, UpstreamFile>,
    /// The routes. Prefixes match whole segments; the longest wins.
    pub routes: Vec<RouteFile>,
    /// Rate limits, by name; clients that name none have `standard`.
    pub tiers: BTreeMap<String, TierFile>,
    /// Who else issues tokens that are believed.
    pub issuers: Vec<IssuerFile>,
}

/// A route.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["prefix", "upstream"]))]
pub struct RouteFile {
    /// What its paths begin with, in whole segments: `/api/public/v1/billing`.
    pub prefix: String,
    /// The methods it takes; all that can be routed if left out.
    pub methods: Option<Vec<String>>,
    /// A client needs any one of these. Exactly one of `scopes`, `scopes_all` and `public` is given.
    pub scopes: Option<Vec<String>>,
    /// A client needs every one of these.
    pub scopes_all: Option<Vec<String>>,
    /// Whether everybody may pass, without a credential.
    pub public: Option<bool>,
    /// The upstream it leads to.
    pub upstream: String,
    /// Whether segments may have `;` parameters; false.
    pub allow_path_parameters: bool,
    /// Whether WebSockets may go through it, over HTTP/1.1; false. They last as long as something is said within `limits.idle_timeout_ms`.
    pub websocket: bool,
    /// Whether the caller's Authorization is handed on; false.
    pub forward_authorization: bool,
    /// Bytes of content that it takes; `limits.body_bytes` if left out.
    #[schemars(range(min = 0, max = 1_099_511_627_776_i64))]
    pub body_limit_bytes: Option<u64>,
    /// How much longer than the lease it may be answered when the store cannot be asked, in milliseconds; 0. Every change
    /// of access, on any route, is said to be in force that much later at the worst.
    #[schemars(range(min = 0, max = 3_600_000))]
    pub stale_grace_ms: u32,
}

/// A rate limit.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["per_second", "burst"]))]
pub struct TierFile {
    /// Requests a second that can go on for ever.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_second: u32,
    /// Requests that may come at once after a pause.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: u32,
    /// What the clients of one practice that are of this tier may together; left out: as much as they may one by one.
    pub practice: Option<AllowanceFile>,
    /// Requests of a client that may be under way at once, on each gateway; left out: any number.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub concurrent: Option<u32>,
}

/// How often something may happen.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["per_second", "burst"]))]
pub struct AllowanceFile {
    /// Requests a second that can go on for ever.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub per_second: u32,
    /// Requests that may come at once after a pause.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub burst: u32,
}

/// Somebody else whose tokens are believed.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["issuer", "audiences", "algorithms"]))]
pub struct IssuerFile {
    /// `iss` of its tokens, letter by letter.
    pub issuer: String,
    /// Where its keys are (RFC 7517), as `https://login.example.test/jwks.json`. Exactly one of `jwks_url` and `jwks_file` is given.
    pub jwks_url: Option<String>,
    /// A file with its keys. A relative path counts from this file; it is read when the route map is, which is again when one of them changes, if they are in one folder.
    pub jwks_file: Option<PathBuf>,
    /// Its tokens must be for one of these: `aud`.
    pub audiences: Vec<String>,
    /// What its tokens may be signed by: `EdDSA`, `ES256`, `ES384`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`.
    pub algorithms: Vec<String>,
    /// The claim with the id of a client of ours, through which the request is then made: it has no more than the client was granted. This, `practice_claim` or both are given.
    pub client_claim: Option<String>,
    /// The claim with the id of the practice.
    pub practice_claim: Option<String>,
    /// The claim with the id of the user, whose API access has to be on. Through a client: its owner, or for a client of the practice anybody on the team.
    pub user_claim: Option<String>,
    /// The claim with the scopes, as words in a text or as a list of texts; `scope`. A token without it has none.
    pub scope_claim: Option<String>,
    /// How far its clock and ours may be apart, in seconds; 30.
    #[schemars(range(max = 60))]
    pub leeway_secs: Option<u32>,
    /// How often keys are fetched from `jwks_url`, in seconds; 300.
    #[schemars(range(min = 10, max = 86_400))]
    pub refresh_secs: Option<u32>,
}
