//! The management API, as programs call it: at a gateway's listener, or in process over the store.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Context as _;
use http::{Method, StatusCode};
use reqwest::{Certificate, Client, Identity, Url};
use rustls_pki_types::CertificateDer;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::admin::Local;
use crate::tls;

/// How long an answer may take: a change waits for every gateway, and one that is cut off for the length of its lease.
const WHOLE: Duration = Duration::from_secs(120);
/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(5);
/// Lines of JSON.
const NDJSON: &str = "application/x-ndjson";
const JSON: &str = "application/json";
/// What the API answered, other than that it was done.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    detail: String,
    field: Option<String>,
    request_id: Option<String>,
}

impl Refused {
    fn new(status: StatusCode, content: &[u8]) -> Self {
        let problem: Value = serde_json::from_slice(content).unwrap_or_default();
        let text = |name: &str| problem[name].as_str().map(str::to_owned);
        let detail =
            text("detail").unwrap_or_else(|| format!("the answer is {status}, and no problem document: is this a management listener?"));
        Self { status, detail, field: text("field"), request_id: text("request_id") }
    }

    /// The exit code that it means: 1 failed, 2 wrong usage, 3 not found, 4 conflict.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self.status.as_u16() {
            400 | 413 | 415 | 422 => 2,
            404 => 3,
            409 | 412 => 4,
            _ => 1,
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.detail)?;
        match &self.request_id {
            // What was asked of another process can be looked up there.
            Some(id) => write!(f, " (request {id})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Refused {}

/// A caller of the API.
pub enum Api {
    /// In process.
    Local(Box<Local>),
    /// At the listener of a gateway.
    Remote(Remote),
}

/// Whom a caller believes, and how it shows who it is, in TLS.
#[derive(Default)]
pub struct Trust {
    /// Who may vouch for the gateway, besides those that the system trusts.
    pub authorities: Vec<CertificateDer<'static>>,
    /// The caller's certificate and its key, as PEM, for a gateway that asks for one.
    pub identity: Option<Zeroizing<Vec<u8>>>,
}

/// A gateway that is asked.
pub struct Remote {
    http: Client,
    base: Url,
    token: String,
}

impl Remote {
    /// A gateway at this address of its management listener, as `http://127.0.0.1:8081`, asked with this token.
    ///
    /// # Errors
    /// The address is none, or the identity.
    pub fn new(base: &str, token: &str, trust: &Trust) -> anyhow::Result<Self> {
        let base: Url = base.parse().with_context(|| format!("`{base}` is no address of a listener: write `http://127.0.0.1:8081`"))?;
        anyhow::ensure!(matches!(base.scheme(), "http" | "https"), "`{base}` is no address of a listener: write `http://127.0.0.1:8081`");
        // The client takes the provider of the process, and ends it if there is none.
        tls::install_provider();
        let mut builder = Client::builder().connect_timeout(CONNECT).timeout(WHOLE).redirect(reqwest::redirect::Policy::none());
        for authority in &trust.authorities {
            builder = builder.add_root_certificate(Certificate::from_der(authority)?);
        }
        if let Some(identity) = &trust.identity {
            builder = builder.identity(Identity::from_pem(identity).context("the certificate of the caller and its key cannot be used")?);
        }
        let http = builder.build().context("HTTP cannot be set up")?;
        Ok(Self { http, base, token: token.to_owned() })
    }

    /// Whether others on the way can read the token.
    #[must_use]
    pub fn is_in_the_clear(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        self.base.scheme() == "http" && !here
    }

    async fn call(&self, method: Method, path: &str, content: Option<(&'static str, Vec<u8>)>) -> anyhow::Result<(StatusCode, Vec<u8>)> {
        let url = self.base.join(path)?;
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some((media, content)) = content {
            request = request.header(reqwest::header::CONTENT_TYPE, media).body(content);
        }
        let answered = async {
            let response = request.send().await?;
            Ok::<_, reqwest::Error>((response.status(), response.bytes().await?.to_vec()))
        };
        // The error names the path, which is not what is wrong.
        answered.await.map_err(reqwest::Error::without_url).with_context(|| {
            format!(
                "no answer from {}: is that the management listener of a running gateway? Whether a change was made is not known: look",
                self.base
            )
        })
    }
}

impl Api {
    async fn call(&self, method: Method, path: &str, content: Option<(&'static str, Vec<u8>)>) -> anyhow::Result<Vec<u8>> {
        let (status, answer) = match self {
            Self::Local(local) => {
                let (status, answer) = local.call(method, path, content).await?;
                (status, answer.to_vec())
            }
            Self::Remote(remote) => remote.call(method, path, content).await?,
        };
        if status.is_success() {
            return Ok(answer);
        }
        let mut refused = Refused::new(status, &answer);
        if matches!(self, Self::Local(_)) {
            refused.request_id = None;
        }
        Err(refused.into())
    }

    /// Asks for something, and parses the answer.
    ///
    /// # Errors
    /// [`Refused`] for any answer but a 2xx, or none came.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        let answer = self.call(method, path, body.map(|body| (JSON, body.to_string().into_bytes()))).await?;
        serde_json::from_slice(&answer).context("the answer is no JSON")
    }

    /// Looks something up.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, None).await
    }

    /// Does something.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn post(&self, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        self.send(Method::POST, path, body).await
    }

    /// Sends lines of JSON, and parses those of the answer.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn lines(&self, path: &str, lines: Vec<u8>) -> anyhow::Result<Vec<Value>> {
        let answer = self.call(Method::POST, path, Some((NDJSON, lines))).await?;
        let lines = answer.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).context("a line of the answer is no JSON")).collect()
    }

    /// Everything in a list, page by page: up to `most` items.
    ///
    /// # Errors
    /// As [`Api::send`].
    pub async fn list(&self, path: &str, most: usize) -> anyhow::Result<Vec<Value>> {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let limit = (most - all.len()).min(200);
            let mut page = self.get(&format!("{path}?limit={limit}{cursor}")).await?;
            if let Value::Array(items) = page["items"].take() {
                all.extend(items);
            }
            match page["next"].as_str() {
                Some(next) if all.len() < most => cursor = format!("&cursor={next}"),
                _ => return Ok(all),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_others_can_read_is_noticed() {
        for (base, clear) in [
            ("http://127.0.0.1:8081", false),
            ("http://[::1]:8081", false),
            ("http://localhost:8081", false),
            ("https://gateway.test", false),
            ("http://gateway.test:8081", true),
            ("http://10.0.0.1:8081", true),
            ("http://localhost.test:8081", true),
        ] {
            assert_eq!(Remote::new(base, "token", &Trust::default()).unwrap().is_in_the_clear(), clear, "{base}");
        }
    }
}
