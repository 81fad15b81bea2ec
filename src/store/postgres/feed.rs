//! The line that vouches: a heartbeat, which is a write, and everything that was committed before its answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::time::{sleep, timeout};

use super::barrier::outwaited;
use super::fault::{explain, unusable};
use super::quick::PgQuick;
use super::register::{Node, prove_log};
use super::{Shared, changes};
use crate::clock::{BootTime, boot_time};
use crate::id::Revision;
use crate::store::{Changes, Error, Feed, Fill, Quick};

/// How often the triggers are looked at, and old changes forgotten.
const CHORES: Duration = Duration::from_secs(60);

/// One node's line.
pub(super) struct PgFeed {
    shared: Arc<Shared>,
    /// Its own, of no pool. Dropped, which closes it, whenever a question on it was not answered: a question must never
    /// be cancelled, for a cancelled commit looks like one that was made.
    conn: Option<PgConnection>,
    node: Option<Node>,
    silent: Silent,
    /// In the register, when it was last read.
    nodes: usize,
    chores_done: BootTime,
    /// Whether there may be tokens to forget.
    forgets: bool,
    asked: BootTime,
    /// How much longer than its lease this node would answer, and how much of that the register says.
    grace: (Duration, Duration),
}

/// Since when, by this node's own clock, each node of the register has shown no new heartbeat.
#[derive(Default)]
struct Silent(HashMap<String, (i64, BootTime)>);

impl PgFeed {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            conn: None,
            node: None,
            silent: Silent::default(),
            nodes: 0,
            chores_done: BootTime(0),
            forgets: false,
            asked: BootTime(0),
            grace: Default::default(),
        }
    }

    /// Runs `work` on the connection, in a time that is at most `limit`. Where it fails the connection is gone.
    async fn on<T>(
        &mut self,
        limit: Option<Duration>,
        work: impl AsyncFnOnce(&mut PgConnection, &mut Self) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let done = {
            let work = async {
                let mut conn = match self.conn.take() {
                    Some(conn) => conn,
                    None => self.shared.options.connect().await?,
                };
                let done = work(&mut conn, self).await?;
                Ok((conn, done))
            };
            match limit {
                Some(limit) => timeout(limit, work)
                    .await
                    .unwrap_or_else(|_| Err(unusable(format!("the database did not answer within {} ms", limit.as_millis())))),
                None => work.await,
            }
        };
        match done {
            Ok((conn, done)) => {
                self.conn = Some(conn);
                Ok(done)
            }
            Err(error) => Err(explain(&self.shared.place, error)),
        }
    }

    fn node(&self) -> Result<Node, Error> {
        self.node.clone().ok_or_else(|| unusable("the node is not registered: register it first".to_owned()))
    }

    /// Takes nodes out of the register that can no longer answer: they have shown no heartbeat for as long as their
    /// lease may be believed in, counted from when this node first saw the last one. (Not from when a connection broke,
    /// or from any time that another clock tells: a node may be cut off and still be answering.)
    async fn reap(&mut self, conn: &mut PgConnection) -> Result<(), Error> {
        let rows: Vec<(String, i64, i64)> =
            sqlx::query_as("SELECT node_id, beat, bound_ms FROM gateway.nodes").fetch_all(&mut *conn).await?;
        // After the reading: what is seen now was there already.
        let now = boot_time();
        self.nodes = rows.len();
        self.silent.0.retain(|id, _| rows.iter().any(|(known, ..)| known == id));
        for (id, beat, bound_ms) in rows {
            let seen = self.silent.0.entry(id.clone()).or_insert((beat, now));
            if seen.0 != beat {
                *seen = (beat, now);
            } else if outwaited(Duration::from_millis(u64::try_from(bound_ms).unwrap_or(u64::MAX)), seen.1, now) {
                let done = sqlx::query("DELETE FROM gateway.nodes WHERE node_id = $1 AND beat = $2")
                    .bind(&id)
                    .bind(beat)
                    .execute(&mut *conn)
                    .await?;
                if done.rows_affected() > 0 {
                    self.nodes -= 1;
                    tracing::warn!(node = id, "a node has been silent for longer than its lease, and is out of the register");
                }
            }
        }
        Ok(())
    }

    async fn chores(&mut self, conn: &mut PgConnection) -> Result<(), Error> {
        let now = boot_time();
        if now.since(self.chores_done) >= CHORES {
            prove_log(conn).await.map_err(|error| Error::Deposed(error.to_string()))?;
            sqlx::query("SELECT gateway.prune()").execute(&mut *conn).await?;
            self.chores_done = now;
            self.forgets = true;
        }
        if self.forgets {
            self.forgets = forget(conn).await?;
        }
        Ok(())
    }
}

/// Forgets some tokens that are over; whether there may be more. As above, it must not keep the answer that vouches.
pub(super) async fn forget(conn: &mut PgConnection) -> Result<bool, Error> {
    let mut transaction = conn.begin().await?;
    let forgotten = async {
        sqlx::raw_sql("SET LOCAL lock_timeout = '50ms'").execute(&mut *transaction).await?;
        let more = sqlx::query_scalar("SELECT gateway.prune_tokens()").fetch_one(&mut *transaction).await?;
        sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *transaction).await?;
        Ok::<bool, sqlx::Error>(more)
    };
    match forgotten.await {
        Ok(more) => {
            transaction.commit().await?;
            Ok(more)
        }
        Err(error) => {
            tracing::warn!(%error, "tokens that are over could not be forgotten: tried again in a minute");
            transaction.rollback().await?;
            Ok(false)
        }
    }
}

/// Takes down fences whose transactions have ended. It vouches for nothing, so it must not keep the answer that does: where
/// others are in the way, the next heartbeat tries again.
async fn lift(conn: &mut PgConnection) -> Result<(), Error> {
    let over = "SELECT EXISTS (SELECT FROM gateway.fences WHERE pg_visible_in_snapshot(xid, pg_current_snapshot()))";
    if !sqlx::query_scalar::<_, bool>(over).fetch_one(&mut *conn).await? {
        return Ok(());
    }
    let mut transaction = conn.begin().await?;
    let lifted = async {
        sqlx::raw_sql("SET LOCAL lock_timeout = '50ms'; SELECT gateway.lift(); SET CONSTRAINTS ALL IMMEDIATE")
            .execute(&mut *transaction)
            .await
    };
    match lifted.await {
        Ok(_) => transaction.commit().await?,
        Err(error) => {
            tracing::warn!(%error, "a fence that is over could not be taken down: tried again with the next heartbeat");
            transaction.rollback().await?;
        }
    }
    Ok(())
}

#[async_trait]
impl Feed for PgFeed {
    async fn register(&mut self, instead_of: Option<&str>) -> Result<String, Error> {
        self.node = None;
        let limit = self.shared.timing.patience() * 2;
        let timing = self.shared.timing;
        let node = self.on(Some(limit), async |conn, _| Node::enter(conn, &timing, instead_of).await).await?;
        let id = node.id.clone();
        self.chores_done = boot_time();
        self.node = Some(node);
        Ok(id)
    }

    async fn snapshot(&mut self, fill: &mut dyn Fill) -> Result<Revision, Error> {
        let node = self.node()?;
        self.on(None, async |conn, _| changes::everything(conn, &node, fill).await).await
    }

    async fn poll(&mut self, after: Revision) -> Result<Changes, Error> {
        self.asked = boot_time();
        let node = self.node()?;
        let timing = self.shared.timing;
        self.on(Some(timing.patience()), async |conn, this| {
            let grace = this.grace.0;
            node.beat(conn, i64::try_from(after.0).unwrap_or(i64::MAX), timing.bound_with(grace)).await?;
            let changes = changes::after(conn, &node, after).await?;
            this.grace.1 = grace;
            lift(conn).await?;
            this.reap(conn).await?;
            this.chores(conn).await?;
            Ok(changes)
        })
        .await
    }

    fn want_grace(&mut self, grace: Duration) {
        self.grace.0 = grace;
    }

    fn known_grace(&self) -> Duration {
        self.grace.1
    }

    async fn acknowledge(&mut self, applied: Revision) -> Result<(), Error> {
        let node = self.node()?;
        let limit = self.shared.timing.patience();
        self.on(Some(limit), async |conn, _| node.acknowledge(conn, i64::try_from(applied.0).unwrap_or(i64::MAX)).await).await
    }

    async fn leave(&mut self) -> Result<(), Error> {
        let Some(node) = self.node.take() else { return Ok(()) };
        let limit = self.shared.timing.patience();
        self.on(Some(limit), async |conn, _| node.leave(conn).await).await?;
        if let Some(conn) = self.conn.take() {
            conn.close().await?;
        }
        Ok(())
    }

    async fn due(&mut self) {
        sleep(self.shared.timing.heartbeat.saturating_sub(boot_time().since(self.asked))).await;
    }

    fn patience(&self) -> Duration {
        // More than a call takes by itself: it is the call that knows what to do with the connection then.
        self.shared.timing.patience() + Duration::from_secs(1)
    }

    fn nodes(&self) -> usize {
        self.nodes
    }

    fn quick(&self) -> Option<Box<dyn Quick>> {
        let node = self.node.clone()?;
        Some(Box::new(PgQuick::new(Arc::clone(&self.shared), node)))
    }
}
