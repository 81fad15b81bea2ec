//! Mails that become files, and such that wait.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use mail_parser::MessageParser;

use super::*;

#[tokio::test]
async fn a_mail_becomes_a_file_that_nobody_else_reads() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("out/mail");
    let world = World::new(MailTransport::Folder(folder.clone()), vec![mail(1), to_operators(2, 1)]);
    assert_eq!(world.run().await, [Became::Sent, Became::Sent]);
    let names = || {
        let mut names: Vec<String> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names().len(), 2, "{:?}: nothing unfinished", names());
    let file = folder.join("1700000000000-1-access_approved.eml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let content = fs::read(&file).unwrap();
    let message = MessageParser::default().parse(&content).unwrap();
    assert!(message.body_text(0).unwrap().starts_with("Hello Zo\u{eb},") && message.body_html(0).is_some());
    // A gateway that died before it said so writes it again.
    let again = World::new(MailTransport::Folder(folder.clone()), vec![mail(1)]);
    assert_eq!(again.run().await, [Became::Sent]);
    assert_eq!(names().len(), 2);
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let taken = dir.path().join("mail");
    fs::write(&taken, "a file").unwrap();
    let world = World::new(MailTransport::Folder(taken.clone()), vec![to(1, "zoe@x.test")]);
    let became = world.run().await;
    assert!(matches!(&became[0], Became::Later(why, _) if why.contains(&*taken.display().to_string())), "{became:?}");
}

#[tokio::test]
async fn without_a_way_to_send_it_mail_waits_and_that_is_seen() {
    let world = World::new(MailTransport::Waits, vec![to(1, "zoe@x.test"), OutboxMail { created_at: Timestamp(0), ..mail(2) }]);
    let waiting = async {
        while !world.metrics.encode().contains("sigmagate_mail_waiting 2") {
            tokio::task::yield_now().await;
        }
    };
    world.mailer.run(waiting).await;
    assert_eq!((world.outbox.all(), world.outbox.claimed()), (vec![Became::Due, Became::Due], 0));
    let text = world.metrics.encode();
    let age = text.lines().find_map(|line| line.strip_prefix("sigmagate_mail_oldest_age_seconds ")).unwrap();
    assert!(age.parse::<f64>().unwrap() > 1e9, "since 1970: {age}");
}
