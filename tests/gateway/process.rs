//! The program itself, serving in a process of its own.

use std::net::SocketAddr;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::support::World;

/// `sigmagate serve`, ready.
pub struct Process {
    pub child: Child,
    /// Where applications connect, in the order of the listeners.
    pub addresses: Vec<SocketAddr>,
    pub management: SocketAddr,
    errors: Lines,
    output: Lines,
}

/// Everything that was written so far.
struct Lines {
    text: watch::Receiver<String>,
    reader: JoinHandle<()>,
    /// How far `next` has come.
    seen: usize,
}

impl Lines {
    fn read(from: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let (sender, text) = watch::channel(String::new());
        let reader = tokio::spawn(async move {
            let mut lines = BufReader::new(from);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).await.is_ok_and(|read| read > 0) {
                sender.send_modify(|text| text.push_str(&String::from_utf8_lossy(&line)));
                line.clear();
            }
        });
        Self { text, reader, seen: 0 }
    }

    /// The first line that has these words, once it is there.
    async fn with(&mut self, words: &str) -> String {
        let find = |text: &String| text.split_inclusive('\n').find(|line| line.ends_with('\n') && line.contains(words)).map(str::to_owned);
        // An error means that the stream has ended.
        let _ = self.text.wait_for(|text| find(text).is_some()).await;
        let text = self.text.borrow();
        find(&text).unwrap_or_else(|| panic!("`{words}` was never said in {}", *text))
    }
}

impl Lines {
    /// The next line that has these words, after the last one that this found.
    async fn next(&mut self, words: &str) -> String {
        let seen = self.seen;
        let find = |text: &String| {
            let mut at = seen;
            for line in text[seen..].split_inclusive('\n') {
                at += line.len();
                if line.ends_with('\n') && line.contains(words) {
                    return Some((at, line.to_owned()));
                }
            }
            None
        };
        // An error means that the stream has ended.
        let _ = self.text.wait_for(|text| find(text).is_some()).await;
        let found = find(&self.text.borrow());
        let (at, line) = found.unwrap_or_else(|| panic!("`{words}` was not said again in {}", *self.text.borrow()));
        self.seen = at;
        line
    }
}

impl Process {
    /// Serves this world, with these variables in its environment.
    pub async fn serve(world: &World, env: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sigmagate"));
        command.arg("serve").arg("--config").arg(world.path("gateway.toml")).envs(env.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let (mut errors, output) = (Lines::read(child.stderr.take().unwrap()), Lines::read(child.stdout.take().unwrap()));
        let management = address(&errors.with("listening for operators").await);
        let log = errors.text.borrow().clone();
        let addresses = log.lines().filter(|line| line.contains("listening for applications")).map(address).collect();
        Self { child, addresses, management, errors, output }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addresses[0])
    }

    pub async fn status(&self, world: &World, path: &str, app: &str) -> u16 {
        let app = &world.apps[app];
        world.http.get(self.url(path)).basic_auth(app.id, Some(&app.secret)).send().await.unwrap().status().as_u16()
    }

    /// The line of the log that has these words, once it is there.
    pub async fn logged(&mut self, words: &str) -> Value {
        serde_json::from_str(&self.errors.with(words).await).unwrap()
    }

    /// The next line of the log that has these words, after the last one that this found.
    pub async fn logged_again(&mut self, words: &str) -> Value {
        serde_json::from_str(&self.errors.next(words).await).unwrap()
    }

    /// Whether the log has these words by now.
    pub fn has_said(&self, words: &str) -> bool {
        self.errors.text.borrow().contains(words)
    }

    /// The line of the access log that has these words, once it is there.
    pub async fn recorded(&mut self, words: &str) -> Value {
        serde_json::from_str(&self.output.with(words).await).unwrap()
    }

    pub async fn metrics(&self, world: &World) -> String {
        world.http.get(format!("http://{}/metrics", self.management)).send().await.unwrap().text().await.unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id().unwrap()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Ends it, and returns how it ended, its standard output and its standard error.
    pub async fn end(mut self, signal: Signal) -> (ExitStatus, String, String) {
        self.signal(signal);
        let status = self.child.wait().await.unwrap();
        self.output.reader.await.unwrap();
        self.errors.reader.await.unwrap();
        let text = |lines: &watch::Receiver<String>| lines.borrow().clone();
        (status, text(&self.output.text), text(&self.errors.text))
    }
}

fn address(line: &str) -> SocketAddr {
    let line: Value = serde_json::from_str(line).unwrap();
    line["address"].as_str().unwrap().parse().unwrap()
}
