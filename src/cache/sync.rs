//! The primitives that the replica is built on. The race tests compile the same source with loom's in their place.

pub use parking_lot::Mutex;
pub use std::hint::spin_loop;
pub use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};

/// Locks, whatever the mutex.
pub fn lock<T>(mutex: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    mutex.lock()
}
