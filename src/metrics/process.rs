//! What the kernel says of this process.

use prometheus::{Gauge, IntGauge, Registry};

use super::add;

pub(super) struct Process {
    resident: IntGauge,
    descriptors: IntGauge,
    cpu: Gauge,
}

impl Process {
    pub(super) fn new(registry: &Registry) -> Self {
        let process = Self {
            resident: add(registry, IntGauge::new("process_resident_memory_bytes", "Memory in use.")),
            descriptors: add(registry, IntGauge::new("process_open_fds", "Open file descriptors.")),
            cpu: add(registry, Gauge::new("process_cpu_seconds_total", "User and system CPU time.")),
        };
        let start = add(registry, Gauge::new("process_start_time_seconds", "When the process began, in seconds since 1970."));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double")]
        start.set(crate::clock::now().0 as f64 / 1000.0);
        process
    }

    /// Reads anew; what cannot be read stays as it was.
    pub(super) fn read(&self) {
        if let Some(pages) = std::fs::read_to_string("/proc/self/statm").ok().and_then(|text| text.split(' ').nth(1)?.parse::<i64>().ok()) {
            self.resident.set(pages * i64::try_from(rustix::param::page_size()).unwrap_or(4096));
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // One of them is the folder itself.
            self.descriptors.set(i64::try_from(open.count()).unwrap_or(i64::MAX) - 1);
        }
        if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
            && let Some((_, rest)) = stat.rsplit_once(')')
        {
            let ticks: u32 = rest.split_ascii_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
            self.cpu.set(f64::from(ticks) / f64::from(u32::try_from(rustix::param::clock_ticks_per_second()).unwrap_or(100)));
        }
    }
}
