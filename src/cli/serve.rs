//! `sigmagate serve`: the gateway itself.

use std::sync::Arc;

use crate::config::Sources;
use crate::scope::ScopeRegistry;
use crate::server::{self, Program, Server, Signals, Sockets};
use crate::store;
use crate::telemetry;

/// Runs until SIGTERM or SIGINT, or until another process has taken over (SIGUSR2).
///
/// # Errors
/// Whatever keeps it from starting, with what to do about it.
pub async fn run(sources: &Sources, database: Option<&str>) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let (program, mut sockets) = (Program::this()?, Sockets::receive()?);
    let registry = Arc::new(ScopeRegistry::default());
    let config = super::load(sources, database, &registry)?;
    telemetry::init(&config.gateway.telemetry)?;
    let settings = &config.gateway.store;
    let store = store::open(&settings.url, &settings.fleet, settings.migrate).await?;
    if store.serves_one() {
        // Nothing to wait for unless there is a gateway to take over from.
        sockets = tokio::task::spawn_blocking(move || {
            sockets.wait_for_its_end();
            sockets
        })
        .await?;
    }
    let server = tokio::select! {
        started = Server::start_on(&mut sockets, config, sources, registry, store) => started?,
        () = signals.stop() => return Ok(()),
    };
    for address in server.addresses() {
        tracing::info!(%address, "listening for applications");
    }
    tracing::info!(address = %server.management_address(), "listening for operators");
    sockets.ready();
    server::until_stopped(server, signals, Some(program)).await;
    Ok(())
}
