//! An outbox in memory.

use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::clock::Timestamp;
use crate::store::{
    self,
    records::{Outbox, OutboxMail},
};

/// What has become of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Became {
    Due,
    Sent,
    Later(String, Timestamp),
    GivenUp(String),
}

pub(super) struct Row {
    pub(super) mail: OutboxMail,
    pub(super) became: Became,
    pub(super) claimed: Option<String>,
}

pub(super) struct Memory {
    rows: Mutex<Vec<Row>>,
    changed: watch::Sender<()>,
}

impl Memory {
    pub(super) fn new(mails: Vec<OutboxMail>) -> Self {
        let memory = Self { rows: Mutex::default(), changed: watch::Sender::new(()) };
        for mail in mails {
            memory.put(mail);
        }
        memory
    }

    pub(super) fn put(&self, mail: OutboxMail) {
        self.rows.lock().push(Row { mail, became: Became::Due, claimed: None });
        self.changed.send_replace(());
    }

    pub(super) fn all(&self) -> Vec<Became> {
        self.rows.lock().iter().map(|row| row.became.clone()).collect()
    }

    pub(super) fn claimed(&self) -> usize {
        self.rows.lock().iter().filter(|row| row.claimed.is_some()).count()
    }

    /// What failed is due again, as if its time had come.
    pub(super) fn later_is_now(&self) {
        for row in self.rows.lock().iter_mut().filter(|row| matches!(row.became, Became::Later(..))) {
            (row.became, row.mail.attempts) = (Became::Due, row.mail.attempts + 1);
        }
    }

    /// Waits until the rows are as they should be.
    pub(super) async fn until(&self, mut holds: impl FnMut(&[Row]) -> bool + Send) {
        let mut changed = self.changed.subscribe();
        while !holds(&self.rows.lock()) {
            changed.changed().await.unwrap();
        }
    }

    /// Settles a row, which whoever does must have claimed.
    fn settle(&self, id: i64, claimer: &str, became: Became) {
        let mut rows = self.rows.lock();
        let row = rows.iter_mut().find(|row| row.mail.id == id).unwrap();
        assert_eq!((row.claimed.take().as_deref(), &row.became), (Some(claimer), &Became::Due), "mail {id}");
        row.became = became;
        drop(rows);
        self.changed.send_replace(());
    }
}

#[async_trait]
impl Outbox for Memory {
    async fn claim_mail(&self, claimer: &str, limit: u32, hold: Duration) -> Result<Vec<OutboxMail>, store::Error> {
        assert!(hold > Duration::from_millis(100), "{hold:?}");
        let mut rows = self.rows.lock();
        let due = rows.iter_mut().filter(|row| row.became == Became::Due && row.claimed.is_none()).take(limit as usize);
        let claimed = due.map(|row| {
            row.claimed = Some(claimer.to_owned());
            row.mail.clone()
        });
        Ok(claimed.collect())
    }

    async fn mail_sent(&self, id: i64, claimer: &str) -> Result<bool, store::Error> {
        self.settle(id, claimer, Became::Sent);
        Ok(true)
    }

    async fn mail_failed(&self, id: i64, claimer: &str, error: &str, again_at: Option<Timestamp>) -> Result<bool, store::Error> {
        let error = error.to_owned();
        self.settle(id, claimer, again_at.map_or(Became::GivenUp(error.clone()), |at| Became::Later(error, at)));
        Ok(true)
    }

    async fn outbox_backlog(&self) -> Result<(u64, Option<Timestamp>), store::Error> {
        let rows = self.rows.lock();
        let waiting = rows.iter().filter(|row| matches!(row.became, Became::Due | Became::Later(..))).map(|row| row.mail.created_at);
        Ok((waiting.clone().count() as u64, waiting.min()))
    }
}
