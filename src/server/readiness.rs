//! What `/readyz` says.

use std::sync::Arc;

use super::Status;
use crate::admin::{Readiness, Standing};
use crate::cache::Replica;
use crate::clock::boot_time;

/// How the gateway stands, by what the feed last said and by its replica.
pub(super) fn of(status: &Status, leaving: bool, replica: &Replica, node: Option<Arc<str>>) -> Readiness {
    let left = replica.lease_until().since(boot_time());
    let (state, reason) = match status {
        _ if leaving => (Standing::Stopping, Some("the gateway is about to stop".to_owned())),
        Status::Live(_) => (Standing::Live, None),
        Status::Joining => (Standing::Joining, Some("the store is being read".to_owned())),
        Status::Failed(why) if left.is_zero() => (Standing::Stale, Some(why.clone())),
        Status::Failed(why) => (Standing::Failing, Some(why.clone())),
    };
    Readiness {
        ready: state == Standing::Live,
        state,
        revision: match status {
            Status::Live(revision) => *revision,
            _ => replica.applied(),
        },
        lease_left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        node,
        reason,
    }
}
