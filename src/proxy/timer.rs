//! One timer for a connection and its requests, and what a request waits for no longer than it may.
//!
//! Arming a timer for each wait costs more than most waits. This one is armed anew only when something is due before it would
//! fire, or when it has fired: a busy connection arms it some twenty times a second. A connection of HTTP/2 has one for each of the
//! streams that it carries at once.

use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::Shared;
use super::live::{Cut, Entered, SOON, Scope};

/// A timer that tells when a moment has passed which may be another one at each question.
#[derive(Debug)]
pub struct Timer(Pin<Box<Sleep>>);

impl Timer {
    /// A timer that has not been asked yet.
    pub fn new() -> Self {
        Self(Box::pin(sleep_until(Instant::now())))
    }

    /// Ready once `due` has passed; else the task is woken when it does, if it asks for no other moment until then.
    pub fn poll(&mut self, cx: &mut Context<'_>, due: Instant) -> Poll<()> {
        if self.0.deadline() > due {
            self.0.as_mut().reset(due);
        }
        while self.0.as_mut().poll(cx).is_ready() {
            if Instant::now() >= due {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(due);
        }
        Poll::Pending
    }

    /// What the future returns; `None` if it takes longer than `limit`.
    pub async fn within<T>(&mut self, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
        let (mut future, mut due) = (pin!(future), None);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            let due = *due.get_or_insert_with(|| Instant::now() + limit);
            self.poll(cx, due).map(|()| None)
        })
        .await
    }
}

/// Why a request waits no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Late {
    /// This step took too long.
    Step,
    /// The request is over: `Scope::cut` says why.
    Ended,
}

/// Watches over one request: that no step and not all of them take too long, and that it ends with what it rests on.
pub struct Watch<'a> {
    timer: &'a mut Timer,
    shared: &'a Shared,
    scope: &'a Arc<Scope>,
    begun: Instant,
    /// Entered among those that a change looks for, once it has been on its way for [`SOON`].
    entered: Option<(Entered<'a>, Pin<Box<WaitForCancellationFutureOwned>>)>,
    soon: Instant,
    end: Instant,
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("end", &self.end).finish_non_exhaustive()
    }
}

impl<'a> Watch<'a> {
    /// Begins now.
    pub fn new(timer: &'a mut Timer, shared: &'a Shared, scope: &'a Arc<Scope>) -> Self {
        let begun = Instant::now();
        let end = begun + shared.settings.request_timeout;
        Self { timer, shared, scope, begun, entered: None, soon: (begun + SOON).min(end), end }
    }

    /// All of it may take no longer than this, if less than what holds for every request.
    pub fn shorten(&mut self, total: Option<Duration>) {
        self.end = total.map_or(self.end, |total| self.end.min(self.begun + total));
    }

    /// What the future returns, unless it takes longer than `limit` or the request is over.
    pub async fn within<T>(&mut self, limit: Duration, future: impl Future<Output = T>) -> Result<T, Late> {
        let (mut future, mut step) = (pin!(future), None);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            let step = *step.get_or_insert_with(|| Instant::now() + limit);
            self.poll(cx, step).map(Err)
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>, step: Instant) -> Poll<Late> {
        loop {
            let due = self.end.min(step);
            let due = if self.entered.is_none() { due.min(self.soon) } else { due };
            if self.timer.poll(cx, due).is_pending() {
                break;
            }
            let now = Instant::now();
            if now >= self.end {
                self.scope.cut.lock().get_or_insert(Cut::Deadline);
                return Poll::Ready(Late::Ended);
            }
            if now >= step {
                return Poll::Ready(Late::Step);
            }
            if self.entered.is_none() {
                let entered = self.shared.inflight.enter(self.scope, &self.shared.gate);
                self.entered = Some((entered, Box::pin(self.scope.cancel.clone().cancelled_owned())));
            }
        }
        match &mut self.entered {
            Some((_, cancelled)) => cancelled.as_mut().poll(cx).map(|()| Late::Ended),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_that_moves_is_told_when_it_has_passed() {
        let mut timer = Timer::new();
        let begun = Instant::now();
        for (limit, want) in [(75_000, 75_000), (50, 75_050), (10, 75_060), (75_000, 150_060)] {
            assert_eq!(timer.within(Duration::from_millis(limit), std::future::pending::<()>()).await, None);
            assert_eq!(begun.elapsed().as_millis(), want);
            assert_eq!(timer.within(Duration::from_secs(9), std::future::ready(1)).await, Some(1));
        }
    }
}
