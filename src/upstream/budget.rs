//! How many requests may be tried again: an upstream that fails must not get twice the load for it.

use std::sync::atomic::{AtomicI64, Ordering};

const ONE: i64 = 100;
/// As many retries as may be saved up.
const MOST: i64 = 100 * ONE;

/// So many retries in a hundred requests, and a hundred at once after a good time.
#[derive(Debug)]
pub struct RetryBudget {
    /// Hundredths of a retry.
    left: AtomicI64,
    percent: i64,
}

impl RetryBudget {
    /// A full budget.
    #[must_use]
    pub fn new(percent: u32) -> Self {
        Self { left: AtomicI64::new(if percent == 0 { 0 } else { MOST }), percent: percent.into() }
    }

    /// A request came.
    pub fn deposit(&self) {
        // More than the most by as many as do this at once, which does no harm.
        if self.left.load(Ordering::Relaxed) < MOST {
            self.left.fetch_add(self.percent, Ordering::Relaxed);
        }
    }

    /// Whether one may be tried again.
    pub fn withdraw(&self) -> bool {
        self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| (left >= ONE).then_some(left - ONE)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_of_a_hundred_requests_are_tried_again() {
        let budget = RetryBudget::new(20);
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100, "saved up");
        (0..100).for_each(|_| budget.deposit());
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 20);
        (0..100_000).for_each(|_| budget.deposit());
        assert_eq!((0..1000).filter(|_| budget.withdraw()).count(), 100, "no more than that is saved up");
        let none = RetryBudget::new(0);
        none.deposit();
        assert!(!none.withdraw());
    }
}
