//! What letters say, as another program reads them.

use std::sync::Arc;

use mail_parser::{Address as Parsed, MessageParser};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::MailTransport;
use crate::mail::tests::{mail, mailbox, settings};

const CLIENT: &str = "smd_0123456789abcdefGHIJ";

fn client(name: &str) -> (ClientId, Arc<str>) {
    (CLIENT.parse().unwrap(), name.into())
}

fn person(name: Option<&str>, email: &str) -> Recipient {
    Recipient::Person { user: "u-1".parse().unwrap(), name: name.map(Into::into), email: email.into() }
}

fn folder() -> config::Mail {
    settings(MailTransport::Waits)
}

/// Subject, text and HTML.
fn read(letter: &Letter) -> (String, String, String) {
    let message = MessageParser::default().parse(&letter.content).unwrap();
    assert_eq!((message.text_body_count(), message.html_body_count()), (1, 1));
    let html = message.html_part(0).unwrap();
    let part = |text: &str| text.replace("\r\n", "\n");
    let html = html.text_contents().unwrap();
    (message.subject().unwrap().to_owned(), part(&message.body_text(0).unwrap()), part(html))
}

fn said(mail: &OutboxMail) -> (String, String, String) {
    read(&render(mail, &folder()).unwrap())
}

#[test]
fn every_kind_says_what_happened_when_where_and_what_to_do() {
    for kind in MailKind::EVERY.iter().copied() {
        for recipient in [Recipient::Operators, person(Some("Zo\u{eb}"), "zoe@x.test")] {
            let named = !matches!(kind, MailKind::AccessRequested | MailKind::AccessApproved | MailKind::AccessDisabled);
            let mail = OutboxMail {
                kind,
                recipient: recipient.clone(),
                client: named.then(|| client("Billing <sync> & co")),
                details: json!({ "by": "Dr. \"K\" <k@x.test>", "secret": "smds_neverShown" }),
                ..mail(7)
            };
            let (subject, text, html) = said(&mail);
            let about = if named { "Billing <sync> & co" } else { "Praxis M\u{fc}ller" };
            assert!(subject.contains(about), "{subject}");
            let greeting = if recipient == Recipient::Operators { "Hello,\n\n" } else { "Hello Zo\u{eb},\n\n" };
            assert!(text.starts_with(greeting), "{text}");
            for says in [
                "What to do:",
                "Practice: Praxis M\u{fc}ller (p-1)\n",
                "When:     14 November 2023, 22:13:20 UTC\n",
                "By:       Dr. \"K\" <k@x.test>\n",
                "SigmaMD:  https://app.example.test/?a=1&b=2\n",
            ] {
                assert!(text.contains(says), "{says:?} in {text}");
            }
            assert!(!text.contains("\n\n\n") && !text.contains("  \n"), "{text}");
            for says in [
                "<strong>What to do:</strong>",
                "<td>Praxis M\u{fc}ller (p-1)</td>",
                "<td>14 November 2023, 22:13:20 UTC</td>",
                "<a href=\"https://app.example.test/?a=1&#38;b=2\">Open SigmaMD</a>",
                "&#60;k@x.test&#62;</td>",
            ] {
                assert!(html.contains(says), "{says} in {html}");
            }
            if named {
                assert!(text.contains(&format!("App:      Billing <sync> & co ({CLIENT})\n")), "{text}");
                assert!(text.contains("the app \u{201c}Billing <sync> & co\u{201d}"), "{text}");
                assert!(html.contains("Billing &#60;sync&#62; &#38; co") && !html.contains("<sync>"), "{html}");
            }
            assert!(!(text + &html).contains("smds_"), "what is not to be told is not");
        }
    }
}

#[test]
fn what_to_do_is_for_whom_it_is_said_to() {
    let asked = OutboxMail { kind: MailKind::AccessRequested, recipient: Recipient::Operators, ..mail(1) };
    assert!(said(&asked).1.contains("\n    sigmagate practice approve p-1\n"), "{}", said(&asked).1);
    let asked = OutboxMail { kind: MailKind::AccessRequested, ..mail(1) };
    assert!(said(&asked).1.contains("What to do: nothing. You get a mail when it is approved."));
    let renewed = |details| {
        let mail = OutboxMail { kind: MailKind::SecretRegenerated, client: Some(client("Sync")), details, ..mail(1) };
        said(&mail).1
    };
    let until = renewed(json!({ "others_end": "2023-11-15T22:13:20Z" }));
    assert!(until.contains("The one before it works until 15 November 2023, 22:13:20 UTC."), "{until}");
    for details in [json!({ "others_end": "2023-11-14T22:13:20Z" }), json!({}), json!(null), json!({ "others_end": "tomorrow" })] {
        assert!(renewed(details).contains("The one before it no longer works.\n"));
    }
    let used = |details| {
        let mail = OutboxMail { kind: MailKind::EndedSecretUsed, client: Some(client("Sync")), details, ..mail(1) };
        said(&mail).1
    };
    let used = used(json!({ "generation": 1, "at": "2023-11-14T22:13:20Z", "address": "192.0.2.7" }));
    assert!(used.contains("\u{201c}Sync\u{201d} that is over") && used.contains("From:     192.0.2.7\n"), "{used}");
    let nameless = OutboxMail { kind: MailKind::ClientRevoked, client: None, practice_name: " ".into(), ..mail(1) };
    let (subject, text, _) = said(&nameless);
    assert!(subject == "API app revoked: p-1" && text.contains("an app of your practice"), "{subject} {text}");
}

#[test]
fn the_header_is_that_of_a_machine_and_the_same_each_time() {
    let mut settings = folder();
    settings.reply_to = Some(mailbox(Some("Support"), "help@x.test"));
    let row = OutboxMail { recipient: person(Some("Zo\u{eb} \u{17b}\u{f3}\u{142}\u{107}, MD"), "zoe@m\u{fc}ller.example"), ..mail(42) };
    let letter = render(&row, &settings).unwrap();
    assert!(letter.content.is_ascii(), "any server takes it");
    let message = MessageParser::default().parse(&letter.content).unwrap();
    assert_eq!(message.message_id(), Some("outbox-42-1700000000000@example.test"));
    assert_eq!(message.date().unwrap().to_rfc3339(), "2023-11-14T22:13:20Z");
    let one = |address: Option<&Parsed<'_>>| {
        let address = address.and_then(Parsed::first).unwrap();
        (address.name().map(str::to_owned), address.address().unwrap().to_owned())
    };
    assert_eq!(one(message.from()), (Some("SigmaMD API".into()), "api@example.test".into()));
    assert_eq!(one(message.reply_to()), (Some("Support".into()), "help@x.test".into()));
    assert_eq!(one(message.to()), (Some("Zo\u{eb} \u{17b}\u{f3}\u{142}\u{107}, MD".into()), "zoe@xn--mller-kva.example".into()));
    assert_eq!(message.subject(), Some("API access approved: Praxis M\u{fc}ller"));
    assert_eq!(message.header_raw("Auto-Submitted").map(str::trim), Some("auto-generated"));
    assert_eq!(letter.to.iter().map(ToString::to_string).collect::<Vec<_>>(), ["zoe@xn--mller-kva.example"]);
    let raw = String::from_utf8(letter.content.clone()).unwrap();
    assert!(raw.contains("=?utf-8?") && raw.lines().all(|line| line.len() <= 998), "RFC 2047, RFC 5322 \u{a7}2.1.1");
    let again = render(&OutboxMail { attempts: 9, ..row.clone() }, &settings).unwrap();
    assert_eq!(again.name, "1700000000000-42-access_approved.eml");
    assert_eq!(again.name, letter.name);
    let other = render(&OutboxMail { id: 43, ..row }, &settings).unwrap();
    assert_ne!(MessageParser::default().parse(&other.content).unwrap().message_id(), message.message_id());
}

#[test]
fn operators_are_told_in_one_mail_and_nobody_is_no_recipient() {
    let asked = OutboxMail { kind: MailKind::AccessRequested, recipient: Recipient::Operators, ..mail(1) };
    let letter = render(&asked, &folder()).unwrap();
    assert_eq!(letter.to.iter().map(ToString::to_string).collect::<Vec<_>>(), ["one@ops.test", "two@ops.test"]);
    let nobody = config::Mail { operators: Vec::new(), ..folder() };
    assert_eq!(render(&asked, &nobody).err().as_deref(), Some("`mail.operators` names nobody"));
}

#[test]
fn nobody_is_written_to_under_what_is_no_address() {
    for email in [
        "",
        "zoe",
        "@x.test",
        "zoe@",
        "zoe@x.test, eve@x.test",
        "zoe@x.test\r\nRCPT TO:<eve@x.test>",
        "zoe@x.test\nBcc: eve@x.test",
        "<zoe@x.test>",
        "zoe@x.test>",
        "\"zoe\r\n\"@x.test",
        "zo\u{eb}@x.test",
        "zoe@x.test\0",
        "zoe@[127.0.0.1]",
    ] {
        let refused = render(&OutboxMail { recipient: person(None, email), ..mail(1) }, &folder()).err();
        assert!(refused.as_ref().is_some_and(|why| !why.contains(['\r', '\n', '\0'])), "{email:?}: {refused:?}");
    }
}

#[test]
fn what_looks_like_a_secret_is_not_passed_on_and_names_are_one_short_line() {
    for (name, told) in [
        ("  Billing\r\n sync\t", "Billing sync"),
        ("smds_0aZ9secret", "smds_\u{2026}"),
        ("old smds_abc, new smds_def!", "old smds_\u{2026}, new smds_\u{2026}!"),
        ("a\u{202e}b\u{200b}c\u{feff}", "abc"),
        ("line\u{2028}line\u{85}line", "line line line"),
        ("\u{0}\u{7}", ""),
        (&"x".repeat(121), &format!("{}\u{2026}", "x".repeat(120))),
        (&"\u{fc}".repeat(120), &"\u{fc}".repeat(120)),
    ] {
        assert_eq!(clean(name), told, "{name:?}");
    }
    let row = OutboxMail { kind: MailKind::ClientRevoked, client: Some(client("smds_0aZ9secret")), ..mail(1) };
    let (subject, text, html) = said(&row);
    assert!(![subject, text, html].concat().contains("0aZ9"));
}

#[test]
fn no_moment_is_too_early_or_too_late() {
    for at in [i64::MIN, -1, 0, 253_402_300_799_999, i64::MAX] {
        let letter = render(&OutboxMail { created_at: Timestamp(at), ..mail(1) }, &folder()).unwrap();
        assert!(MessageParser::default().parse(&letter.content).unwrap().date().is_some(), "{at}");
    }
}

proptest! {
    #[test]
    fn no_name_adds_a_header_or_changes_who_gets_it(name in ".{0,80}", practice in ".{0,80}", app in ".{0,80}", by in ".{0,80}") {
        let attack = |text: &str| format!("{text}\r\nBcc: eve@x.test\r\n\r\n<script>{text}");
        let row = OutboxMail {
            kind: MailKind::ClientRevoked,
            practice_name: attack(&practice).into(),
            client: Some(client(&attack(&app))),
            recipient: person(Some(&attack(&name)), "zoe@x.test"),
            details: json!({ "by": attack(&by) }),
            ..mail(1)
        };
        let letter = render(&row, &folder()).unwrap();
        let message = MessageParser::default().parse(&letter.content).unwrap();
        let names: Vec<String> = message.headers().iter().map(|header| header.name().to_ascii_lowercase()).collect();
        let known = ["from", "date", "message-id", "auto-submitted", "subject", "to", "mime-version", "content-type"];
        prop_assert_eq!(names, known);
        prop_assert_eq!(letter.to.iter().map(ToString::to_string).collect::<Vec<_>>(), vec!["zoe@x.test"]);
        let to: Vec<_> = message.to().unwrap().iter().filter_map(|address| address.address()).collect();
        prop_assert_eq!(to, vec!["zoe@x.test"]);
        let (subject, text, html) = read(&letter);
        prop_assert!(!subject.contains(['\r', '\n']) && !html.contains("<script>"));
        prop_assert!(text.lines().all(|line| !line.starts_with("Bcc")));
        prop_assert!(letter.content.is_ascii());
    }

    #[test]
    fn what_the_settings_take_for_an_address_is_one(local in "[a-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}", domain in "[a-z0-9.\u{e0}-]{1,40}") {
        if let Ok(taken) = config::Mailbox::new(None, &format!("{local}@{domain}")) {
            prop_assert!(super::mailbox(&taken).is_ok(), "{:?}", taken);
        }
    }
}
