//! Logs, and what takes note of each request.

mod access_log;
mod filter;
mod line;

use std::io::IsTerminal;
use std::sync::Arc;

use anyhow::Context;
use arc_swap::ArcSwap;
use tracing_subscriber::filter::{EnvFilter, FilterExt};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

pub use access_log::AccessLog;
use filter::Libraries;

use crate::config::{LogFormat, Telemetry};
use crate::metrics::{Metrics, RouteMetrics};
use crate::record::{Record, Recorder};
use crate::route::RouteTable;
use crate::tally::Tally;

/// Sends log lines to standard error from now on, those that libraries write through the `log` crate included. Called
/// once, by what runs.
///
/// # Errors
/// A filter that cannot be read; or logs are sent somewhere already.
pub fn init(settings: &Telemetry) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log).context("`telemetry.log` is not a log filter")?;
    // A reader of the log that has gone away must not take the gateway along: complaining about it on the same pipe would.
    let lines = fmt::layer().log_internal_errors(false).with_writer(std::io::stderr);
    let lines = match settings.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        // Colours would let whoever reads the log from a file see escape sequences instead.
        LogFormat::Text => lines.with_target(false).with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(Libraries.and(filter)))
        .try_init()
        .map_err(|error| anyhow::anyhow!("logs are set up already: {error}"))
}

/// Takes note of each request: in the metrics, in the access log where there is one, and for those whose request it was.
pub struct Observer {
    metrics: Arc<Metrics>,
    routes: ArcSwap<RouteMetrics>,
    access_log: Option<AccessLog>,
    tally: Arc<Tally>,
}

impl Observer {
    /// An observer that knows no routes yet.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, access_log: Option<AccessLog>, tally: Arc<Tally>) -> Self {
        let none = RouteTable::new(Vec::new(), false).expect("no routes, no conflict");
        let routes = ArcSwap::from_pointee(metrics.for_routes(&none, None));
        Self { metrics, routes, access_log, tally }
    }

    /// Counts under the routes of this table from now on.
    pub fn install_routes(&self, table: &RouteTable) {
        self.routes.store(Arc::new(self.metrics.for_routes(table, Some(&self.routes.load()))));
    }
}

impl Recorder for Observer {
    fn record(&self, record: &Record<'_>) {
        self.routes.load().record(record);
        if let Some(log) = &self.access_log {
            log.write(record);
        }
        self.tally.record(record);
    }
}
