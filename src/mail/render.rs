//! From a row of the outbox to a letter.

use std::time::{Duration, UNIX_EPOCH};

use askama::Template;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::{Address, Message};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::clock::Timestamp;
use crate::config;
use crate::credential::Secret;
use crate::id::{ClientId, PracticeId};
use crate::store::records::{MailKind, OutboxMail, Recipient};

/// The most characters of what somebody has called something.
const LONGEST: usize = 120;

/// The last second that a date in a header can tell.
const LAST: u64 = 253_402_300_799;

/// A letter, ready to be sent.
pub(super) struct Letter {
    /// The name of its file: the same whenever the same row is rendered.
    pub(super) name: String,
    pub(super) from: Address,
    pub(super) to: Vec<Address>,
    /// Header and body (RFC 5322), in ASCII.
    pub(super) content: Vec<u8>,
}

/// What there is to tell. Whatever people have called something is clean.
struct Facts<'a> {
    kind: MailKind,
    operators: bool,
    name: Option<String>,
    practice: String,
    practice_id: &'a PracticeId,
    client: Option<(ClientId, String)>,
    when: String,
    by: Option<String>,
    address: Option<String>,
    /// Until when the secret before the new one works, if it still does.
    others_end: Option<String>,
    url: Option<&'a str>,
}

impl Facts<'_> {
    /// The client as a sentence names it.
    fn app(&self) -> String {
        self.client.as_ref().map_or_else(|| "an app of your practice".to_owned(), |(_, name)| format!("the app \u{201c}{name}\u{201d}"))
    }

    fn subject(&self) -> String {
        let app = self.client.as_ref().map_or(&self.practice, |(_, name)| name);
        match self.kind {
            MailKind::AccessRequested => format!("API access requested: {}", self.practice),
            MailKind::AccessApproved => format!("API access approved: {}", self.practice),
            MailKind::AccessDisabled => format!("API access turned off: {}", self.practice),
            MailKind::SecretRegenerated => format!("New API secret: {app}"),
            MailKind::ClientRevoked => format!("API app revoked: {app}"),
            MailKind::EndedSecretUsed => format!("Ended API secret still in use: {app}"),
        }
    }
}

#[derive(Template)]
#[template(path = "mail.txt")]
struct Text<'a> {
    facts: &'a Facts<'a>,
}

#[derive(Template)]
#[template(path = "mail.html")]
struct Html<'a> {
    facts: &'a Facts<'a>,
    subject: &'a str,
}

/// Renders a mail.
///
/// # Errors
/// Says why it can never be sent: there is nobody to send it to, or their address is none.
pub(super) fn render(mail: &OutboxMail, settings: &config::Mail) -> Result<Letter, String> {
    let recipients = recipients(mail, settings)?;
    let facts = facts(mail, settings);
    let subject = facts.subject();
    let text = Text { facts: &facts }.render().map_err(|error| error.to_string())?;
    let html = Html { facts: &facts, subject: &subject }.render().map_err(|error| error.to_string())?;
    let from = mailbox(&settings.from)?;
    let seconds = u64::try_from(mail.created_at.0 / 1000).unwrap_or(0).min(LAST);
    let mut builder = Message::builder()
        .from(from.clone())
        .date(UNIX_EPOCH + Duration::from_secs(seconds))
        // The same for every try, so that whoever gets it twice can tell; the moment tells databases apart that count from 1.
        .message_id(Some(format!("<outbox-{}-{}@{}>", mail.id, mail.created_at.0, settings.from.domain())))
        // RFC 3834 §5: no absence is to be answered to.
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
        .subject(subject);
    if let Some(reply_to) = &settings.reply_to {
        builder = builder.reply_to(mailbox(reply_to)?);
    }
    for recipient in &recipients {
        builder = builder.to(recipient.clone());
    }
    let message = builder.multipart(MultiPart::alternative_plain_html(text, html)).map_err(|error| error.to_string())?;
    Ok(Letter {
        name: format!("{}-{}-{}.eml", mail.created_at.0, mail.id, mail.kind.as_str()),
        from: from.email,
        to: recipients.into_iter().map(|recipient| recipient.email).collect(),
        content: message.formatted(),
    })
}

fn recipients(mail: &OutboxMail, settings: &config::Mail) -> Result<Vec<Mailbox>, String> {
    match &mail.recipient {
        Recipient::Person { name, email, .. } => {
            // No line breaks, by any name: what is clean has none.
            let name = name.as_deref().map(clean);
            Ok(vec![mailbox(&config::Mailbox::new(name.as_deref(), email)?)?])
        }
        Recipient::Operators if settings.operators.is_empty() => Err("`mail.operators` names nobody".to_owned()),
        Recipient::Operators => settings.operators.iter().map(mailbox).collect(),
    }
}

fn mailbox(mailbox: &config::Mailbox) -> Result<Mailbox, String> {
    let address: Address =
        mailbox.address().parse().map_err(|error| format!("`{}` is not an e-mail address: {error}", mailbox.address()))?;
    Ok(Mailbox::new(mailbox.name().map(str::to_owned), address))
}

fn facts<'a>(mail: &'a OutboxMail, settings: &'a config::Mail) -> Facts<'a> {
    let detail = |name: &str| mail.details.get(name).and_then(|value| value.as_str()).map(clean).filter(|text| !text.is_empty());
    let practice = clean(&mail.practice_name);
    let person = match &mail.recipient {
        Recipient::Person { name, .. } => name.as_deref().map(clean).filter(|name| !name.is_empty()),
        Recipient::Operators => None,
    };
    Facts {
        kind: mail.kind,
        operators: mail.recipient == Recipient::Operators,
        name: person,
        practice: if practice.is_empty() { mail.practice_id.to_string() } else { practice },
        practice_id: &mail.practice_id,
        client: mail
            .client
            .as_ref()
            .map(|(id, name)| (*id, Some(clean(name)).filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_string()))),
        when: civil(mail.created_at),
        by: detail("by"),
        address: detail("address"),
        others_end: detail("others_end").and_then(|text| text.parse().ok()).filter(|end| *end > mail.created_at).map(civil),
        url: settings.url.as_deref(),
    }
}

/// What somebody has called something, on one line and in its own direction, shortened, and without what looks like a
/// secret: people paste into the wrong field.
fn clean(text: &str) -> String {
    let blank = |c: char| c.is_control() || c.is_whitespace() || matches!(c, '\u{2028}' | '\u{2029}');
    // Marks that turn the direction of what follows, or that are not seen.
    let unseen =
        |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}');
    let visible: String = text.chars().filter(|c| !unseen(*c)).map(|c| if blank(c) { ' ' } else { c }).collect();
    let line = visible.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let mut parts = line.split(Secret::PREFIX);
    let mut line = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        line.push_str(Secret::PREFIX);
        line.push('\u{2026}');
        line.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric()));
    }
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}\u{2026}", line[..end].trim_end()),
        None => line,
    }
}

/// A moment as people read it.
fn civil(at: Timestamp) -> String {
    let format = format_description!("[day padding:none] [month repr:long] [year], [hour]:[minute]:[second] UTC");
    let at_utc = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000).ok();
    at_utc.and_then(|at| at.format(&format).ok()).unwrap_or_else(|| at.to_string())
}

#[cfg(test)]
mod tests;
