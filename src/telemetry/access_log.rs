//! One line of JSON for each request, written by a thread of its own. A reader that is too slow costs lines, which are
//! counted, and never a request.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use super::line;
use crate::metrics::Metrics;
use crate::record::Record;

/// Lines that may wait for their reader.
const WAITING: usize = 8192;

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
        let mut text = Vec::with_capacity(512);
        let written = line::write(record, &mut text).is_ok();
        if let Some(lines) = &self.lines
            && (!written || lines.try_send(text).is_err())
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
    use crate::clock::Timestamp;

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
            user: None,
            owner: None,
            generation: None,
            ended: None,
            outcome: "no_route",
            status: 404,
            latency: Duration::from_micros(1234),
            upstream_latency: None,
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
    fn every_line_is_written_before_the_log_is_gone() {
        let (sink, written) = channel();
        let log = AccessLog::new(Sink(sink), Metrics::new());
        (0..100).for_each(|_| log.write(&record("/a\r\n\"\u{1b}")));
        drop(log);
        let text = String::from_utf8(written.iter().flatten().collect()).unwrap();
        assert_eq!(text.lines().count(), 100);
        for line in text.lines() {
            assert_eq!(serde_json::from_str::<serde_json::Value>(line).unwrap()["path"], "/a\r\n\"\u{1b}");
        }
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
