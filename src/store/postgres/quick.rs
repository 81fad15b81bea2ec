//! The line that is quick: a notification wakes it, and the log tells what has changed. It vouches for nothing.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::Acquire;
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::time::timeout;

use super::fault::{explain, unusable};
use super::register::Node;
use super::{Shared, changes};
use crate::id::Revision;
use crate::store::{Changes, Error, Quick};

/// What every commit of a change notifies.
const CHANNEL: &str = "gateway_change";

pub(super) struct PgQuick {
    shared: Arc<Shared>,
    node: Node,
    /// A connection of its own, given up at the first sign of trouble: sqlx would reconnect in silence, and what was
    /// notified meanwhile would be lost.
    listener: Option<PgListener>,
}

impl PgQuick {
    pub(super) fn new(shared: Arc<Shared>, node: Node) -> Self {
        Self { shared, node, listener: None }
    }

    async fn connect(&self) -> Result<PgListener, Error> {
        // An acknowledgement need not survive a crash of the server, so it need not wait for the disk.
        let options = self.shared.options.clone().options([("synchronous_commit", "off")]);
        let pool = PgPoolOptions::new().max_connections(1).idle_timeout(None).max_lifetime(None).connect_with(options).await?;
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.ignore_pool_close_event(true);
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }

    /// Runs `work` on the connection; where it fails, or takes too long, the connection is gone.
    async fn on<T>(&mut self, work: impl AsyncFnOnce(&mut PgListener, &Node) -> Result<T, Error>) -> Result<T, Error> {
        let limit = self.shared.timing.patience();
        let listener = self.listener.take();
        let work = async {
            let mut listener = listener.ok_or_else(|| unusable("the connection that listens is gone".to_owned()))?;
            let done = work(&mut listener, &self.node).await?;
            Ok((listener, done))
        };
        let done = timeout(limit, work).await;
        match done {
            Ok(Ok((listener, done))) => {
                self.listener = Some(listener);
                Ok(done)
            }
            Ok(Err(error)) => Err(explain(&self.shared.place, error)),
            Err(_) => Err(unusable(format!("the database did not answer within {} ms", limit.as_millis()))),
        }
    }
}

#[async_trait]
impl Quick for PgQuick {
    async fn hint(&mut self) -> Result<(), Error> {
        let Some(listener) = &mut self.listener else {
            let connected = timeout(self.shared.timing.patience(), self.connect()).await;
            let connected = connected.unwrap_or_else(|_| Err(unusable("no connection to listen on in time".to_owned())));
            self.listener = Some(connected.map_err(|error| explain(&self.shared.place, error))?);
            // Whatever was notified before: read now.
            return Ok(());
        };
        match timeout(self.shared.timing.heartbeat, listener.try_recv()).await {
            // Several notices may have come together; one reading is enough for all.
            Ok(Ok(Some(_))) => while listener.next_buffered().is_some() {},
            // In vain, but a question on this very link shows whether it is dead.
            Err(_) => {}
            Ok(lost) => {
                self.listener = None;
                let why = lost.err().map_or_else(|| "the server closed it".to_owned(), |error| error.to_string());
                return Err(unusable(format!("the connection that listens is gone: {why}")));
            }
        }
        Ok(())
    }

    async fn read(&mut self, after: Revision) -> Result<Changes, Error> {
        self.on(async |listener, node| {
            let conn = listener.acquire().await?;
            changes::after(conn, node, after).await
        })
        .await
    }

    async fn acknowledge(&mut self, applied: Revision) -> Result<(), Error> {
        self.on(async |listener, node| {
            let conn = listener.acquire().await?;
            node.acknowledge(conn, i64::try_from(applied.0).unwrap_or(i64::MAX)).await
        })
        .await
    }
}
