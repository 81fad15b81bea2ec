//! How people are told, checked.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Found;
use super::document::Step::{Index, Key};
use super::file::{MailFile, SmtpFile, SmtpTls};
use super::gateway::secret;
use super::overrides::Environment;
use crate::jwks;
use crate::{store, tls};

/// Whom mails in a folder are from and for, where the settings name nobody: they go nowhere.
const NOBODY: &str = "sigmagate@localhost";

/// How people are told.
#[derive(Clone, Debug)]
pub struct Mail {
    /// Whom mails are from.
    pub from: Mailbox,
    /// Who is told of requests for access.
    pub operators: Vec<Mailbox>,
    /// Who gets the answers; `None`: whom the mails are from.
    pub reply_to: Option<Mailbox>,
    /// Where SigmaMD's web app is.
    pub url: Option<Arc<str>>,
    /// What becomes of a mail.
    pub transport: MailTransport,
}

/// What becomes of a mail.
#[derive(Clone, Debug)]
pub enum MailTransport {
    /// It is handed to a server.
    Smtp(Smtp),
    /// It becomes a file in this folder.
    Folder(PathBuf),
    /// It waits in the store for a gateway that has other settings.
    Waits,
}

/// A server that takes mail.
#[derive(Clone, Debug)]
pub struct Smtp {
    /// Its name, which its certificate is for, or its address.
    pub host: Arc<str>,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub tls: SmtpTls,
    /// Who we are to it.
    pub login: Option<SmtpLogin>,
    /// A file of certificates that are trusted besides those that the system trusts.
    pub ca: Option<PathBuf>,
}

/// Who we are to a server.
#[derive(Clone)]
pub struct SmtpLogin {
    /// The name.
    pub username: Arc<str>,
    /// The password.
    pub password: Arc<str>,
}

impl fmt::Debug for SmtpLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SmtpLogin({:?}, ..)", self.username)
    }
}

/// An e-mail address, and the name of whoever has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    name: Option<Arc<str>>,
    address: Arc<str>,
}

impl Mailbox {
    /// An address of a person. The domain may be an international one (RFC 5890), and is then spelled in ASCII.
    ///
    /// # Errors
    /// Says what is wrong with the address. What the standards allow beyond that is nothing that people have: quoted
    /// names, comments, addresses of hosts. Letters beyond ASCII before the `@` (RFC 6531) few servers would take.
    pub fn new(name: Option<&str>, address: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{}` is not an e-mail address: {why}", address.escape_debug());
        let (local, domain) = address.rsplit_once('@').ok_or_else(|| wrong("there is no `@` in it"))?;
        let atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
        // RFC 5321 §4.1.2, `Dot-string`; §4.5.3.1.1.
        if local.is_empty() || local.len() > 64 || !local.split('.').all(|part| !part.is_empty() && part.bytes().all(atom)) {
            return Err(wrong("what stands before the `@` is no name of up to 64 letters, digits and single dots"));
        }
        let domain = idna::domain_to_ascii_strict(domain).ok().filter(|domain| !domain.is_empty() && !domain.ends_with('.'));
        let domain =
            domain.filter(|domain| domain.parse::<IpAddr>().is_err()).ok_or_else(|| wrong("what stands behind the `@` is no domain"))?;
        Ok(Self { name: name.map(str::trim).filter(|name| !name.is_empty()).map(Arc::from), address: format!("{local}@{domain}").into() })
    }

    /// Parses `api@example.test` or `SigmaMD API <api@example.test>`.
    fn parse(text: &str) -> Result<Self, String> {
        let Some((name, address)) = text.strip_suffix('>').and_then(|text| text.split_once('<')) else {
            return Self::new(None, text);
        };
        let name = name.trim();
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).unwrap_or(name);
        if name.chars().any(|c| c.is_control() || matches!(c, '"' | '\\')) {
            return Err(format!("`{}` has a name with a quote, a backslash or a control character: leave it out", text.escape_debug()));
        }
        Self::new(Some(name), address)
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The address, in ASCII: without a blank, a quote, a bracket or a line break.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What stands behind the `@`.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.address.rsplit_once('@').map_or("", |(_, domain)| domain)
    }
}

/// Checks what the schema could not, and fills in the defaults. Paths count from `base`; `store` is where things are kept.
pub(super) fn build(file: &MailFile, base: &Path, store: &str, env: &Environment, found: &mut Found<'_>) -> Mail {
    let of = |name| [Key("mail"), Key(name)];
    let nobody = || Mailbox::new(Some("SigmaMD API"), NOBODY).expect("an address");
    let from = file.from.as_deref().and_then(|text| found.parsed(&of("from"), Mailbox::parse(text)));
    let mut operators = Vec::new();
    let mut taken = BTreeMap::new();
    for (at, text) in file.operators.iter().enumerate() {
        let steps = [Key("mail"), Key("operators"), Index(at)];
        let Some(operator) = found.parsed(&steps, Mailbox::parse(text)) else { continue };
        if let Some(other) = taken.insert(operator.address().to_ascii_lowercase(), at) {
            found.wrong(&steps, format!("`{}` is operators[{other}] already: leave it out", operator.address()));
        }
        operators.push(operator);
    }
    let reply_to = file.reply_to.as_deref().and_then(|text| found.parsed(&of("reply_to"), Mailbox::parse(text)));
    let url = file.url.as_deref().and_then(|text| found.parsed(&of("url"), web_app(text)));
    let transport = transport(file, base, store, env, found);
    match &transport {
        MailTransport::Smtp(_) if file.from.is_none() => {
            found.wrong(&of("from"), "is not given: say whom mails are from, as `SigmaMD API <api@example.test>`");
        }
        // Files are for whoever looks: a request for access is one of them.
        MailTransport::Folder(_) if file.operators.is_empty() => operators.push(nobody()),
        _ => {}
    }
    Mail { from: from.unwrap_or_else(nobody), operators, reply_to, url, transport }
}

fn transport(file: &MailFile, base: &Path, store: &str, env: &Environment, found: &mut Found<'_>) -> MailTransport {
    let embedded = store.strip_prefix("sqlite://").map(|path| Path::new(path).with_file_name("mail"));
    match (&file.smtp, &file.folder, embedded) {
        (Some(_), Some(_), _) => {
            found.wrong(&[Key("mail"), Key("folder")], "cannot stand beside `smtp`: mails are sent, or become files");
            MailTransport::Waits
        }
        (Some(server), None, _) => smtp(server, base, env, found).map_or(MailTransport::Waits, MailTransport::Smtp),
        (None, Some(folder), _) => {
            if folder.as_os_str().is_empty() {
                found.wrong(&[Key("mail"), Key("folder")], "is empty: name a folder for mails");
            }
            MailTransport::Folder(base.join(folder))
        }
        (None, None, Some(folder)) => MailTransport::Folder(folder),
        (None, None, None) => {
            let says_more = ["from", "operators", "reply_to", "url"].into_iter().any(|name| found.has(&[Key("mail")], name));
            if says_more && store::is_fleet(store) && !found.told(&[Key("mail"), Key("smtp")]) {
                found.wrong(&[Key("mail")], "does not say how mails are sent: give `smtp`, or `folder` for files");
            }
            MailTransport::Waits
        }
    }
}

fn smtp(file: &SmtpFile, base: &Path, env: &Environment, found: &mut Found<'_>) -> Option<Smtp> {
    let of = |name| [Key("mail"), Key("smtp"), Key(name)];
    let host = found.parsed(&of("host"), host(&file.host));
    let tls = file.tls.unwrap_or_default();
    if tls == SmtpTls::None {
        if host.as_deref().is_some_and(|host| !jwks::is_loopback(host)) {
            found.wrong(&of("tls"), format!("is `none`, but `{}` is not this machine: mails would be read on the way", file.host));
        }
        if file.ca.is_some() {
            found.wrong(&of("ca"), "means nothing where `tls` is `none`: leave it out");
        }
    }
    let ca = file.ca.as_ref().map(|ca| base.join(ca));
    if let Some(ca) = ca.as_ref().filter(|_| tls != SmtpTls::None) {
        found.parsed(&of("ca"), tls::authorities(ca));
    }
    let given = file.password.as_ref().and_then(|password| found.parsed(&of("password"), secret(password, base, env)));
    for (name, value) in [("username", &file.username), ("password", &given)] {
        match value.as_deref() {
            Some("") => found.wrong(&of(name), "is empty: leave out both `username` and `password` where none are asked for"),
            Some(text) if text.chars().any(char::is_control) => found.wrong(&of(name), "has a control character"),
            _ => {}
        }
    }
    match (&file.username, &file.password) {
        (Some(_), None) => found.wrong(&of("password"), "is not given, but a `username` is"),
        (None, Some(_)) => found.wrong(&of("username"), "is not given, but a `password` is"),
        _ => {}
    }
    let login = file.username.as_deref().zip(given);
    let login = login.map(|(username, password)| SmtpLogin { username: username.into(), password: password.into() });
    let port = file.port.unwrap_or(match tls {
        SmtpTls::Starttls => 587,
        SmtpTls::Implicit => 465,
        SmtpTls::None => 25,
    });
    Some(Smtp { host: host?, port, tls, login, ca })
}

/// The name of a host, in ASCII, or an address.
fn host(text: &str) -> Result<Arc<str>, String> {
    let literal = text.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = literal.parse::<IpAddr>() {
        return Ok(address.to_string().into());
    }
    let name = idna::domain_to_ascii_strict(text).ok().filter(|name| !name.is_empty());
    name.map(Arc::from).ok_or_else(|| format!("`{}` is not the name of a host: write `smtp.example.test`", text.escape_debug()))
}

/// An address that may stand in a mail.
fn web_app(text: &str) -> Result<Arc<str>, String> {
    let wrong = |why: &str| format!("`{}` {why}: write where people log in, as `https://app.example.test`", text.escape_debug());
    let uri: http::Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    let authority = uri.authority().ok_or_else(|| wrong("is not a whole URL"))?;
    let private = text.starts_with("https://") || (text.starts_with("http://") && jwks::is_loopback(authority.host()));
    if !private {
        return Err(wrong("does not begin with `https://`, which only an address of this machine itself need not"));
    }
    if authority.as_str().contains('@') {
        return Err(wrong("has a user name or password"));
    }
    Ok(text.into())
}
