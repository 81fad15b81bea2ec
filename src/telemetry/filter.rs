//! What libraries may log, whatever the operator's filter says.

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

/// The crate, as the targets of its lines begin.
const OURS: &str = env!("CARGO_PKG_NAME");
/// Where lines of the `log` crate enter; who wrote one is known only line by line.
const BRIDGE: &str = "log";

/// What is said of single requests. pingora logs an ERROR with target and Host as the caller sent them, or with the raw
/// bytes of a header block that it could not parse, `Authorization` among them. Of all that, the access log says what is
/// needed, and no caller fills a disk with the rest.
const SILENT: [&str; 5] = ["pingora_proxy", "pingora_cache", "pingora_core::apps", "pingora_core::protocols", "pingora_core::services"];

/// Lets through what is ours, and of libraries what is wrong with them: their lower levels show header fields (h2), bytes
/// (hyper) and statements (sqlx).
#[derive(Clone, Copy, Debug, Default)]
pub struct Libraries;

impl Libraries {
    fn cap(target: &str) -> LevelFilter {
        if target.starts_with(OURS) || target == BRIDGE {
            LevelFilter::TRACE
        } else if SILENT.iter().any(|silent| target.starts_with(silent)) {
            LevelFilter::OFF
        } else {
            LevelFilter::WARN
        }
    }

    fn allows(target: &str, level: Level) -> bool {
        level <= Self::cap(target)
    }
}

impl<S> Filter<S> for Libraries {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        Self::allows(metadata.target(), *metadata.level())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if metadata.target() == BRIDGE {
            Interest::sometimes()
        } else if Self::allows(metadata.target(), *metadata.level()) {
            Interest::always()
        } else {
            Interest::never()
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Together with another filter the lower hint counts, and without one none would.
        Some(LevelFilter::TRACE)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::filter::FilterExt;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::{EnvFilter, Layer, fmt};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_that_callers_can_cause_are_left_out_even_if_the_filter_asks_for_them() {
        let buffer = Buffer::default();
        let layer = fmt::layer().with_writer({
            let buffer = buffer.clone();
            move || buffer.clone()
        });
        let filter = EnvFilter::new("trace,pingora_proxy=trace,pingora_core::protocols::http=trace");
        let subscriber = tracing_subscriber::registry().with(layer.with_filter(Libraries.and(filter)));
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "pingora_proxy", "hidden: fail to proxy");
            tracing::error!(target: "pingora_core::apps::http_app", "hidden: raw bytes");
            tracing::error!(target: "pingora_core::protocols::http::v1::server", "hidden: raw bytes");
            tracing::error!(target: "pingora_core::services::listening", "hidden: a handshake");
            tracing::info!(target: "pingora_core::server", "hidden: chatter");
            tracing::debug!(target: "h2::codec", "hidden: header fields");
            tracing::info!(target: "hyper::proto", "hidden: bytes");
            tracing::info!(target: "rustls::conn", "hidden: a handshake");
            tracing::info!(target: "sqlx::query", "hidden: a statement");
            tracing::info!(target: "a_crate_of_next_year", "hidden: whatever it says");
            tracing::warn!(target: "pingora_core::server", "shown: trouble");
            tracing::error!(target: "sqlx::pool", "shown: trouble");
            tracing::trace!(target: "sigmagate::feed", "shown: ours");
        });
        let log = String::from_utf8(buffer.0.lock().clone()).unwrap();
        assert!(!log.contains("hidden"), "{log}");
        assert_eq!(log.matches("shown").count(), 3, "{log}");
    }

    #[test]
    fn what_nobody_listens_to_costs_nothing() {
        let filter = FilterExt::<tracing_subscriber::Registry>::and(Libraries, EnvFilter::new("info"));
        assert_eq!(Filter::<tracing_subscriber::Registry>::max_level_hint(&filter), Some(LevelFilter::INFO));
    }
}
