//! Mails that are really sent, to a server that is part of the tests.

mod folder;
mod memory;
mod server;
mod smtp;
mod stop;

use std::sync::Arc;
use std::time::Duration;

use super::{Mailer, Timing};
use crate::clock::Timestamp;
use crate::config::{self, MailTransport, Mailbox, Smtp, SmtpLogin, SmtpTls};
use crate::metrics::Metrics;
use crate::store::records::{MailKind, OutboxMail, Recipient};
use memory::{Became, Memory};
use server::{Answer, Script, Server};

/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(3600);

/// A mail to Zoë.
pub(super) fn mail(id: i64) -> OutboxMail {
    let recipient = Recipient::Person { user: "u-1".parse().unwrap(), name: Some("Zo\u{eb}".into()), email: "zoe@x.test".into() };
    OutboxMail {
        id,
        kind: MailKind::AccessApproved,
        practice_id: "p-1".parse().unwrap(),
        practice_name: "Praxis M\u{fc}ller".into(),
        client: None,
        recipient,
        created_at: Timestamp(1_700_000_000_000),
        attempts: 1,
        details: serde_json::Value::Null,
    }
}

/// A mail of just now to an address.
fn to(id: i64, email: &str) -> OutboxMail {
    let recipient = Recipient::Person { user: "u-1".parse().unwrap(), name: None, email: email.into() };
    OutboxMail { recipient, created_at: crate::clock::now(), ..mail(id) }
}

fn to_operators(id: i64, attempts: u32) -> OutboxMail {
    OutboxMail { kind: MailKind::AccessRequested, recipient: Recipient::Operators, attempts, ..to(id, "") }
}

pub(super) fn mailbox(name: Option<&str>, address: &str) -> Mailbox {
    Mailbox::new(name, address).unwrap()
}

pub(super) fn settings(transport: MailTransport) -> config::Mail {
    config::Mail {
        from: mailbox(Some("SigmaMD API"), "api@example.test"),
        operators: vec![mailbox(Some("One"), "one@ops.test"), mailbox(None, "two@ops.test")],
        reply_to: None,
        url: Some("https://app.example.test/?a=1&b=2".into()),
        transport,
    }
}

/// A mailer, its outbox, and what it counts.
struct World {
    outbox: Arc<Memory>,
    mailer: Arc<Mailer>,
    metrics: Arc<Metrics>,
}

impl World {
    fn new(transport: MailTransport, rows: Vec<OutboxMail>) -> Self {
        Self::with_timing(transport, rows, Timing { connect: NEVER, whole: NEVER, look: NEVER, grace: NEVER })
    }

    fn with_timing(transport: MailTransport, rows: Vec<OutboxMail>, timing: Timing) -> Self {
        let (outbox, metrics) = (Arc::new(Memory::new(rows)), Metrics::new());
        let mailer = Mailer::with_timing(outbox.clone(), &settings(transport), metrics.mail(), timing).unwrap();
        Self { outbox, mailer: Arc::new(mailer), metrics }
    }

    /// Runs until everything in the outbox has become something; returns what.
    async fn run(&self) -> Vec<Became> {
        self.mailer.run(self.outbox.until(|rows| rows.iter().all(|row| row.became != Became::Due))).await;
        self.outbox.all()
    }

    fn counted(&self, kind: MailKind, result: &str) -> u64 {
        let series = format!("sigmagate_mail_sent_total{{kind=\"{}\",result=\"{result}\"}} ", kind.as_str());
        let text = self.metrics.encode();
        text.lines().find_map(|line| line.strip_prefix(&series)).map_or(0, |count| count.parse().unwrap())
    }
}

/// A server at this port of this machine, as the settings name it.
fn smtp(server: &Server, tls: SmtpTls) -> Smtp {
    Smtp {
        host: "127.0.0.1".into(),
        port: server.port,
        tls,
        login: Some(SmtpLogin { username: "api".into(), password: "open sesame".into() }),
        ca: (tls != SmtpTls::None).then(|| server.certificate.clone()),
    }
}
