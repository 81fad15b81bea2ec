//! Mails: what has become of them, and how many wait.

use std::sync::atomic::{AtomicI64, Ordering};

use prometheus::{Gauge, IntCounterVec, IntGauge, Opts, Registry};

use super::add;
use crate::clock::Timestamp;

/// What has become of a try to send a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailOutcome {
    /// A server has taken it over, or it is a file.
    Sent,
    /// It is tried again.
    Retried,
    /// It is not tried again.
    GivenUp,
}

impl MailOutcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Retried => "retried",
            Self::GivenUp => "given_up",
        }
    }
}

/// The metrics of mails.
pub struct MailMetrics {
    sent: IntCounterVec,
    waiting: IntGauge,
    oldest_age: Gauge,
    /// Since when the oldest waits, in milliseconds; the greatest number if none does.
    oldest: AtomicI64,
}

impl MailMetrics {
    pub(super) fn new(registry: &Registry) -> Self {
        let sent = Opts::new("sigmagate_mail_sent_total", "Tries of this node to send a mail: sent, retried later, or given up for good.");
        let waiting = IntGauge::new("sigmagate_mail_waiting", "Mails that wait in the store to be sent, by whichever node.");
        let oldest_age = Gauge::new("sigmagate_mail_oldest_age_seconds", "For how long the oldest of them has waited; 0: none waits.");
        Self {
            sent: add(registry, IntCounterVec::new(sent, &["kind", "result"])),
            waiting: add(registry, waiting),
            oldest_age: add(registry, oldest_age),
            oldest: AtomicI64::new(i64::MAX),
        }
    }

    /// A mail of this kind was tried.
    pub fn tried(&self, kind: &str, outcome: MailOutcome) {
        self.sent.with_label_values(&[kind, outcome.as_str()]).inc();
    }

    /// So many mails wait, the oldest since then.
    pub fn waiting(&self, count: u64, oldest: Option<Timestamp>) {
        self.waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.oldest.store(oldest.map_or(i64::MAX, |since| since.0), Ordering::Relaxed);
    }

    pub(super) fn read(&self) {
        let age = crate::clock::now().0.saturating_sub(self.oldest.load(Ordering::Relaxed)).max(0);
        self.oldest_age.set(std::time::Duration::from_millis(age.unsigned_abs()).as_secs_f64());
    }
}
