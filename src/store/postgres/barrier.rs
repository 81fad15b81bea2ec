//! Waiting until a change is in force on every node.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::PgStore;
use super::fault::unusable;
use crate::clock::{BootTime, boot_time};
use crate::store::{Committed, Error, Receipt};

/// The register at one reading.
#[derive(Clone, Copy)]
struct Standing {
    applied: u32,
    behind: u32,
    bound: Duration,
}

/// Whether a node that may be believed in for `bound` can no longer answer, `since` being when its last heartbeat had
/// certainly been sent. Both moments are of the same clock, which need not be the node's.
pub(super) fn outwaited(bound: Duration, since: BootTime, now: BootTime) -> bool {
    now.since(since) >= bound
}

impl PgStore {
    /// Returns once no node is behind, or once those that are can no longer answer: their leases have ended by any
    /// clock, counted from when the commit was acknowledged. The latter needs no database.
    pub(super) async fn await_nodes(&self, committed: &Committed) -> Result<Receipt, Error> {
        let (mut pause, mut last) = (Duration::from_millis(1), None);
        loop {
            let own = self.shared.timing.bound();
            // A reading may hang; the clock goes on all the same.
            let left = last.map_or(own, |standing: Standing| standing.bound).saturating_sub(boot_time().since(committed.acknowledged_at()));
            match timeout(left.max(Duration::from_millis(1)), self.standing(committed)).await {
                Ok(Ok(standing)) if standing.behind == 0 => return Ok(receipt(committed, standing, 0)),
                Ok(Ok(standing)) => last = Some(standing),
                Ok(Err(error)) => tracing::debug!(%error, "the register cannot be read; the clock decides"),
                Err(_) => {}
            }
            let now = boot_time();
            match last {
                Some(standing) if outwaited(standing.bound, committed.acknowledged_at(), now) => {
                    return Ok(receipt(committed, standing, standing.behind));
                }
                // Who is in the register could not be read even once, and some node may have a longer lease than this one.
                None if outwaited(own, committed.acknowledged_at(), now) => {
                    return Err(unusable(format!(
                        "the change stands, but the register of nodes cannot be read: do it again for a receipt; nodes with a lease like this one's are out of it ({} ms)",
                        own.as_millis()
                    )));
                }
                _ => {}
            }
            sleep(pause).await;
            pause = (pause + Duration::from_millis(1)).min(Duration::from_millis(10));
        }
    }

    async fn standing(&self, committed: &Committed) -> Result<Standing, Error> {
        // What was acknowledged in another history says nothing about this one.
        let (history, applied, behind, bound): (String, i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT gateway.history()), count(*) FILTER (WHERE current), count(*) FILTER (WHERE NOT current), coalesce(max(bound_ms), 0)::bigint
             FROM (SELECT applied >= $1 AND history = (SELECT gateway.history()) AS current, bound_ms FROM gateway.nodes) AS nodes",
        )
        .bind(i64::try_from(committed.revision().0).unwrap_or(i64::MAX))
        .fetch_one(&mut *self.conn().await?)
        .await?;
        if committed.history().is_some_and(|own| own != history) {
            // The register of a server that was left behind may be empty, and that of its successor may be new.
            return Err(unusable(format!("the register is that of another history (`{history}`) than the commit")));
        }
        let count = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Standing {
            applied: count(applied),
            behind: count(behind),
            bound: Duration::from_millis(u64::try_from(bound).unwrap_or(0)).max(self.shared.timing.bound()),
        })
    }
}

fn receipt(committed: &Committed, standing: Standing, expired: u32) -> Receipt {
    Receipt {
        revision: committed.revision(),
        applied: standing.applied,
        expired,
        bound: standing.bound,
        waited: boot_time().since(committed.acknowledged_at()),
    }
}
