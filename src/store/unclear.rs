//! What a row stands for that is not understood, as after a change by hand: never for more access than it gives.

use super::Error;
use crate::clock::Timestamp;
use crate::id::ClientId;

/// The end of a revoked token whose row tells none: no token of ours lasts that long.
pub(super) const NEVER: Timestamp = Timestamp(i64::MAX);

/// Whose a revoked token is whose row does not tell it: nobody's.
pub(super) fn nobody() -> ClientId {
    ClientId::from_random([0; ClientId::RANDOM])
}

/// A row that is not understood is as good as absent: whatever it says, nothing is admitted by it.
pub(super) fn understood<T>(row: Result<T, Error>) -> Option<T> {
    row.inspect_err(|error| tracing::error!(%error, "a row is left out; nothing is admitted by it")).ok()
}

/// A part of a row that counts even where this part is not understood, as that of a revoked token does.
pub(super) fn known<T, E: std::fmt::Display>(part: Result<T, E>, otherwise: T) -> T {
    part.unwrap_or_else(|error| {
        tracing::error!(%error, "a token is revoked, but the row does not say it as it should");
        otherwise
    })
}
