//! E-mail: what waits in the outbox is rendered and sent.
//!
//! A mail is written to the outbox in the transaction of what it tells of, so none is lost and none tells of what did not
//! happen. It is sent at least once: a gateway that dies between sending and saying so has it sent again, under the same
//! `Message-ID`. Every gateway of a fleet looks, and a claim in the store keeps two from sending one mail at the same time.

mod folder;
mod line;
mod render;
mod retry;
mod smtp;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::clock::{Timestamp, boot_time, now};
use crate::config::{self, MailTransport};
use crate::metrics::{MailMetrics, MailOutcome};
use crate::store::{
    self,
    records::{Outbox, OutboxMail},
};
use crate::tls;

use render::{Letter, render};
use smtp::{Server, Session};

/// How many mails are claimed at once.
const BATCH: u32 = 10;

/// How often several recipients of one mail are tried in the hope that all of them take it.
const PATIENT: u32 = 3;

/// The longest reason that is written down, in characters.
const REASON: usize = 500;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
struct Timing {
    /// A connection to be made.
    connect: Duration,
    /// One mail in all, its share of the connection included.
    whole: Duration,
    /// Until the outbox is looked into without a nudge.
    look: Duration,
    /// A mail under way when the gateway stops.
    grace: Duration,
}

impl Timing {
    /// For how long a batch is claimed: until each of it has taken as long as it may, and been settled.
    fn hold(self) -> Duration {
        (self.whole + self.whole / 5) * BATCH
    }
}

/// Why mails cannot be sent at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The certificates that the server may be vouched for by cannot be used.
    #[error(transparent)]
    Certificates(#[from] tls::Error),
    /// TLS cannot be set up.
    #[error("TLS to the mail server cannot be set up")]
    Smtp(#[source] lettre::transport::smtp::Error),
}

/// Why a mail was not sent, and so what becomes of it.
#[derive(Debug)]
enum Failure {
    /// This mail will never be taken.
    Refused(String),
    /// This mail may be taken later.
    Deferred(String),
    /// No mail could be sent: it has nothing to do with this one.
    Transport(String),
}

/// What becomes of mails.
enum Route {
    Smtp(Box<Server>),
    Folder(PathBuf),
}

/// Sends what waits in the outbox.
pub struct Mailer {
    outbox: Arc<dyn Outbox>,
    settings: config::Mail,
    route: Option<Route>,
    metrics: Arc<MailMetrics>,
    claimer: String,
    timing: Timing,
    nudged: Notify,
}

impl Mailer {
    /// A mailer of an outbox. When it stops, a mail under way may take `grace` to be finished.
    ///
    /// # Errors
    /// [`Error`]: the settings were proven, so a file has changed since.
    pub fn new(outbox: Arc<dyn Outbox>, settings: &config::Mail, metrics: Arc<MailMetrics>, grace: Duration) -> Result<Self, Error> {
        let timing = Timing { connect: Duration::from_secs(10), whole: Duration::from_secs(30), look: Duration::from_secs(10), grace };
        Self::with_timing(outbox, settings, metrics, timing)
    }

    fn with_timing(outbox: Arc<dyn Outbox>, settings: &config::Mail, metrics: Arc<MailMetrics>, timing: Timing) -> Result<Self, Error> {
        let route = match &settings.transport {
            MailTransport::Smtp(smtp) => Some(Route::Smtp(Box::new(Server::new(smtp, settings.from.domain(), timing.connect)?))),
            MailTransport::Folder(folder) => Some(Route::Folder(folder.clone())),
            MailTransport::Waits => None,
        };
        let claimer = uuid::Uuid::new_v4().to_string();
        Ok(Self { outbox, settings: settings.clone(), route, metrics, claimer, timing, nudged: Notify::new() })
    }

    /// There may be something new in the outbox.
    pub fn nudge(&self) {
        self.nudged.notify_one();
    }

    /// Sends mails until `stop` is done. Then none is begun any more, what is claimed goes back, and a mail under way has
    /// the grace time to be finished; one that has not is due again when its claim is over. To be called once at a time.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) {
        if self.route.is_none() {
            tracing::warn!("no mail is sent by this gateway, all of it waits in the store: say in `[mail]` how it is to be sent");
        } else if self.settings.operators.is_empty() {
            tracing::warn!("no operator is told of requests for access: `mail.operators` names nobody");
        }
        let stopping = CancellationToken::new();
        let mut work = pin!(self.work(&stopping));
        tokio::select! {
            () = &mut work => return,
            () = stop => stopping.cancel(),
        }
        if timeout(self.timing.grace, work).await.is_err() {
            tracing::warn!(
                grace_ms = self.timing.grace.as_millis(),
                "a mail was still under way when the grace time ended: it is sent again in time"
            );
        }
    }

    async fn work(&self, stopping: &CancellationToken) {
        while !stopping.is_cancelled() {
            if let Some(route) = &self.route {
                while !stopping.is_cancelled() && self.batch(route, stopping).await {}
            }
            if stopping.is_cancelled() {
                break;
            }
            match self.outbox.outbox_backlog().await {
                Ok((count, oldest)) => self.metrics.waiting(count, oldest),
                Err(error) => not_asked(&error),
            }
            tokio::select! {
                () = stopping.cancelled() => {}
                () = self.nudged.notified() => {}
                () = sleep(self.timing.look) => {}
            }
        }
    }

    /// Sends one batch; returns whether there may be more to send at once.
    async fn batch(&self, route: &Route, stopping: &CancellationToken) -> bool {
        let claimed = boot_time();
        let hold = self.timing.hold();
        let mails = match self.outbox.claim_mail(&self.claimer, BATCH, hold).await {
            Ok(mails) => mails,
            Err(error) => {
                not_asked(&error);
                return false;
            }
        };
        let full = mails.len() >= BATCH as usize;
        let (mut session, mut broken) = (None, None);
        for mail in &mails {
            if boot_time().since(claimed) + self.timing.whole > hold {
                // The store was slow, and might give what is left to another node while this one sends it.
                return false;
            }
            if stopping.is_cancelled() {
                self.failed(mail, "the gateway stopped before it was sent", Some(now())).await;
                continue;
            }
            let sent = match &broken {
                None => self.send(route, &mut session, mail).await,
                Some(why) => Err(Failure::Transport(String::clone(why))),
            };
            match sent {
                Ok(()) => self.sent(mail).await,
                Err(Failure::Refused(why)) => self.failed(mail, &why, None).await,
                Err(Failure::Deferred(why)) => self.later(mail, &why).await,
                Err(Failure::Transport(why)) => {
                    if broken.is_none() {
                        tracing::warn!(error = why, mails = mails.len(), "mails cannot be sent at present; tried again in time");
                    }
                    self.later(mail, &why).await;
                    broken = Some(why);
                }
            }
        }
        if let Some(session) = session.filter(Session::usable) {
            // Nothing depends on its being said.
            let _ = timeout(self.timing.connect, session.quit()).await;
        }
        full && broken.is_none()
    }

    /// Sends one mail, on the connection that there is, if it is still good.
    async fn send(&self, route: &Route, session: &mut Option<Session>, mail: &OutboxMail) -> Result<(), Failure> {
        let letter = render(mail, &self.settings).map_err(Failure::Refused)?;
        let server = match route {
            Route::Smtp(server) => server,
            Route::Folder(folder) => return folder::write(folder, &letter).await,
        };
        // Out of the hands of whoever waits for it, so that it is closed if that takes too long.
        let kept = session.take().filter(Session::usable);
        let conversation = async {
            let mut session = match kept {
                Some(session) => session,
                None => server.open().await?,
            };
            let delivered = session.deliver(&letter, mail.attempts <= PATIENT).await;
            Ok((session, delivered))
        };
        let (used, delivered) = timeout(self.timing.whole, conversation)
            .await
            .map_err(|_| Failure::Transport(format!("the server did not answer within {} s", self.timing.whole.as_secs())))??;
        *session = Some(used);
        for why in delivered? {
            tracing::warn!(id = mail.id, kind = mail.kind.as_str(), error = why, "one of several recipients did not get a mail");
        }
        Ok(())
    }

    async fn sent(&self, mail: &OutboxMail) {
        self.metrics.tried(mail.kind.as_str(), MailOutcome::Sent);
        tracing::info!(id = mail.id, kind = mail.kind.as_str(), practice = %mail.practice_id, "mail sent");
        let settled = match self.outbox.mail_sent(mail.id, &self.claimer).await {
            // Worth a second try: whoever gets the mail would get it again.
            Err(_) => self.outbox.mail_sent(mail.id, &self.claimer).await,
            settled => settled,
        };
        settled_or_told(mail, settled);
    }

    /// A mail is tried again, unless that has gone on for too long.
    async fn later(&self, mail: &OutboxMail, why: &str) {
        self.failed(mail, why, retry::again_at(mail.created_at, now(), mail.attempts, part())).await;
    }

    async fn failed(&self, mail: &OutboxMail, why: &str, again_at: Option<Timestamp>) {
        let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(REASON).collect();
        if let Some(at) = again_at {
            self.metrics.tried(mail.kind.as_str(), MailOutcome::Retried);
            tracing::info!(id = mail.id, kind = mail.kind.as_str(), %at, error = why, "mail not sent; tried again");
        } else {
            self.metrics.tried(mail.kind.as_str(), MailOutcome::GivenUp);
            tracing::warn!(id = mail.id, kind = mail.kind.as_str(), practice = %mail.practice_id, error = why, "mail given up");
        }
        settled_or_told(mail, self.outbox.mail_failed(mail.id, &self.claimer, &why, again_at).await);
    }
}

fn not_asked(error: &store::Error) {
    tracing::warn!(%error, "the outbox cannot be looked into; tried again in time");
}

fn settled_or_told(mail: &OutboxMail, settled: Result<bool, store::Error>) {
    match settled {
        Ok(true) => {}
        Ok(false) => tracing::warn!(id = mail.id, "another gateway has taken a mail over, whose claim had ended: it may be sent twice"),
        Err(error) => tracing::warn!(id = mail.id, %error, "what became of a mail could not be written down: it is sent again"),
    }
}

/// Some number from 0 to 1.
fn part() -> f64 {
    let mut random = [0; 4];
    getrandom::fill(&mut random).expect("the operating system gives random numbers");
    f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX)
}
