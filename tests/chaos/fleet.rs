//! Gateways as processes, each behind a link of its own to one PostgreSQL.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::link::Link;

/// One gateway, through its lives.
pub struct Gateway {
    pub link: Link,
    dir: PathBuf,
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    child: Option<Child>,
    /// Where it listens now; `None` while it is dead.
    address: Option<SocketAddr>,
    lives: u32,
}

impl Gateway {
    /// A gateway that is not started yet; `database` is the name of the database, `store` further settings of it.
    pub fn new(dir: &Path, link: Link, database: &str, store: &str, upstream: SocketAddr) -> Self {
        fs::create_dir_all(dir).unwrap();
        let url = format!("postgres://postgres@{}/{database}", link.address);
        let settings = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[data_plane]\nthreads = 1\n[management]\naddress = \"127.0.0.1:0\"\n[telemetry]\naccess_log = false\n\
             [limits.failed_authentications]\nper_minute = 1000000\nburst = 1000000\n[store]\nurl = \"{url}\"\n{store}\n"
        );
        let routes = format!(
            "scopes = [\"billing\"]\n[upstreams.core]\nservers = [\"http://{upstream}\"]\n[[routes]]\nprefix = \"/billing\"\nscopes = [\"billing\"]\nupstream = \"core\"\n"
        );
        fs::write(dir.join("gateway.toml"), settings).unwrap();
        fs::write(dir.join("routes.toml"), routes).unwrap();
        Self { link, dir: dir.to_owned(), life: Mutex::default() }
    }

    /// Starts it, and waits until it listens; it does not before it has its first lease.
    pub async fn start(&self) {
        let log = {
            let mut life = self.life.lock();
            life.lives += 1;
            let log = self.dir.join(format!("{}.log", life.lives));
            let out = File::create(&log).unwrap();
            let mut command = Command::new(env!("CARGO_BIN_EXE_sigmagate"));
            command.arg("serve").arg("--config").arg(self.dir.join("gateway.toml"));
            command.stdin(Stdio::null()).stderr(out.try_clone().unwrap()).stdout(out);
            life.child = Some(command.spawn().unwrap());
            log
        };
        loop {
            let text = fs::read_to_string(&log).unwrap();
            if let Some(address) = text.lines().find_map(|line| said(line, "listening for applications")) {
                self.life.lock().address = Some(address);
                return;
            }
            let ended = self.life.lock().child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some());
            // One that finds no database at its start says so and ends, as it should; whoever runs it starts it again.
            if ended {
                sleep(Duration::from_millis(50)).await;
                return Box::pin(self.start()).await;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.life.lock().address
    }

    /// Where its operators connect, once it listens.
    pub fn management(&self) -> Option<SocketAddr> {
        self.log().lines().find_map(|line| said(line, "listening for operators"))
    }

    /// What it has said in its present life.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.join(format!("{}.log", self.life.lock().lives))).unwrap()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.life.lock().child.as_ref().map_or(0, Child::id)
    }

    /// Asks it to end, and waits for that.
    pub fn terminate(&self) {
        let mut life = self.life.lock();
        life.address = None;
        if let Some(mut child) = life.child.take() {
            kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), Signal::TERM).unwrap();
            child.wait().unwrap();
        }
    }

    /// Ends it as a crash would.
    pub fn kill(&self) {
        let mut life = self.life.lock();
        life.address = None;
        if let Some(mut child) = life.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops its clockwork, or lets it go on.
    pub fn pause(&self, paused: bool) {
        if let Some(child) = &self.life.lock().child {
            let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            kill_process(pid, if paused { Signal::STOP } else { Signal::CONT }).unwrap();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address in a line of the log that says this.
fn said(line: &str, what: &str) -> Option<SocketAddr> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    (line["message"] == what).then(|| line["address"].as_str()?.parse().ok())?
}
