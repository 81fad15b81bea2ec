//! When the replica may be believed: a sequence lock around its contents, and the lease.
//!
//! Compiled a second time by `tests/races.rs`, on loom's primitives, where every interleaving is tried.

use super::sync::{AtomicU64, Mutex, Ordering, fence, lock, spin_loop};

/// How often a reader looks again before it waits for the writer. A batch of changes takes microseconds to write.
const SPINS: usize = 64;

/// The lease is over: the replica may be behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

/// The state of the replica that a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch {
    version: u64,
    in_grace: bool,
}

impl Epoch {
    /// Whether the lease had run out, and the grace of the one who asked had not.
    #[must_use]
    pub const fn in_grace(self) -> bool {
        self.in_grace
    }
}

/// Guards contents that are kept elsewhere: who writes them does so through `apply` or `replace`, who reads them through `read`.
#[derive(Debug)]
pub struct Freshness {
    /// Odd while the contents are being written; each batch makes it two more.
    version: AtomicU64,
    /// The newest revision whose changes are all in the contents.
    applied: AtomicU64,
    /// Until when the contents may be believed, in nanoseconds of the boot clock.
    lease_until: AtomicU64,
    /// The most by which anybody may go beyond the lease, in nanoseconds: as much as the register of nodes knows of.
    grace: AtomicU64,
    /// One writer at a time.
    writing: Mutex<()>,
}

impl Freshness {
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { version: zero(), applied: zero(), lease_until: zero(), grace: zero(), writing: Mutex::new(()) }
    }

    /// Runs `write`, which brings the contents from `base` to `head`, unless they are there or further, or have not come
    /// as far as `base`; then `settle`, which may read the new contents, and after which nothing may go on that rests on
    /// the old ones.
    pub fn apply(&self, base: u64, head: u64, write: impl FnOnce(), settle: impl FnOnce()) {
        let _writing = lock(&self.writing);
        // Two answers may arrive in the wrong order: the older one must not undo what the newer one did. And contents
        // that were replaced meanwhile may be older than what an answer goes on from: what lies between would be lost.
        let applied = self.applied.load(Ordering::Relaxed);
        if base <= applied && head > applied {
            self.write(head, write, settle);
        }
    }

    /// Runs `write`, which puts other contents, as of `head`, in the place of these; then `settle`.
    pub fn replace(&self, head: u64, write: impl FnOnce(), settle: impl FnOnce()) {
        let _writing = lock(&self.writing);
        self.write(head, write, settle);
    }

    /// Makes every epoch so far an old one, and runs `settle`; the contents stay as they are.
    pub fn touch(&self, settle: impl FnOnce()) {
        let _writing = lock(&self.writing);
        self.write(self.applied.load(Ordering::Relaxed), || {}, settle);
    }

    fn write(&self, head: u64, write: impl FnOnce(), settle: impl FnOnce()) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // No write below may be seen by someone who does not see the odd version.
        fence(Ordering::Release);
        write();
        self.version.store(version + 2, Ordering::Release);
        // Who is entered where `settle` looks, and then asks, is either seen there or sees the new version: one of the
        // two must come first, and only this fence together with theirs makes it so.
        fence(Ordering::SeqCst);
        settle();
        // Last: an acknowledgement rests on `applied`, and by then no reader can still pass with the old contents.
        self.applied.store(head, Ordering::Release);
    }

    /// Never shortens the lease.
    pub fn extend(&self, until: u64) {
        self.lease_until.fetch_max(until, Ordering::Release);
    }

    pub fn end(&self) {
        self.lease_until.store(0, Ordering::Release);
    }

    pub fn set_grace(&self, most: u64) {
        self.grace.store(most, Ordering::Release);
    }

    pub fn grace(&self) -> u64 {
        self.grace.load(Ordering::Acquire)
    }

    /// Whether the contents may be believed, by the lease or by a grace after it.
    fn held(&self, now: u64, grace: u64) -> Held {
        let until = self.lease_until.load(Ordering::Acquire);
        if now < until {
            Held::Lease
        } else if until > 0 && now < until.saturating_add(grace.min(self.grace())) {
            Held::Grace
        } else {
            Held::Not
        }
    }

    pub fn lease_until(&self) -> u64 {
        self.lease_until.load(Ordering::Acquire)
    }

    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// What `contents` reads, as of one moment at which it was whole and the lease held, or `grace` after it.
    pub fn read<T>(&self, grace: u64, mut now: impl FnMut() -> u64, mut contents: impl FnMut() -> T) -> Result<(T, Epoch), Stale> {
        for _ in 0..SPINS {
            let version = self.version.load(Ordering::Acquire);
            if version % 2 == 1 {
                spin_loop();
                continue;
            }
            let read = contents();
            // The lease is read after the contents, and the version last of all. While the version is what it was, no
            // change has been acknowledged since the contents were read, so the answer counts as given before it.
            let held = self.held(now(), grace);
            fence(Ordering::Acquire);
            if self.version.load(Ordering::Relaxed) == version {
                return held.epoch(version).map(|epoch| (read, epoch));
            }
        }
        // Changes come in faster than we read: stand in line with the writer.
        let _writing = lock(&self.writing);
        let read = contents();
        let version = self.version.load(Ordering::Relaxed);
        self.held(now(), grace).epoch(version).map(|epoch| (read, epoch))
    }

    /// Whether the contents are still those of `epoch` and the lease holds, or the grace after it.
    pub fn unchanged_since(&self, epoch: Epoch, grace: u64, now: impl FnOnce() -> u64) -> bool {
        self.held(now(), grace) != Held::Not && self.version.load(Ordering::Acquire) == epoch.version
    }
}

/// By what the contents may be believed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Held {
    Lease,
    Grace,
    Not,
}

impl Held {
    fn epoch(self, version: u64) -> Result<Epoch, Stale> {
        match self {
            Self::Not => Err(Stale),
            _ => Ok(Epoch { version, in_grace: self == Self::Grace }),
        }
    }
}
