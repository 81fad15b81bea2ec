//! Conversations with a server.

use mail_parser::MessageParser;

use super::server::{Starttls, Taken};
use super::*;
use crate::mail::retry::PATIENCE;

fn ids(taken: &[Taken]) -> Vec<String> {
    let id = |taken: &Taken| MessageParser::default().parse(&taken.content).unwrap().message_id().unwrap().to_owned();
    taken.iter().map(|taken| id(taken).split('-').nth(1).unwrap().to_owned()).collect()
}

/// The reason for which a mail is tried again, in the time of a first try.
fn later(became: &Became) -> &str {
    let Became::Later(why, at) = became else { panic!("{became:?}") };
    let seconds = (at.0 - crate::clock::now().0) / 1000;
    assert!((-60..=60).contains(&seconds), "{seconds}: a minute at most, whatever the test took since");
    why
}

#[tokio::test]
async fn mails_arrive_whole_over_one_encrypted_connection() {
    let server = Server::start(Script::default()).await;
    let dots = format!("M\u{fc}ller {}", ".".repeat(110));
    let mails = vec![OutboxMail { practice_name: dots.as_str().into(), ..mail(1) }, to_operators(2, 1), to(3, "zoe@x.test")];
    let world = World::new(MailTransport::Smtp(smtp(&server, SmtpTls::Starttls)), mails);
    assert_eq!(world.run().await, [Became::Sent, Became::Sent, Became::Sent]);
    let taken = server.taken();
    assert_eq!((ids(&taken), server.connections()), (vec!["1".into(), "2".into(), "3".into()], 1));
    assert!(taken.iter().all(|taken| taken.encrypted && taken.login.as_deref() == Some("\0api\0open sesame")));
    assert!(taken.iter().all(|taken| taken.from == "FROM:<api@example.test>"), "{taken:?}");
    assert_eq!(
        (taken[0].to.as_slice(), taken[1].to.as_slice()),
        (&["zoe@x.test".to_owned()][..], &["one@ops.test".into(), "two@ops.test".into()][..])
    );
    let commands = server.commands();
    assert_eq!(commands[..3], ["EHLO example.test", "STARTTLS", "+EHLO example.test"], "nothing else in plain text");
    assert!(commands[3..].iter().all(|command| command.starts_with('+')), "{commands:?}");
    let message = MessageParser::default().parse(&taken[0].content).unwrap();
    assert_eq!(message.subject(), Some(&*format!("API access approved: {dots}")));
    assert_eq!(message.to().and_then(|to| to.first()).and_then(|to| to.name()), Some("Zo\u{eb}"));
    for text in [message.body_text(0).unwrap(), message.body_html(0).unwrap()] {
        assert!(text.contains(&format!("\u{201c}{dots}\u{201d} has access to the API now.")), "{text}");
    }
    assert!(taken[0].raw.windows(4).any(|window| window == b"\r\n.."), "a line of dots was stuffed");
    assert_eq!((world.counted(MailKind::AccessApproved, "sent"), world.counted(MailKind::AccessRequested, "sent")), (2, 1));
    world.outbox.put(to(4, "zoe@x.test"));
    assert_eq!(world.run().await[3], Became::Sent, "it runs again");
}

#[tokio::test]
async fn a_server_may_be_encrypted_from_the_start_or_on_this_machine() {
    for (starttls, tls, mechanisms) in [
        (Starttls::Implicit, SmtpTls::Implicit, "LOGIN"),
        (Starttls::Offered, SmtpTls::Starttls, "LOGIN XOAUTH2"),
        (Starttls::Offered, SmtpTls::None, "PLAIN"),
    ] {
        let server = Server::start(Script { starttls, mechanisms, ..Script::default() }).await;
        let world = World::new(MailTransport::Smtp(smtp(&server, tls)), vec![mail(1)]);
        assert_eq!(world.run().await, [Became::Sent], "{tls:?}");
        let taken = server.taken();
        assert_eq!((taken[0].encrypted, taken[0].login.is_some()), (tls != SmtpTls::None, true));
    }
    let server = Server::start(Script::default()).await;
    let nobody = Smtp { login: None, ..smtp(&server, SmtpTls::Starttls) };
    assert_eq!(World::new(MailTransport::Smtp(nobody), vec![mail(1)]).run().await, [Became::Sent]);
    assert!(server.taken()[0].login.is_none() && !server.commands().iter().any(|command| command.contains("AUTH")));
}

#[tokio::test]
async fn nothing_is_sent_where_encryption_fails() {
    let other = Server::start(Script::default()).await;
    for (what, script, stranger, says) in [
        ("none offered", Script { starttls: Starttls::Missing, ..Script::default() }, false, "STARTTLS is not supported"),
        ("refused", Script { starttls: Starttls::Refused, ..Script::default() }, false, "454"),
        ("answers put in", Script { starttls: Starttls::Injected, ..Script::default() }, false, ""),
        ("nobody vouches", Script::default(), true, "certificate"),
        ("of another host", Script { named: "mail.test", ..Script::default() }, false, "certificate"),
        ("nobody vouches, from the start", Script { starttls: Starttls::Implicit, ..Script::default() }, true, "certificate"),
    ] {
        let server = Server::start(script).await;
        let tls = if script.starttls == Starttls::Implicit { SmtpTls::Implicit } else { SmtpTls::Starttls };
        let mut smtp = smtp(&server, tls);
        if stranger {
            smtp.ca = Some(other.certificate.clone());
        }
        let world = World::new(MailTransport::Smtp(smtp), vec![to(1, "zoe@x.test"), to(2, "zoe@x.test")]);
        for became in world.run().await {
            assert!(later(&became).contains(says), "{what}: {became:?}");
        }
        assert!(server.taken().is_empty(), "{what}");
        let commands = server.commands();
        assert!(commands.iter().all(|command| ["EHLO example.test", "STARTTLS", "QUIT"].contains(&&**command)), "{what}: {commands:?}");
        assert_eq!(server.connections(), 1, "{what}: it is as good as true for every mail");
        assert_eq!(world.counted(MailKind::AccessApproved, "retried"), 2);
    }
}

#[tokio::test]
async fn a_login_that_is_refused_is_not_the_fault_of_a_mail() {
    for (mechanisms, password, says) in [("PLAIN", "wrong", "535"), ("LOGIN", "wrong", "535"), ("GSSAPI", "open sesame", "No compatible")] {
        let server = Server::start(Script { mechanisms, ..Script::default() }).await;
        let login = Some(SmtpLogin { username: "api".into(), password: password.into() });
        let world = World::new(
            MailTransport::Smtp(Smtp { login, ..smtp(&server, SmtpTls::Starttls) }),
            vec![to(1, "zoe@x.test"), to(2, "zoe@x.test")],
        );
        for became in world.run().await {
            let why = later(&became);
            assert!(why.contains(says) && !why.contains(password), "{why}");
        }
        assert!(!server.commands().iter().any(|command| command.contains("MAIL")));
    }
}

#[tokio::test]
async fn one_mail_that_is_refused_keeps_none_from_being_sent() {
    let server = Server::start(Script {
        recipient: |address| {
            Answer::Says(match address {
                "gone@x.test" => "550 5.1.1 no such user",
                "full@x.test" => "452 4.2.2 mailbox full",
                _ => "250 ok",
            })
        },
        content: |before| Answer::Says(if before == 2 { "554 5.7.1 not such a mail" } else { "250 taken" }),
        ..Script::default()
    })
    .await;
    let to = |id, name: &str| to(id, &format!("{name}@x.test"));
    let mails = vec![to(1, "a"), to(2, "gone"), to(3, "full"), to(4, "b"), to(5, "c"), to(6, "d"), super::to(7, "no address")];
    let world = World::new(MailTransport::Smtp(smtp(&server, SmtpTls::Starttls)), mails);
    let became = world.run().await;
    assert_eq!((ids(&server.taken()), server.connections()), (vec!["1".into(), "4".into(), "6".into()], 1));
    for (at, says) in
        [(1, "`gone@x.test` was refused: permanent error (550): 5.1.1 no such user"), (4, "554"), (6, "is not an e-mail address")]
    {
        assert!(matches!(&became[at], Became::GivenUp(why) if why.contains(says)), "{:?}", became[at]);
    }
    assert!(later(&became[2]).contains("`full@x.test` was refused: transient error (452): 4.2.2 mailbox full"));
    let counted = ["sent", "retried", "given_up"].map(|result| world.counted(MailKind::AccessApproved, result));
    assert_eq!(counted, [3, 1, 3]);
    world.outbox.later_is_now();
    let Became::Later(_, at) = world.run().await[2] else { panic!("{:?}", world.outbox.all()) };
    assert!(at.0 - crate::clock::now().0 > 60_000, "twice as long as before");
}

#[tokio::test]
async fn what_is_said_of_the_sender_or_the_connection_is_said_of_every_mail() {
    for (script, contents) in [
        (Script { sender: "550 we do not take yours", ..Script::default() }, 0),
        (Script { sender: "451 later", ..Script::default() }, 0),
        (Script { recipient: |_| Answer::Says("421 closing"), ..Script::default() }, 0),
        (Script { recipient: |_| Answer::Says("530 5.7.0 log in first"), ..Script::default() }, 0),
        (Script { recipient: |_| Answer::Dies, ..Script::default() }, 0),
        (Script { content: |before| if before == 1 { Answer::Dies } else { Answer::Says("250 taken") }, ..Script::default() }, 1),
    ] {
        let server = Server::start(script).await;
        let mails = (1..=4).map(|id| to(id, "zoe@x.test")).collect();
        let world = World::new(MailTransport::Smtp(smtp(&server, SmtpTls::Starttls)), mails);
        let became = world.run().await;
        assert_eq!((server.taken().len(), server.connections()), (contents, 1));
        assert!(became[..contents].iter().all(|became| *became == Became::Sent));
        became[contents..].iter().for_each(|became| assert!(!later(became).is_empty()));
        assert_eq!(world.counted(MailKind::AccessApproved, "given_up"), 0);
    }
}

#[tokio::test]
async fn a_mail_that_a_dying_server_has_not_taken_is_sent_again_as_the_same_one() {
    let content = |before| if before == 0 { Answer::Dies } else { Answer::Says("250 taken") };
    let server = Server::start(Script { content, ..Script::default() }).await;
    let world = World::new(MailTransport::Smtp(smtp(&server, SmtpTls::Starttls)), vec![to(1, "zoe@x.test")]);
    later(&world.run().await[0]);
    assert!(server.taken().is_empty());
    world.outbox.later_is_now();
    assert_eq!(world.run().await, [Became::Sent]);
    assert_eq!(ids(&server.taken()), ["1"]);
}

#[tokio::test]
async fn of_several_recipients_nobody_gets_a_mail_twice_and_nobody_waits_for_ever() {
    let only = |refusal: &'static str| Script {
        recipient: if refusal.starts_with('4') {
            |address| Answer::Says(if address == "one@ops.test" { "450 later" } else { "250 ok" })
        } else {
            |address| Answer::Says(if address == "one@ops.test" { "550 gone" } else { "250 ok" })
        },
        ..Script::default()
    };
    for (refusal, attempts, sent) in [("550", 1, true), ("450", 1, false), ("450", 3, false), ("450", 4, true)] {
        let server = Server::start(only(refusal)).await;
        let mails = vec![to_operators(1, attempts), to(2, "zoe@x.test")];
        let world = World::new(MailTransport::Smtp(smtp(&server, SmtpTls::Starttls)), mails);
        let became = world.run().await;
        assert_eq!((became[0] == Became::Sent, &became[1]), (sent, &Became::Sent), "{refusal} {attempts}");
        let to: Vec<_> = server.taken().into_iter().flat_map(|taken| taken.to).collect();
        assert_eq!(to, if sent { vec!["two@ops.test", "zoe@x.test"] } else { vec!["zoe@x.test"] });
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_says_nothing_is_tried_again() {
    let silent = Script { content: |_| Answer::Hangs, ..Script::default() };
    let server = Server::start(silent).await;
    let timing = Timing { connect: NEVER, whole: Duration::from_millis(300), look: NEVER, grace: NEVER };
    let mails = vec![to(1, "zoe@x.test"), to(2, "zoe@x.test")];
    let world = World::with_timing(MailTransport::Smtp(smtp(&server, SmtpTls::None)), mails, timing);
    for became in world.run().await {
        assert!(later(&became).contains("did not answer within"), "{became:?}");
    }
    // A port that is taken, where nobody listens.
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = held.local_addr().unwrap().port();
    drop(held);
    let gone = Smtp { port, ..smtp(&server, SmtpTls::Starttls) };
    let old = OutboxMail {
        created_at: Timestamp(crate::clock::now().after(Duration::ZERO).0 - i64::try_from(PATIENCE.as_millis()).unwrap()),
        ..mail(2)
    };
    let world = World::new(MailTransport::Smtp(gone), vec![to(1, "zoe@x.test"), old]);
    let became = world.run().await;
    assert!(later(&became[0]).contains("127.0.0.1"), "{became:?}");
    assert!(matches!(&became[1], Became::GivenUp(_)), "after three days: {became:?}");
}

#[tokio::test]
async fn two_gateways_send_each_of_many_mails_once() {
    let server = Server::start(Script::default()).await;
    let transport = MailTransport::Smtp(smtp(&server, SmtpTls::None));
    let world = World::new(transport.clone(), (0..35).map(|id| to(id, "zoe@x.test")).collect());
    let timing = Timing { connect: NEVER, whole: NEVER, look: NEVER, grace: NEVER };
    let other = Mailer::with_timing(world.outbox.clone(), &settings(transport), world.metrics.mail(), timing).unwrap();
    let done = || world.outbox.until(|rows| rows.iter().all(|row| row.became == Became::Sent));
    tokio::join!(world.mailer.run(done()), other.run(done()));
    let mut ids: Vec<i64> = ids(&server.taken()).iter().map(|id| id.parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..35).collect::<Vec<_>>());
}
