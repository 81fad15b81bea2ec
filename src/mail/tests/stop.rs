//! When the mailer works, and when it ends.

use tokio::sync::oneshot;

use super::*;

#[tokio::test]
async fn a_nudge_is_enough_for_a_new_mail_to_be_sent() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(MailTransport::Folder(dir.path().into()), vec![to(1, "zoe@x.test")]);
    let story = async {
        for id in 2..5 {
            world.outbox.until(|rows| rows.iter().all(|row| row.became == Became::Sent)).await;
            world.outbox.put(to(id, "zoe@x.test"));
            world.mailer.nudge();
        }
        world.outbox.until(|rows| rows.len() == 4 && rows.iter().all(|row| row.became == Became::Sent)).await;
    };
    world.mailer.run(story).await;
}

#[tokio::test]
async fn the_outbox_is_looked_into_without_a_nudge() {
    let dir = tempfile::tempdir().unwrap();
    let timing = Timing { connect: NEVER, whole: NEVER, look: Duration::from_millis(5), grace: NEVER };
    let world = World::with_timing(MailTransport::Folder(dir.path().into()), vec![to(1, "zoe@x.test")], timing);
    let story = async {
        world.outbox.until(|rows| rows[0].became == Became::Sent).await;
        world.outbox.put(to(2, "zoe@x.test"));
        world.outbox.until(|rows| rows[1].became == Became::Sent).await;
    };
    world.mailer.run(story).await;
}

#[tokio::test]
async fn a_server_that_is_slow_does_not_keep_the_gateway_from_stopping() {
    let server = Server::start(Script { content: |_| Answer::Hangs, ..Script::default() }).await;
    let timing = Timing { connect: NEVER, whole: NEVER, look: NEVER, grace: Duration::from_millis(20) };
    let mails = vec![to(1, "zoe@x.test"), to(2, "zoe@x.test")];
    let world = World::with_timing(MailTransport::Smtp(smtp(&server, SmtpTls::Starttls)), mails, timing);
    // Ends, or the test does not.
    world.mailer.run(server.heard("(hangs)")).await;
    assert_eq!((world.outbox.all(), world.outbox.claimed()), (vec![Became::Due, Became::Due], 2), "until the claim is over");
    assert_eq!(world.counted(MailKind::AccessApproved, "sent"), 0);
}

#[tokio::test]
async fn a_mail_under_way_is_finished_and_the_others_go_back() {
    let server = Server::start(Script::default()).await;
    let mails = (1..=3).map(|id| to(id, "zoe@x.test")).collect();
    let world = World::new(MailTransport::Smtp(smtp(&server, SmtpTls::Starttls)), mails);
    world.mailer.run(server.heard("+MAIL")).await;
    let became = world.outbox.all();
    assert_eq!((&became[0], server.taken().len(), world.outbox.claimed()), (&Became::Sent, 1, 0), "{became:?}");
    for became in &became[1..] {
        let Became::Later(why, at) = became else { panic!("{became:?}") };
        assert!(why.contains("stopped") && *at <= crate::clock::now(), "due at once, for another node");
    }
}

#[tokio::test]
async fn whoever_has_stopped_it_need_not_say_so() {
    let world = World::new(MailTransport::Waits, Vec::new());
    let (stop, stopped) = oneshot::channel::<()>();
    drop(stop);
    world
        .mailer
        .run(async {
            let _ = stopped.await;
        })
        .await;
}
