//! A PostgreSQL of the test's own, on a port of its own, gone when the test process is.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

/// A server. Databases in it are made one for each test.
pub struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    port: u16,
    user: Option<(u32, u32)>,
    databases: AtomicU32,
    /// Ends the server and removes its folder once the pipe to it closes, however this process ends.
    _watchdog: Child,
}

impl Postgres {
    /// A new server with the settings of `postgresql.conf` that are given.
    ///
    /// # Panics
    /// When the server programs are missing, saying how to get them.
    pub fn start(settings: &[&str]) -> Self {
        Self::begin(settings, None)
    }

    /// A new server that also takes TLS, with a certificate and its key in PEM.
    pub fn start_tls(certificate: &Path, key: &Path) -> Self {
        Self::begin(&["ssl = on", "ssl_cert_file = 'server.crt'", "ssl_key_file = 'server.key'"], Some([certificate, key]))
    }

    fn begin(settings: &[&str], tls: Option<[&Path; 2]>) -> Self {
        let mut server = Self::unmade();
        let data = server.data();
        server.run("initdb", &["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
        for (from, name) in tls.into_iter().flatten().zip(["server.crt", "server.key"]) {
            let to = server.folder.join("data").join(name);
            fs::copy(from, &to).expect("a file of the test");
            // PostgreSQL refuses a key that others may read.
            fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).expect("a file that was just made");
            if let Some((uid, gid)) = server.user {
                chown(&to, Some(uid), Some(gid)).expect("root gives files away");
            }
        }
        let mut conf = fs::OpenOptions::new().append(true).open(server.folder.join("data/postgresql.conf")).expect("initdb wrote it");
        let own = ["max_connections = 200", "shared_buffers = '32MB'", "listen_addresses = '127.0.0.1'"];
        for setting in own.iter().chain(settings) {
            writeln!(conf, "{setting}").expect("a file that was just opened");
        }
        drop(conf);
        server.launch();
        server
    }

    /// A hot standby that follows this server, with the settings that this server has now. No commit waits for it.
    pub fn standby(&self) -> Self {
        let mut server = Self::unmade();
        let primary = format!("host=127.0.0.1 port={} user=postgres application_name=standby", self.port);
        server.run("pg_basebackup", &["-d", &primary, "-D", &server.data(), "-R", "-c", "fast", "--no-sync"]);
        server.launch();
        server
    }

    /// Has every commit wait until this standby of it has the commit as well.
    pub fn wait_for(&self, standby: &Self) {
        self.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
        self.sql("SELECT pg_reload_conf()");
        while self.sql("SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'") != "1" {}
        // Each process reads the settings in its own time, and what counts is what one of them has told all: so try.
        standby.freeze();
        'waits: loop {
            let mut commit = self.psql("SELECT pg_logical_emit_message(true, '', '')");
            let mut commit = commit.stdout(Stdio::null()).spawn().expect("psql runs");
            while commit.try_wait().expect("a child of ours").is_none() {
                if self.sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == "1" {
                    standby.thaw();
                    assert!(commit.wait().expect("a child of ours").success(), "the standby takes it");
                    break 'waits;
                }
            }
        }
    }

    /// Makes a standby a primary, in a history of its own. What it followed is not told, and goes on.
    pub fn promote(&self) {
        self.run("pg_ctl", &["promote", "-w", "-D", &self.data()]);
    }

    /// A folder for a server, and who removes it.
    fn unmade() -> Self {
        let programs = programs();
        let folder = tempfile::Builder::new().prefix("sigmagate-postgres-").tempdir().expect("a temporary folder").keep();
        let user = unprivileged();
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).expect("root gives folders away");
        }
        let watchdog = {
            let mut command = as_user(user, "sh");
            // A frozen server would not hear that it is to stop.
            let ending = "read -r _; kill -CONT \"$(head -n 1 \"$1/data/postmaster.pid\")\"; \"$0/pg_ctl\" stop -D \"$1/data\" -m immediate; rm -rf \"$1\"";
            command.args(["-c", ending]).arg(&programs).arg(&folder);
            command.current_dir("/").stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
            // Its own group: Ctrl-C in the terminal ends the test, and this then ends the server.
            command.process_group(0).spawn().expect("a shell")
        };
        Self { programs, folder, port: 0, user, databases: AtomicU32::new(0), _watchdog: watchdog }
    }

    /// Starts it for the first time, on a port that is free.
    fn launch(&mut self) {
        // Between the look for a free port and the start somebody else may take it.
        for _ in 0..10 {
            self.port = TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound").port();
            if self.try_resume() {
                return;
            }
        }
        panic!("PostgreSQL does not start: {}", fs::read_to_string(self.folder.join("log")).unwrap_or_default());
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The URL of a new, empty database.
    pub fn database(&self) -> String {
        let name = format!("test_{}_{}", std::process::id(), self.databases.fetch_add(1, Ordering::Relaxed));
        self.run("createdb", &["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", &name]);
        self.url(&name)
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Turns the strict mode on in one of its databases, which has the gateway's schema.
    pub fn strict(&self, url: &str) {
        let (_, database) = url.rsplit_once('/').expect("a URL of this server");
        let place = format!("host '127.0.0.1', port '{}', dbname '{database}'", self.port);
        for statement in [
            "CREATE EXTENSION dblink",
            &format!("CREATE SERVER gateway_fence FOREIGN DATA WRAPPER dblink_fdw OPTIONS ({place})"),
            "CREATE ROLE fence LOGIN",
            "GRANT gateway_management TO fence",
            "CREATE USER MAPPING FOR postgres SERVER gateway_fence OPTIONS (user 'fence')",
            "SELECT gateway.strict(true)",
        ] {
            self.sql_in(database, statement);
        }
    }

    /// Ends the server as a crash would.
    pub fn crash(&self) {
        self.run("pg_ctl", &["stop", "-D", &self.data(), "-m", "immediate", "-w"]);
    }

    /// Starts it again, on the same port.
    pub fn resume(&self) {
        let log = || fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        assert!(self.try_resume(), "PostgreSQL does not start again; its log:\n{}", log());
    }

    /// Ends every process of it at once, with no chance to do anything: `kill -9`, or a power cut.
    pub fn kill(&self) {
        let server = self.process();
        // Stopped first, so that it starts no process that would be missed.
        signal(server, Signal::STOP);
        let all: Vec<u32> = children(server).into_iter().chain([server]).collect();
        for process in &all {
            signal(*process, Signal::KILL);
        }
        // Its memory is free for the next start only when the last one is gone.
        while all.iter().any(|process| status(*process).is_some_and(|(state, _)| state != 'Z')) {
            std::thread::yield_now();
        }
        // They name a process that, dead as it is, may not have been buried yet: the next start would take it for alive.
        for lock in ["data/postmaster.pid", &format!(".s.PGSQL.{}.lock", self.port)] {
            fs::remove_file(self.folder.join(lock)).expect("the folder is the server's own");
        }
    }

    /// Freezes every process of it: connections stay, and nothing is answered until [`thaw`](Self::thaw).
    pub fn freeze(&self) {
        let server = self.process();
        signal(server, Signal::STOP);
        for process in children(server) {
            signal(process, Signal::STOP);
        }
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        let server = self.process();
        for process in children(server).into_iter().chain([server]) {
            signal(process, Signal::CONT);
        }
    }

    /// Replaces a file in the folder of the data, as `pg_hba.conf`; in force with the next start.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.folder.join("data").join(name);
        fs::write(&path, content).expect("a folder of the test");
        if let Some((uid, gid)) = self.user {
            chown(&path, Some(uid), Some(gid)).expect("root gives files away");
        }
    }

    fn process(&self) -> u32 {
        let file = fs::read_to_string(self.folder.join("data/postmaster.pid")).expect("it runs");
        file.lines().next().and_then(|line| line.parse().ok()).expect("the first line is the process")
    }

    fn try_resume(&self) -> bool {
        let log = self.folder.join("log");
        let options = format!("-p {} -k {}", self.port, self.folder.display());
        let mut command = as_user(self.user, self.programs.join("pg_ctl"));
        command.args(["start", "-w", "-D", &self.data(), "-l"]).arg(log).args(["-o", &options]);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("pg_ctl runs").success()
    }

    fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    /// What one statement answers, as text.
    fn sql(&self, statement: &str) -> String {
        self.sql_in("postgres", statement)
    }

    fn sql_in(&self, database: &str, statement: &str) -> String {
        let output = self.psql_in(database, statement).output().expect("psql runs");
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    fn psql(&self, statement: &str) -> Command {
        self.psql_in("postgres", statement)
    }

    fn psql_in(&self, database: &str, statement: &str) -> Command {
        let mut command = as_user(self.user, self.programs.join("psql"));
        command.args(["-X", "-A", "-t", "-q", "-c", statement, &self.url(database)]).current_dir("/").stdin(Stdio::null());
        command
    }

    fn run(&self, program: &str, args: &[&str]) {
        let output = as_user(self.user, self.programs.join(program)).current_dir("/").args(args).output();
        let output = output.unwrap_or_else(|error| panic!("`{program}` of PostgreSQL does not run: {error}"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn signal(process: u32, signal: Signal) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw).expect("the id of a process");
    // It may have ended by itself.
    let _ = kill_process(process, signal);
}

/// The state of a process, and its parent.
fn status(process: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn children(of: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    processes.filter(|process| status(*process).is_some_and(|(_, parent)| parent == of)).collect()
}

fn as_user(user: Option<(u32, u32)>, program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// PostgreSQL refuses to be run by root.
fn unprivileged() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").expect("procfs").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("a list of users");
    let of = |name: &str| {
        let mut fields = users.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    Some(of("postgres").or_else(|| of("nobody")).expect("root can run PostgreSQL only as another user: add one called `postgres`"))
}

/// Where initdb and its kin are: as `SIGMAGATE_POSTGRES_BIN` says, on the path, or where Debian keeps them.
fn programs() -> PathBuf {
    let has = |folder: &Path| folder.join("initdb").is_file() && folder.join("pg_ctl").is_file();
    if let Some(folder) = std::env::var_os("SIGMAGATE_POSTGRES_BIN").map(PathBuf::from) {
        assert!(has(&folder), "SIGMAGATE_POSTGRES_BIN has no initdb: name the folder of PostgreSQL's server programs");
        return folder;
    }
    let on_path = std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    if let Some(folder) = on_path.into_iter().find(|folder| has(folder)) {
        // It may be a link to where all of them are.
        let real = folder.join("initdb").canonicalize().expect("it was just there");
        return real.parent().expect("a file is in a folder").to_owned();
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path().join("bin"))));
    newest.filter(|(_, folder)| has(folder)).max().map(|(_, folder)| folder).expect(
        "PostgreSQL's server programs (initdb) are not on this machine: `apt-get install postgresql`, or run scripts/test, which does it",
    )
}
