//! A small server that takes mail, or does not.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// What the server does about STARTTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Starttls {
    Offered,
    Missing,
    Refused,
    /// Somebody on the way adds an answer in plain text.
    Injected,
    /// TLS from the start.
    Implicit,
}

/// What it says to a recipient, or to the content.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Says(&'static str),
    /// Reads part of it, and hangs up.
    Dies,
    /// Says nothing any more.
    Hangs,
}

/// How the server behaves.
#[derive(Clone, Copy)]
pub(super) struct Script {
    pub(super) starttls: Starttls,
    pub(super) mechanisms: &'static str,
    pub(super) sender: &'static str,
    pub(super) recipient: fn(&str) -> Answer,
    /// By how many contents have been sent before.
    pub(super) content: fn(usize) -> Answer,
    /// Whom the certificate is for.
    pub(super) named: &'static str,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            starttls: Starttls::Offered,
            mechanisms: "PLAIN LOGIN",
            sender: "250 ok",
            recipient: |_| Answer::Says("250 ok"),
            content: |_| Answer::Says("250 taken"),
            named: "127.0.0.1",
        }
    }
}

/// A mail that was taken.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) content: Vec<u8>,
    /// As it came, with its dots.
    pub(super) raw: Vec<u8>,
    pub(super) encrypted: bool,
    pub(super) login: Option<String>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    contents: usize,
    /// Every command, after `+` if it was encrypted.
    commands: Vec<String>,
    taken: Vec<Taken>,
}

struct Inner {
    script: Script,
    acceptor: TlsAcceptor,
    seen: Mutex<Seen>,
    changed: watch::Sender<()>,
}

pub(super) struct Server {
    pub(super) port: u16,
    /// What its certificate is vouched for by: itself.
    pub(super) certificate: PathBuf,
    inner: Arc<Inner>,
    accepts: JoinHandle<()>,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepts.abort();
    }
}

impl Server {
    pub(super) async fn start(script: Script) -> Self {
        crate::tls::install_provider();
        let made = rcgen::generate_simple_self_signed([script.named.to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("ca.pem");
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let inner = Arc::new(Inner { script, acceptor, seen: Mutex::default(), changed: watch::Sender::new(()) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let accepting = Arc::clone(&inner);
        let accepts = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                accepting.see(|seen| seen.connections += 1);
                tokio::spawn(Arc::clone(&accepting).connection(stream));
            }
        });
        Self { port, certificate, inner, accepts, _folder: folder }
    }

    pub(super) fn taken(&self) -> Vec<Taken> {
        self.inner.seen.lock().taken.clone()
    }

    pub(super) fn connections(&self) -> usize {
        self.inner.seen.lock().connections
    }

    pub(super) fn commands(&self) -> Vec<String> {
        self.inner.seen.lock().commands.clone()
    }

    /// Waits for a command that begins so.
    pub(super) async fn heard(&self, command: &str) {
        let mut changed = self.inner.changed.subscribe();
        while !self.inner.seen.lock().commands.iter().any(|heard| heard.starts_with(command)) {
            changed.changed().await.unwrap();
        }
    }
}

/// Reads a line, without its end; `None`: there is no more.
async fn line(stream: &mut (impl AsyncBufReadExt + Unpin)) -> Option<String> {
    let mut text = Vec::new();
    stream.read_until(b'\n', &mut text).await.ok().filter(|length| *length > 0)?;
    let text = String::from_utf8(text).expect("commands are ASCII");
    Some(text.strip_suffix("\r\n").expect("lines end with CR LF").to_owned())
}

async fn say(stream: &mut (impl AsyncWriteExt + Unpin), text: &str) -> Option<()> {
    stream.write_all(format!("{text}\r\n").as_bytes()).await.ok()?;
    stream.flush().await.ok()
}

impl Inner {
    fn see(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock());
        self.changed.send_replace(());
    }

    async fn connection(self: Arc<Self>, stream: TcpStream) {
        if self.script.starttls == Starttls::Implicit {
            if let Ok(stream) = self.acceptor.accept(stream).await {
                let mut stream = BufStream::new(stream);
                say(&mut stream, "220 ready").await;
                self.converse(&mut stream, true).await;
            }
            return;
        }
        let mut stream = BufStream::new(stream);
        say(&mut stream, "220 ready").await;
        if self.converse(&mut stream, false).await == Some(true)
            && let Ok(stream) = self.acceptor.accept(stream.into_inner()).await
        {
            self.converse(&mut BufStream::new(stream), true).await;
        }
    }

    /// Returns whether TLS is to begin.
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: &mut BufStream<S>, encrypted: bool) -> Option<bool> {
        let (mut login, mut from, mut to) = (None, String::new(), Vec::new());
        loop {
            let command = line(stream).await?;
            self.see(|seen| seen.commands.push(format!("{}{command}", if encrypted { "+" } else { "" })));
            let (verb, rest) = command.split_once(' ').unwrap_or((&command, ""));
            match verb {
                "EHLO" => {
                    let offers = !encrypted && !matches!(self.script.starttls, Starttls::Missing);
                    let starttls = if offers { "250-STARTTLS\r\n" } else { "" };
                    say(stream, &format!("250-test\r\n{starttls}250 AUTH {}", self.script.mechanisms)).await?;
                }
                "STARTTLS" => match self.script.starttls {
                    Starttls::Refused => say(stream, "454 not now").await?,
                    Starttls::Injected => {
                        say(stream, "220 go ahead\r\n250 AUTH PLAIN").await?;
                        return Some(true);
                    }
                    _ => {
                        say(stream, "220 go ahead").await?;
                        return Some(true);
                    }
                },
                "AUTH" => {
                    let decoded = |text: &str| String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
                    let given = if let Some(initial) = rest.strip_prefix("PLAIN ") {
                        decoded(initial)
                    } else {
                        let mut given = String::new();
                        for asked in ["Username:", "Password:"] {
                            say(stream, &format!("334 {}", STANDARD.encode(asked))).await?;
                            given = format!("{given}\0{}", decoded(&line(stream).await?));
                        }
                        given
                    };
                    let right = given == "\0api\0open sesame";
                    login = right.then_some(given);
                    say(stream, if right { "235 welcome" } else { "535 5.7.8 who are you" }).await?;
                }
                "MAIL" => {
                    from = rest.to_owned();
                    say(stream, self.script.sender).await?;
                }
                "RCPT" => {
                    let address = rest.trim_start_matches("TO:<").trim_end_matches('>').to_owned();
                    let Answer::Says(answer) = (self.script.recipient)(&address) else { return None };
                    if answer.starts_with('2') {
                        to.push(address);
                    }
                    say(stream, answer).await?;
                }
                "DATA" => {
                    let before = self.seen.lock().contents;
                    self.see(|seen| seen.contents += 1);
                    say(stream, "354 go on").await?;
                    let answer = (self.script.content)(before);
                    let (mut content, mut raw) = (Vec::new(), Vec::new());
                    loop {
                        let line = line(stream).await?;
                        if matches!(answer, Answer::Dies) {
                            return None;
                        }
                        if line == "." {
                            break;
                        }
                        raw.extend_from_slice(format!("{line}\r\n").as_bytes());
                        content.extend_from_slice(format!("{}\r\n", line.strip_prefix('.').unwrap_or(&line)).as_bytes());
                    }
                    if let Answer::Says(answer) = answer {
                        if answer.starts_with('2') {
                            let (from, to) = (from.clone(), std::mem::take(&mut to));
                            let taken = Taken { from, to, content, raw, encrypted, login: login.clone() };
                            self.see(|seen| seen.taken.push(taken));
                        }
                        say(stream, answer).await?;
                    } else {
                        self.see(|seen| seen.commands.push("(hangs)".to_owned()));
                        // Until the other side hangs up.
                        line(stream).await?;
                    }
                }
                "RSET" => {
                    to.clear();
                    say(stream, "250 ok").await?;
                }
                "QUIT" => {
                    say(stream, "221 bye").await?;
                    return None;
                }
                _ => say(stream, "500 what").await?,
            }
        }
    }
}
