//! A PostgreSQL of the tests' own: made in a temporary folder, stopped, killed, paused and started again at will, and
//! gone when the test process is, however that ends.
//!
//! Taken in by `#[path]`, from unit tests and from integration tests.

#![allow(dead_code, reason = "each test target takes what it needs")]

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use tokio::net::TcpSocket;
use tokio::sync::OnceCell;

/// How often a state is looked at that a test waits for.
const PAUSE: Duration = Duration::from_millis(10);
/// How many times, before the server is given up.
const PATIENCE: u32 = 3000;

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    /// Bound and not listening: the server may bind it too, and nobody else is given the port, not even between a stop
    /// and a start.
    _port: TcpSocket,
    /// User and group of the server, where we are root: PostgreSQL refuses to be.
    user: Option<(u32, u32)>,
    server: Mutex<Option<Child>>,
    databases: AtomicU32,
    /// Reads from us. When that ends, by whatever ends this process, it stops the server and removes the folder.
    watchdog: Child,
}

impl Postgres {
    /// The server that all tests of this process may share: each takes a [`database`](Self::database) of its own.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Postgres> = OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    /// A new server.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// A new server with settings, each as in `postgresql.conf`.
    pub async fn with(settings: &[&str]) -> Self {
        let programs = programs();
        let user = rustix::process::getuid().is_root().then(server_user);
        let folder = tempfile::Builder::new().prefix("sigmagate-pg-").tempdir().expect("a temporary folder can be made").keep();
        if let Some((user, group)) = user {
            chown(&folder, Some(user), Some(group)).expect("root may give a folder away");
        }
        let watchdog = watchdog(&programs, &folder, user);
        let socket = TcpSocket::new_v4().expect("a socket can be made");
        socket.set_reuseaddr(true).expect("a socket can be shared");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("loopback has a free port");
        let port = socket.local_addr().expect("it is bound").port();
        let server = Self { programs, folder, port, _port: socket, user, server: Mutex::new(None), databases: AtomicU32::new(0), watchdog };
        server.make();
        server.configure(settings);
        server.launch().await;
        server
    }

    /// The URL of a new, empty database, as its owner and superuser `postgres`.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut conn = self.connect("postgres").await.expect("the server answers");
        let sql = format!("CREATE DATABASE {name} TEMPLATE template0");
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.expect("a database can be made");
        conn.close().await.expect("the server answers");
        self.url(&name)
    }

    /// The URL of a database, over TCP.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of a database, over the Unix socket.
    pub fn socket_url(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{folder}:{}/{database}", self.port)
    }

    /// The TCP port, on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the data, with the server's configuration.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Appends lines to `postgresql.conf`: in force after [`restart`](Self::restart).
    pub fn configure(&self, settings: &[&str]) {
        let mut file = OpenOptions::new().append(true).open(self.data().join("postgresql.conf")).expect("initdb has made it");
        for setting in settings {
            writeln!(file, "{setting}").expect("the temporary folder has room");
        }
    }

    /// Writes a file that only the server may read into its data folder: a key, a certificate, `pg_hba.conf`.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.data().join(name);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).expect("the folder is ours");
        file.write_all(content.as_bytes()).expect("the temporary folder has room");
        if let Some((user, group)) = self.user {
            chown(&path, Some(user), Some(group)).expect("root may give a file away");
        }
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Kills every process of the server at once, as a power cut does.
    pub async fn kill(&self) {
        let workers = self.kill_all();
        // The shared memory is free for the next start only when the last one is gone.
        until("the killed processes are gone", async || !workers.iter().any(|process| is_alive(*process))).await;
    }

    /// Stops the server without a checkpoint (`pg_ctl stop -m immediate`): the next start recovers.
    pub async fn stop_immediate(&self) {
        self.end(Signal::QUIT).await;
    }

    /// Stops the server, which ends its connections (`pg_ctl stop -m fast`).
    pub async fn stop(&self) {
        self.end(Signal::INT).await;
    }

    /// Stops the server if it runs, and starts it, on the same port.
    pub async fn restart(&self) {
        self.stop().await;
        self.launch().await;
    }

    /// Freezes every process of the server until [`resume`](Self::resume): connections stay open and say nothing.
    pub fn pause(&self) {
        let server = self.pid();
        signal(server, Signal::STOP);
        for process in children(server) {
            signal(process, Signal::STOP);
        }
    }

    /// Lets the server go on.
    pub fn resume(&self) {
        let server = self.pid();
        for process in children(server).into_iter().chain([server]) {
            signal(process, Signal::CONT);
        }
    }

    async fn connect(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        PgConnection::connect(&self.url(database)).await
    }

    fn make(&self) {
        let mut initdb = self.command("initdb");
        initdb.args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "-D"]).arg(self.data());
        let output = initdb.output().expect("initdb can be run");
        assert!(output.status.success(), "initdb failed: {}", String::from_utf8_lossy(&output.stderr));
        self.configure(&[
            "listen_addresses = '127.0.0.1'",
            &format!("port = {}", self.port),
            &format!("unix_socket_directories = '{}'", self.folder.display()),
            "max_connections = 200",
            "fsync = on",
            "shared_buffers = 16MB",
            "dynamic_shared_memory_type = mmap",
            "log_line_prefix = '%m %d %u '",
        ]);
    }

    async fn launch(&self) {
        let log = OpenOptions::new().create(true).append(true).open(self.folder.join("log")).expect("the folder is ours");
        let mut command = self.command("postgres");
        // Its own process group: what interrupts the tests must not reach it, the watchdog ends it.
        command.arg("-D").arg(self.data()).stdout(log.try_clone().expect("a file can be shared")).stderr(log).process_group(0);
        let child = command.spawn().expect("postgres can be run");
        *self.server.lock().expect("no holder panics") = Some(child);
        until("the server takes connections", async || {
            assert!(self.exited().is_none(), "the server ended: {}", self.log());
            match self.connect("postgres").await {
                Ok(conn) => conn.close().await.is_ok(),
                Err(_) => false,
            }
        })
        .await;
    }

    fn kill_all(&self) -> Vec<u32> {
        let Some(mut child) = self.take() else { return Vec::new() };
        // Stopped first, so that it starts no process that would be missed.
        signal(child.id(), Signal::STOP);
        let workers = children(child.id());
        for process in workers.iter().copied().chain([child.id()]) {
            signal(process, Signal::KILL);
        }
        child.wait().expect("it is our child");
        workers
    }

    async fn end(&self, how: Signal) {
        let Some(child) = self.take() else { return };
        signal(child.id(), Signal::CONT);
        signal(child.id(), how);
        *self.server.lock().expect("no holder panics") = Some(child);
        until("the server has ended", async || self.exited().is_some()).await;
        self.take();
    }

    fn exited(&self) -> Option<std::process::ExitStatus> {
        self.server.lock().expect("no holder panics").as_mut().and_then(|child| child.try_wait().expect("it is our child"))
    }

    fn take(&self) -> Option<Child> {
        self.server.lock().expect("no holder panics").take()
    }

    fn pid(&self) -> u32 {
        self.server.lock().expect("no holder panics").as_ref().expect("the server runs").id()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        // A time zone, a service file or a host in the environment would be taken for a setting.
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").current_dir(&self.folder).stdin(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill_all();
        drop(self.watchdog.stdin.take());
        // Nothing can be done about a folder that stays.
        let _ = self.watchdog.wait();
    }
}

/// A process that reads from us until we are no more, then stops the server and removes the folder.
fn watchdog(programs: &Path, folder: &Path, user: Option<(u32, u32)>) -> Child {
    const SCRIPT: &str = r#"
        trap '' INT TERM HUP
        read -r _
        if [ -s "$2/data/postmaster.pid" ]; then
            kill -CONT "$(head -n 1 "$2/data/postmaster.pid")"
            "$1/pg_ctl" stop -s -m immediate -D "$2/data"
        fi
        cd / && rm -rf "$2"
    "#;
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT, "watchdog"]).arg(programs).arg(folder).current_dir(folder).process_group(0);
    if let Some((user, group)) = user {
        command.uid(user).gid(group);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("`sh` can be run")
}

/// The folder with `initdb` and `postgres`.
fn programs() -> PathBuf {
    if let Some(given) = std::env::var_os("SIGMAGATE_POSTGRES_BIN") {
        let given = PathBuf::from(given);
        assert!(given.join("initdb").exists(), "SIGMAGATE_POSTGRES_BIN names `{}`, where there is no `initdb`", given.display());
        return given;
    }
    let on_path = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let mut packaged: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path().join("bin")).collect();
    let version = |path: &PathBuf| path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse::<u32>().ok());
    packaged.sort_by_key(|path| std::cmp::Reverse(version(path)));
    on_path
        .into_iter()
        .chain(packaged)
        .find(|folder| ["initdb", "postgres", "pg_ctl"].iter().all(|program| folder.join(program).exists()))
        .unwrap_or_else(|| {
            panic!(
                "these tests start a PostgreSQL of their own, and there is no `initdb` on PATH or under /usr/lib/postgresql: \
                 `apt-get install postgresql` (scripts/test does), or name the folder of the programs in SIGMAGATE_POSTGRES_BIN"
            )
        })
}

/// User and group of `postgres`, which its package creates; else those of `nobody`.
fn server_user() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("there are users");
    let ids = |name: &str| {
        let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields.first() == Some(&name))?;
        fields.truncate(4);
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).expect("PostgreSQL refuses to run as root, and there is no user `postgres` to run it as")
}

fn signal(process: u32, signal: Signal) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("a process has a positive id");
    // It may have ended by itself.
    let _ = kill_process(process, signal);
}

/// The state and the parent of a process.
fn status(process: &str) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn is_alive(process: u32) -> bool {
    status(&process.to_string()).is_some_and(|(state, _)| state != 'Z')
}

fn children(of: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.file_name());
    let processes = processes.filter_map(|name| Some(name.to_str()?.to_owned()));
    processes.filter(|process| status(process).is_some_and(|(_, parent)| parent == of)).filter_map(|process| process.parse().ok()).collect()
}

/// Waits for a state, looking again and again.
async fn until(what: impl Display, mut reached: impl AsyncFnMut() -> bool) {
    for _ in 0..PATIENCE {
        if reached().await {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    panic!("waited in vain until {what}");
}
