//! Requests that may come twice.

/// What has become of a request with this key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Idempotent {
    /// It is the first: carry it out, then finish or abandon it.
    Begun,
    /// It was answered like this.
    Replay {
        /// The status.
        status: u16,
        /// The body.
        body: String,
    },
    /// The key was given to another request.
    Mismatch,
    /// The first one is not answered yet.
    UnderWay,
}
