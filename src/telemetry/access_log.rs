//! One line of JSON for each request, written by a thread of its own. A reader that is too slow costs lines, which are
//! counted, and never a request.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::id::ClientId;
use crate::metrics::Metrics;
use crate::record::Record;

/// Lines that may wait for their reader.
const WAITING: usize = 8192;
/// Bytes of a path that a line has at most.
const PATH_BYTES: usize = 1024;

#[derive(Serialize)]
struct Line<'a> {
    time: Timestamp,
    request_id: &'a str,
    peer: IpAddr,
    version: &'a str,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    practice: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<ClientId>,
    outcome: &'a str,
    status: u16,
    latency_ms: f64,
    request_bytes: u64,
    response_bytes: u64,
}

/// The access log. Dropping it writes what still waits.
pub struct AccessLog {
    lines: Option<SyncSender<Vec<u8>>>,
    writer: Option<JoinHandle<()>>,
    metrics: Arc<Metrics>,
}

impl AccessLog {
    /// An access log on standard output.
    #[must_use]
    pub fn stdout(metrics: Arc<Metrics>) -> Self {
        Self::new(std::io::stdout(), metrics)
    }

    /// An access log that is written to `out`.
    ///
    /// # Panics
    /// When no thread can be had.
    #[must_use]
    pub fn new(out: impl Write + Send + 'static, metrics: Arc<Metrics>) -> Self {
        let (lines, waiting) = sync_channel(WAITING);
        let writer = std::thread::Builder::new().name("access-log".into()).spawn(move || write_all(&waiting, out));
        Self { lines: Some(lines), writer: Some(writer.expect("a thread can be started")), metrics }
    }

    /// Writes a line about a request, soon.
    pub fn write(&self, record: &Record<'_>) {
        let mut end = record.path.len().min(PATH_BYTES);
        while !record.path.is_char_boundary(end) {
            end -= 1;
        }
        let line = Line {
            time: record.at,
            request_id: record.request_id,
            peer: record.peer,
            version: record.version,
            method: record.method,
            path: &record.path[..end],
            route: record.route.map(|route| route.prefix.as_str()),
            practice: record.practice,
            client: record.client,
            outcome: record.outcome,
            status: record.status,
            latency_ms: (record.latency.as_secs_f64() * 1e6).round() / 1e3,
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
        };
        let Ok(mut text) = serde_json::to_vec(&line) else { return };
        text.push(b'\n');
        if let Some(lines) = &self.lines
            && let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = lines.try_send(text)
        {
            self.metrics.access_log_dropped();
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn write_all(waiting: &Receiver<Vec<u8>>, out: impl Write) {
    let mut out = std::io::BufWriter::new(out);
    while let Ok(line) = waiting.recv() {
        // Nobody reads any more: the channel is closed, and what comes is counted as dropped.
        if out.write_all(&line).is_err() {
            return;
        }
        while let Ok(line) = waiting.try_recv() {
            if out.write_all(&line).is_err() {
                return;
            }
        }
        if out.flush().is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;

    fn record(path: &str) -> Record<'_> {
        Record {
            at: Timestamp(1_700_000_000_123),
            request_id: "id",
            peer: [127, 0, 0, 1].into(),
            version: "HTTP/1.1",
            method: "GET",
            path,
            route: None,
            practice: None,
            client: None,
            outcome: "no_route",
            status: 404,
            latency: Duration::from_micros(1234),
            request_bytes: 1,
            response_bytes: 2,
        }
    }

    struct Sink(Sender<Vec<u8>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn nothing_in_a_request_can_forge_a_second_line() {
        let (sink, written) = channel();
        let log = AccessLog::new(Sink(sink), Metrics::new());
        let path = "/a\r\n{\"outcome\":\"permit\"}\u{1b}[2J\"\\\u{0}";
        log.write(&record(path));
        log.write(&record(&"/é".repeat(2000)));
        drop(log);
        let text = String::from_utf8(written.iter().flatten().collect()).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((lines[0]["path"].as_str().unwrap(), lines[0]["outcome"].as_str().unwrap()), (path, "no_route"));
        assert_eq!((lines[0]["time"].as_str().unwrap(), lines[0]["latency_ms"].as_f64().unwrap()), ("2023-11-14T22:13:20.123Z", 1.234));
        assert!(lines[1]["path"].as_str().unwrap().len() <= PATH_BYTES);
    }

    #[test]
    fn a_reader_that_is_stuck_costs_lines_and_not_requests() {
        struct Stuck(Receiver<()>);
        impl Write for Stuck {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                let _ = self.0.recv();
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (release, stuck) = channel();
        let metrics = Metrics::new();
        let log = AccessLog::new(Stuck(stuck), Arc::clone(&metrics));
        let dropped =
            || metrics.encode().lines().any(|line| line.starts_with("sigmagate_access_log_dropped_total ") && !line.ends_with(" 0"));
        while !dropped() {
            for _ in 0..WAITING {
                log.write(&record("/a"));
            }
        }
        drop(release);
    }
}
