//! Whether PostgreSQL said WARNING while a statement ran.
//!
//! sqlx hands notices to nobody: it logs them, as events of [`TARGET`]. So the statement is run under a subscriber that
//! notes them, whatever the settings say is logged, and hands everything on to the one that is really there.

use std::cell::Cell;
use std::sync::LazyLock;

use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, Subscriber};
use tracing::{Dispatch, Event, Level, Metadata};

const TARGET: &str = "sqlx::postgres::notice";

tokio::task_local! {
    static WARNED: Cell<bool>;
}

/// One for the whole process: each new one would have every place that logs asked again whether it may.
///
/// And a second that nobody uses. While tracing knows of one subscriber alone, it asks the one of the present thread
/// whether a place that logs for the first time may ever do so: where that is not this one, and it says no, sqlx's
/// warnings would never be heard of again.
static LISTENING: LazyLock<[Dispatch; 2]> = LazyLock::new(|| {
    let next = tracing::dispatcher::get_default(Clone::clone);
    let most = LevelFilter::current().max(LevelFilter::WARN);
    [(); 2].map(|()| Dispatch::new(Listening { next: next.clone(), most }))
});

/// Runs `statement` to its end; also says whether the server warned of something meanwhile.
pub(super) async fn listening<T>(statement: impl Future<Output = T>) -> (T, bool) {
    let noted = async {
        let done = statement.with_subscriber(LISTENING[0].clone()).await;
        (done, WARNED.with(Cell::get))
    };
    WARNED.scope(Cell::new(false), noted).await
}

struct Listening {
    next: Dispatch,
    most: LevelFilter,
}

fn is_warning(metadata: &Metadata<'_>) -> bool {
    metadata.target() == TARGET && *metadata.level() <= Level::WARN
}

impl Subscriber for Listening {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // What the other says, so that nothing costs more than without this one.
        if is_warning(metadata) { Interest::always() } else { self.next.register_callsite(metadata) }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_warning(metadata) || self.next.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    fn event(&self, event: &Event<'_>) {
        if is_warning(event.metadata()) {
            // Not set: the event is of another task, which this thread happens to run under the same subscriber.
            let _ = WARNED.try_with(|warned| warned.set(true));
        }
        if self.next.enabled(event.metadata()) {
            self.next.event(event);
        }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.next.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.next.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.next.record_follows_from(span, follows);
    }

    fn enter(&self, span: &Id) {
        self.next.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.next.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.next.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.next.try_close(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As sqlx does.
    fn warn() {
        if tracing::enabled!(target: "sqlx::postgres::notice", Level::WARN) {
            tracing::event!(target: "sqlx::postgres::notice", Level::WARN, message = "canceling wait");
        }
    }

    #[tokio::test]
    async fn a_warning_is_heard_by_whom_it_concerns_also_when_nobody_heard_the_first() {
        LazyLock::force(&LISTENING);
        std::thread::spawn(warn).join().unwrap();
        let (quiet, loud) = tokio::join!(listening(async { tokio::task::yield_now().await }), listening(async { warn() }));
        assert_eq!((quiet.1, loud.1), (false, true));
        let ((), heard) =
            listening(async { tracing::event!(target: "sqlx::postgres::notice", Level::INFO, message = "as you were") }).await;
        assert!(!heard);
    }
}
