//! How people are told.

use super::*;

const POSTGRES: &str = "[store]\nurl = \"postgres://u@h/d\"\n";

/// `[mail]` with a server and more of it.
fn server(rest: &str) -> String {
    format!("[mail]\nfrom = \"api@example.test\"\n[mail.smtp]\n{rest}\n")
}

fn mail(gateway: &str) -> Mail {
    files(gateway, ROUTES).load(&[]).unwrap_or_else(|error| panic!("{gateway}: {error}")).gateway.mail
}

#[test]
fn mails_become_files_beside_the_database_or_wait() {
    for (gateway, folder) in [
        ("", Some("mail")),
        ("[mail]", Some("mail")),
        ("[store]\nurl = \"sqlite:///var/lib/sigmagate/gateway.db\"", Some("/var/lib/sigmagate/mail")),
        ("[store]\nurl = \"sqlite://data/gateway.db\"\n[mail]\noperators = [\"ops@example.test\"]", Some("data/mail")),
        (POSTGRES, None),
        (&format!("{POSTGRES}[mail]"), None),
    ] {
        match (mail(gateway).transport, folder) {
            (MailTransport::Folder(is), Some(folder)) => assert_eq!(is, Path::new(folder), "{gateway}"),
            (MailTransport::Waits, None) => {}
            (is, _) => panic!("{gateway}: {is:?}"),
        }
    }
    let given = files(&format!("{POSTGRES}[mail]\nfolder = \"out/mail\""), ROUTES);
    let Ok(Config { gateway: Gateway { mail: Mail { transport: MailTransport::Folder(folder), from, operators, .. }, .. }, .. }) =
        given.load(&[])
    else {
        panic!("no folder")
    };
    assert_eq!(folder, given.dir.path().join("out/mail"), "counts from the file");
    assert_eq!((from.address(), from.name()), ("sigmagate@localhost", Some("SigmaMD API")));
    assert_eq!(operators, [from], "whoever looks at the files sees the requests too");
}

#[test]
fn a_server_has_the_port_of_its_way_to_encrypt() {
    for (rest, host, port, tls) in [
        ("host = \"smtp.example.test\"", "smtp.example.test", 587, SmtpTls::Starttls),
        ("host = \"smtp.example.test\"\ntls = \"starttls\"\nport = 25", "smtp.example.test", 25, SmtpTls::Starttls),
        ("host = \"SMTP.m\u{fc}ller.example\"\ntls = \"implicit\"", "smtp.xn--mller-kva.example", 465, SmtpTls::Implicit),
        ("host = \"localhost\"\ntls = \"none\"", "localhost", 25, SmtpTls::None),
        ("host = \"[::1]\"\ntls = \"none\"\nport = 2525", "::1", 2525, SmtpTls::None),
        ("host = \"127.0.0.1\"\ntls = \"none\"", "127.0.0.1", 25, SmtpTls::None),
    ] {
        let MailTransport::Smtp(smtp) = mail(&server(rest)).transport else { panic!("{rest}") };
        assert_eq!((&*smtp.host, smtp.port, smtp.tls), (host, port, tls));
        assert!(smtp.login.is_none() && smtp.ca.is_none());
    }
}

#[test]
fn everything_can_be_said_and_the_password_is_not_shown() {
    let text = "[mail]\nfrom = \"Praxis \u{fc}ber <api@m\u{fc}ller.example>\"\noperators = [\"a@x.test\", \"The, Ops <b@x.test>\"]\n\
                reply_to = \"\\\"Support\\\" <help@x.test>\"\nurl = \"https://app.example.test/login\"\n\
                [mail.smtp]\nhost = \"smtp.x.test\"\nusername = \"api\"\npassword = { env = \"PASSWORD\" }\nca = \"ca.pem\"";
    let files = files(text, ROUTES);
    fs::write(files.dir.path().join("ca.pem"), rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap().cert.pem()).unwrap();
    let mail = files.load(&[("PASSWORD", "open sesame")]).unwrap().gateway.mail;
    assert_eq!((mail.from.name(), mail.from.address()), (Some("Praxis \u{fc}ber"), "api@xn--mller-kva.example"));
    let operators: Vec<_> = mail.operators.iter().map(|mailbox| (mailbox.name(), mailbox.address())).collect();
    assert_eq!(operators, [(None, "a@x.test"), (Some("The, Ops"), "b@x.test")]);
    assert_eq!(mail.reply_to.as_ref().map(|to| (to.name(), to.domain())), Some((Some("Support"), "x.test")));
    assert_eq!(mail.url.as_deref(), Some("https://app.example.test/login"));
    let MailTransport::Smtp(smtp) = &mail.transport else { panic!("{mail:?}") };
    let login = smtp.login.as_ref().unwrap();
    assert_eq!((&*login.username, &*login.password), ("api", "open sesame"));
    assert_eq!(smtp.ca.as_deref(), Some(&*files.dir.path().join("ca.pem")));
    assert!(!format!("{mail:?}").contains("sesame"), "{mail:?}");
}

#[test]
fn the_environment_says_it_too() {
    let env = [
        ("SIGMAGATE__STORE__URL", "postgres://u@h/d"),
        ("SIGMAGATE__MAIL__FROM", "api@x.test"),
        ("SIGMAGATE__MAIL__OPERATORS", "[\"ops@x.test\"]"),
        ("SIGMAGATE__MAIL__SMTP__HOST", "smtp.x.test"),
        ("SIGMAGATE__MAIL__SMTP__PORT", "2525"),
        ("SIGMAGATE__MAIL__SMTP__USERNAME", "api"),
        ("SIGMAGATE__MAIL__SMTP__PASSWORD", "12345"),
    ];
    let mail = files("", ROUTES).load(&env).unwrap().gateway.mail;
    let MailTransport::Smtp(smtp) = mail.transport else { panic!("{mail:?}") };
    assert_eq!((&*smtp.host, smtp.port, smtp.login.map(|login| login.password)), ("smtp.x.test", 2525, Some("12345".into())));
    assert_eq!(mail.operators.len(), 1);
}

#[test]
fn every_mistake_of_it_is_told() {
    let from = |text: &str| format!("[mail]\nfrom = \"{text}\"");
    let host = "host = \"smtp.x.test\"";
    let with = |rest: &str| server(&format!("{host}\n{rest}"));
    let rows: &[(String, &str)] = &[
        (from("api"), "gateway.toml:2:8: mail.from: `api` is not an e-mail address: there is no `@` in it"),
        (from(""), "mail.from: `` is not an e-mail address"),
        (from("@x.test"), "mail.from: `@x.test` is not an e-mail address: what stands before the `@`"),
        (from("a..b@x.test"), "what stands before the `@` is no name"),
        (from("a b@x.test"), "what stands before the `@` is no name"),
        (from("\u{fc}@x.test"), "what stands before the `@` is no name"),
        (from("API <a@x.test"), "what stands before the `@` is no name"),
        (from("a@b@x.test"), "what stands before the `@` is no name"),
        (from("a@"), "what stands behind the `@` is no domain"),
        (from("a@x_y.test"), "what stands behind the `@` is no domain"),
        (from("a@x.test."), "what stands behind the `@` is no domain"),
        (from("a@127.0.0.1"), "what stands behind the `@` is no domain"),
        (from("a@[127.0.0.1]"), "what stands behind the `@` is no domain"),
        (from("a@x.test\\nBcc: b@x.test"), "gateway.toml:2:8: mail.from: `a@x.test\\nBcc: b@x.test` is not an e-mail address"),
        (from("A\\nB <a@x.test>"), "has a name with a quote, a backslash or a control character"),
        ("[mail]\noperators = [\"a@x.test\", \"b\"]".into(), "gateway.toml:2:26: mail.operators[1]: `b` is not an e-mail address"),
        ("[mail]\noperators = [\"a@x.test\", \"B <A@X.test>\"]".into(), "mail.operators[1]: `A@x.test` is operators[0] already"),
        ("[mail]\noperators = \"a@x.test\"".into(), "mail.operators: expected an array, found a string"),
        ("[mail]\nreply_to = \"nobody\"".into(), "gateway.toml:2:12: mail.reply_to: `nobody` is not an e-mail address"),
        ("[mail]\nurl = \"app.x.test\"".into(), "gateway.toml:2:7: mail.url: `app.x.test` does not begin with `https://`"),
        ("[mail]\nurl = \"http://app.x.test\"".into(), "mail.url: `http://app.x.test` does not begin with `https://`"),
        ("[mail]\nurl = \"javascript:alert(1)\"".into(), "mail.url: `javascript:alert(1)` does not begin with"),
        ("[mail]\nurl = \"https://u:p@app.x.test\"".into(), "has a user name or password"),
        ("[mail]\nfolder = \"\"".into(), "gateway.toml:2:10: mail.folder: is empty"),
        (format!("{POSTGRES}[mail]\noperators = [\"a@x.test\"]"), "gateway.toml:3:1: mail: does not say how mails are sent"),
        (
            "[mail]\nfrom = \"a@x.test\"\nfolder = \"m\"\nsmtp = { host = \"h\" }".into(),
            "gateway.toml:3:10: mail.folder: cannot stand beside `smtp`",
        ),
        (format!("[mail.smtp]\n{host}"), "mail.from: is not given: say whom mails are from"),
        (server("port = 25"), "mail.smtp: the key `host` is missing"),
        (server("host = \"\""), "gateway.toml:4:8: mail.smtp.host: `` is not the name of a host"),
        (server("host = \"smtp.x.test:587\""), "mail.smtp.host: `smtp.x.test:587` is not the name of a host"),
        (server("host = \"smtps://smtp.x.test\""), "is not the name of a host: write `smtp.example.test`"),
        (with("port = 0"), "gateway.toml:5:8: mail.smtp.port: 0 is out of bounds: expected an integer from 1 to 65535"),
        (with("tls = \"tls\""), "gateway.toml:5:7: mail.smtp.tls: `tls` is none of `starttls`, `implicit`, `none`"),
        (with("tls = \"none\""), "gateway.toml:5:7: mail.smtp.tls: is `none`, but `smtp.x.test` is not this machine"),
        (server("host = \"10.0.0.1\"\ntls = \"none\""), "mail.smtp.tls: is `none`, but `10.0.0.1` is not this machine"),
        (
            server("host = \"::1\"\ntls = \"none\"\nca = \"gone.pem\""),
            "gateway.toml:6:6: mail.smtp.ca: means nothing where `tls` is `none`",
        ),
        (with("ca = \"gone.pem\""), "gateway.toml:5:6: mail.smtp.ca: there is no file `gone.pem`"),
        (with("ca = \"routes.toml\""), "mail.smtp.ca: `routes.toml` holds no certificate in PEM"),
        (with("username = \"api\""), "mail.smtp.password: is not given, but a `username` is"),
        (with("password = \"hidden\""), "mail.smtp.username: is not given, but a `password` is"),
        (with("username = \"\"\npassword = \"hidden\""), "gateway.toml:5:12: mail.smtp.username: is empty"),
        (with("username = \"a\"\npassword = \"\""), "gateway.toml:6:12: mail.smtp.password: is empty"),
        (with("username = \"a\"\npassword = \"hidden\\u0000\""), "mail.smtp.password: has a control character"),
        (with("username = \"a\"\npassword = { file = \"gone.key\" }"), "gateway.toml:6:12: mail.smtp.password: `gone.key` cannot be read"),
        (with("username = \"a\"\npassword = { env = \"GONE\" }"), "the environment variable `GONE` is not set"),
        (with("user = \"a\""), "mail.smtp.user: unknown key"),
        ("[mail]\nsmtp = \"smtp.x.test\"".into(), "gateway.toml:2:8: mail.smtp: expected a table, found a string"),
        ("[mail]\nform = \"a@x.test\"".into(), "gateway.toml:2:1: mail.form: unknown key; did you mean `from`?"),
    ];
    for (gateway, says) in rows {
        let mistakes = files(gateway, ROUTES).mistakes(&[]);
        assert!(mistakes.len() == 1 && mistakes[0].contains(says), "{gateway}\n{says}\nin {mistakes:#?}");
        assert!(!mistakes[0].contains("hidden") && !mistakes[0].contains('\n'), "a value that may be a secret is not shown");
    }
}
