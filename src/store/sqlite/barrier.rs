//! Waiting until a change is in force on every node.

use std::time::Duration;

use super::lock::ServeLock;
use super::{LEASE, SqliteStore};
use crate::clock::{BootTime, boot_time};
use crate::store::{Committed, Error, Receipt};

/// How often the register is read.
const PAUSE: Duration = Duration::from_millis(1);
/// Every how many readings the serve lock is tried: not each time, lest a gateway that starts finds it taken.
const READINGS_PER_PROBE: u32 = 16;

/// The nodes that have not applied a revision, at one reading.
#[derive(Default)]
struct Behind {
    applied: u32,
    locks: Vec<String>,
    lease: Duration,
}

/// For how long a lease may still be believed in after a commit: its length, a clock rate wrong by 0.1 % on either
/// side, and one tick.
pub(super) fn wait_for(lease: Duration) -> Duration {
    lease + lease / 500 + Duration::from_millis(1)
}

impl SqliteStore {
    pub(super) async fn await_nodes(&self, committed: &Committed) -> Result<Receipt, Error> {
        let mut last: Option<Behind> = None;
        for reading in 0_u32.. {
            let failure = match self.behind(committed).await {
                Ok(behind) => {
                    last = Some(behind);
                    None
                }
                // The database may be gone for good; the clock alone then tells when the change is in force.
                Err(error) => Some(error),
            };
            let elapsed = boot_time().since(committed.acknowledged_at());
            match (&last, failure) {
                (Some(behind), None) if behind.locks.is_empty() => return Ok(receipt(committed, behind)),
                (Some(behind), _) if elapsed >= wait_for(behind.lease) => return Ok(receipt(committed, behind)),
                (None, Some(error)) if elapsed >= wait_for(LEASE) => return Err(error),
                // The process that served is dead, however fresh its lease: it answers nothing. One that has started
                // since registered after the commit, so its snapshot has the change.
                (Some(behind), None)
                    if reading % READINGS_PER_PROBE == 0 && behind.locks.iter().all(|lock| ServeLock::is_free(&self.shared.path, lock)) =>
                {
                    return Ok(receipt(committed, behind));
                }
                _ => {}
            }
            tokio::time::sleep(PAUSE).await;
        }
        unreachable!("a lease ends long before the readings can be counted")
    }

    async fn behind(&self, committed: &Committed) -> Result<Behind, Error> {
        let rows: Vec<(i64, i64, String)> =
            sqlx::query_as("SELECT applied, lease_ms, lock_file FROM nodes").fetch_all(&mut *self.conn().await?).await?;
        let mut behind = Behind { lease: LEASE, ..Behind::default() };
        if rows.is_empty() {
            // A gateway is on its way in or out, or the log with its row in it was removed, and it may not have noticed yet.
            behind.locks.extend(ServeLock::held(&self.shared.path));
        }
        for (applied, lease_ms, lock_file) in rows {
            if u64::try_from(applied).unwrap_or(0) >= committed.revision().0 {
                behind.applied += 1;
            } else {
                behind.locks.push(lock_file);
            }
            behind.lease = behind.lease.max(Duration::from_millis(u64::try_from(lease_ms).unwrap_or(0)));
        }
        Ok(behind)
    }
}

fn receipt(committed: &Committed, behind: &Behind) -> Receipt {
    let now: BootTime = boot_time();
    Receipt {
        revision: committed.revision(),
        applied: behind.applied,
        expired: u32::try_from(behind.locks.len()).unwrap_or(u32::MAX),
        bound: wait_for(behind.lease),
        waited: now.since(committed.acknowledged_at()),
    }
}
