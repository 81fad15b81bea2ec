//! The protocol, and the ways to get it wrong.

/// What is checked. Every wrong variant departs from the protocol in one place of the steps, which names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As designed.
    Protocol,
    /// A node that has been ready admits without looking at its lease.
    NoLease,
    /// Changes travel by NOTIFY alone: nothing is fetched unasked, and the heartbeat brings none.
    NotifyOnly,
    /// The lease counts from the heartbeat's answer, not from its sending.
    LeaseFromReply,
    /// An answer is acknowledged when it arrives, before it is applied.
    AckBeforeApply,
    /// W = L, as if all clocks ran alike.
    NoDriftMargin,
    /// W counts from the sending of the UPDATE, not from the acknowledgement of its COMMIT.
    TimerBeforeCommit,
    /// A joining node takes the snapshot first, and admits from it while its row is not there yet.
    AdmitBeforeRow,
    /// The change's number is dealt out by the INSERT, not at COMMIT under the lock.
    Bigserial,
    /// The loss of a node's connection deletes its row.
    RowDroppedOnDisconnect,
    /// Both nodes have the same id, and so the same row.
    SharedNodeId,
    /// The node's clock stands still while its process does.
    ClockStopsInPause,
    /// A lazy cache stores what it read, however long ago that was.
    StaleFill,
    /// The heartbeat is a read, which an old primary answers too.
    HeartbeatIsRead,
    /// The standby may lack commits that were acknowledged.
    AsyncFailover,
    /// After a failover the node takes a new row but keeps its replica and its position.
    CursorCarried,
    /// The reaper deletes a row after W - 1.
    ReaperEarly,
    /// Answers replace the replica in the order of their arrival.
    LastAnswerWins,
    /// R5 reads the registry of any server, an old primary's too.
    BarrierReadsAnywhere,
    /// A repeated revocation that finds nothing to change writes nothing, so an old primary acknowledges it.
    RetryWritesNothing,
}
