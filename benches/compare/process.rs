//! A contender's process: started here, ended here, and what it has cost so far.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Ends the child whatever happens.
pub struct Running {
    pub child: Child,
    begun: Instant,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    /// Starts it.
    pub fn spawn(command: &mut Command) -> std::io::Result<Self> {
        let begun = Instant::now();
        Ok(Self { child: command.spawn()?, begun })
    }

    /// Starts it, and waits until it listens everywhere. `None`, and a word on why, if it does not.
    pub fn start(name: &str, command: &mut Command, addresses: &[SocketAddr]) -> Option<Self> {
        let mut running = match Self::spawn(command.stdin(Stdio::null())) {
            Ok(running) => running,
            Err(error) => {
                println!("{name} is left out: {error}");
                return None;
            }
        };
        for address in addresses {
            while TcpStream::connect(address).is_err() {
                let ended = running.child.try_wait().ok().flatten();
                if ended.is_some() || running.begun.elapsed() > Duration::from_secs(60) {
                    println!("{name} is left out: it does not listen at {address} ({ended:?})");
                    return None;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Some(running)
    }

    /// Asks it to end, and waits until it has.
    pub fn stop(mut self) {
        let asked = Command::new("kill").arg(self.child.id().to_string()).status();
        assert!(asked.is_ok_and(|asked| asked.success()), "it runs");
        self.child.wait().expect("a child of this process");
    }

    /// How long ago it was started.
    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// User and system time of the process so far, which the kernel counts in ticks of 10 ms.
    pub fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let fields: Vec<&str> = stat[stat.rfind(')').expect("a process has a name") + 2..].split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().expect("utime") + fields[12].parse::<u64>().expect("stime");
        Duration::from_millis(ticks * 10)
    }

    /// What it has in memory.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }
}

/// An address that is free now.
pub fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("it is bound")
}

/// The first line that a program says of itself.
pub fn version(program: &str, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text).lines().find(|line| !line.trim().is_empty()).map(str::to_owned)
}
