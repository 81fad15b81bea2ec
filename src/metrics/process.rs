//! What the kernel says of this process, under the names that Prometheus' own clients use.

use std::fs;

use prometheus::{Counter, Gauge, Registry};

use super::add;

pub(super) struct Process {
    resident_memory: Gauge,
    virtual_memory: Gauge,
    open_descriptors: Gauge,
    max_descriptors: Gauge,
    threads: Gauge,
    cpu: Counter,
}

impl Process {
    pub(super) fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| add(registry, Gauge::new(name, help));
        let start = gauge("process_start_time_seconds", "When the process began, in seconds since 1970.");
        // It never changes, so it is read once.
        start.set(start_time().unwrap_or(0.0));
        Self {
            resident_memory: gauge("process_resident_memory_bytes", "Memory in use."),
            virtual_memory: gauge("process_virtual_memory_bytes", "Address space in use."),
            open_descriptors: gauge("process_open_fds", "Open file descriptors."),
            max_descriptors: gauge("process_max_fds", "File descriptors that may be open."),
            threads: gauge("process_threads", "Threads."),
            cpu: add(registry, Counter::new("process_cpu_seconds_total", "User and system CPU time.")),
        }
    }

    /// Reads anew; what cannot be read stays as it was.
    pub(super) fn read(&self) {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (gauge, key, unit) in
            [(&self.resident_memory, "VmRSS:", 1024.0), (&self.virtual_memory, "VmSize:", 1024.0), (&self.threads, "Threads:", 1.0)]
        {
            if let Some(value) = field(&status, key) {
                gauge.set(value * unit);
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of them is the folder itself.
            self.open_descriptors.set(f64::from(u32::try_from(open.count().saturating_sub(1)).unwrap_or(u32::MAX)));
        }
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        if let Some(rest) = limits.lines().find_map(|line| line.strip_prefix("Max open files")) {
            self.max_descriptors.set(rest.split_whitespace().next().and_then(|soft| soft.parse().ok()).unwrap_or(f64::INFINITY));
        }
        // Two scrapes at once may each see the other's part, and a counter cannot fall.
        if let Some(grown) = cpu_time().map(|total| total - self.cpu.get()).filter(|grown| *grown > 0.0) {
            self.cpu.inc_by(grown);
        }
    }
}

/// The number behind a key of `/proc/self/status` or `/proc/stat`.
fn field(text: &str, key: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// The fields of `/proc/self/stat` from the third on (proc(5)): the second, the name of the program, may hold anything.
fn stat(fields: impl IntoIterator<Item = usize>) -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let rest: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.into_iter().map(|field| rest.get(field - 3)?.parse::<f64>().ok()).sum::<Option<f64>>()?;
    Some(ticks / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).ok()?))
}

/// Seconds of user and system CPU time.
fn cpu_time() -> Option<f64> {
    stat([14, 15])
}

/// Seconds since 1970: the moment of the boot, and the ticks from then to the start of the process.
fn start_time() -> Option<f64> {
    Some(field(&fs::read_to_string("/proc/stat").ok()?, "btime ")? + stat([22])?)
}
