//! `sigmagate serve`: the gateway itself.

use std::sync::Arc;

use crate::config::Sources;
use crate::scope::ScopeRegistry;
use crate::server::{self, Server, Signals};
use crate::store;
use crate::telemetry;

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting, with what to do about it.
pub async fn run(sources: &Sources, database: Option<&str>) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let registry = Arc::new(ScopeRegistry::default());
    let config = super::load(sources, database, &registry)?;
    telemetry::init(&config.gateway.telemetry)?;
    let settings = &config.gateway.store;
    let store = store::open(&settings.url, &settings.fleet, settings.migrate).await?;
    let server = tokio::select! {
        started = Server::start(config, sources, registry, store) => started?,
        () = signals.stop() => return Ok(()),
    };
    for address in server.addresses() {
        tracing::info!(%address, "listening for applications");
    }
    tracing::info!(address = %server.management_address(), "listening for operators");
    server::until_stopped(server, signals).await;
    Ok(())
}
