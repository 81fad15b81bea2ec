//! Whether the process may open as many files as the settings let it need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Limits;

/// What the process opens for itself: the store, logs, watches, the management side.
const OWN: u64 = 200;

/// Files that are open when as many connections and requests are as may be: each request may have a connection to an upstream.
fn wanted(limits: &Limits) -> u64 {
    let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
    let upstreams = count(limits.requests.min(limits.connections)).max(count(limits.upstream_connections));
    count(limits.connections).saturating_add(upstreams).saturating_add(OWN)
}

/// Raises the number of files that may be open as far as needed and allowed, and says so where that is not enough.
pub(super) fn allow(limits: &Limits) {
    let wanted = wanted(limits);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None`: any number.
    let Some(current) = current.filter(|current| *current < wanted) else { return };
    let raised = maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
        Ok(()) => raised,
        Err(_) => current,
    };
    if raised < wanted {
        tracing::warn!(
            allowed = raised,
            wanted,
            connections = limits.connections,
            "fewer files may be open than `limits.connections` and `limits.requests` need: raise the limit (`ulimit -Hn`, `LimitNOFILE=` of a unit), or lower those"
        );
    }
}
