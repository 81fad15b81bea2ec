//! A conversation with a server that takes mail (RFC 5321).

use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Certificate, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{self, response::Code};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::line::Lines;
use super::{Error, Failure, Letter};
use crate::config::{Smtp, SmtpTls};
use crate::tls;

/// Whom to talk to, and how.
pub(super) struct Server {
    host: String,
    port: u16,
    security: Security,
    login: Option<Credentials>,
    hello: ClientId,
    connect: Duration,
}

enum Security {
    Starttls(TlsParameters),
    Implicit(TlsParameters),
    None,
}

impl Server {
    /// The server of the settings, to whom we are `hello`; a connection may take so long to be made.
    ///
    /// # Errors
    /// The certificates that it may be vouched for by cannot be read.
    pub(super) fn new(settings: &Smtp, hello: &str, connect: Duration) -> Result<Self, Error> {
        // The client takes the provider of the process.
        tls::install_provider();
        let parameters = || -> Result<TlsParameters, Error> {
            let mut builder = TlsParameters::builder(settings.host.to_string());
            for authority in settings.ca.as_deref().map(tls::authorities).transpose()?.into_iter().flatten() {
                builder = builder.add_root_certificate(Certificate::from_der(authority.to_vec()).map_err(Error::Smtp)?);
            }
            builder.build().map_err(Error::Smtp)
        };
        Ok(Self {
            host: settings.host.to_string(),
            port: settings.port,
            security: match settings.tls {
                SmtpTls::Starttls => Security::Starttls(parameters()?),
                SmtpTls::Implicit => Security::Implicit(parameters()?),
                SmtpTls::None => Security::None,
            },
            login: settings.login.as_ref().map(|login| Credentials::new(login.username.to_string(), login.password.to_string())),
            hello: ClientId::Domain(hello.to_owned()),
            connect,
        })
    }

    /// Connects, encrypts, and says who we are.
    pub(super) async fn open(&self) -> Result<Session, Failure> {
        let failed = |error: &dyn std::fmt::Display| Failure::Transport(format!("{}:{}: {error}", self.host, self.port));
        let address = (&*self.host, self.port);
        let mut connection = match &self.security {
            Security::Starttls(parameters) => {
                let stream = timeout(self.connect, TcpStream::connect(address)).await;
                let stream = stream.map_err(|_| failed(&"no connection in time"))?.map_err(|error| failed(&error))?;
                let lines = Box::new(Lines::new(stream));
                let mut connection =
                    AsyncSmtpConnection::connect_with_transport(lines, &self.hello).await.map_err(|error| failed(&error))?;
                connection.starttls(parameters.clone(), &self.hello).await.map_err(|error| failed(&error))?;
                connection
            }
            Security::Implicit(parameters) => {
                AsyncSmtpConnection::connect_tokio1(address, Some(self.connect), &self.hello, Some(parameters.clone()), None)
                    .await
                    .map_err(|error| failed(&error))?
            }
            Security::None => AsyncSmtpConnection::connect_tokio1(address, Some(self.connect), &self.hello, None, None)
                .await
                .map_err(|error| failed(&error))?,
        };
        if let Some(login) = &self.login {
            connection.auth(DEFAULT_MECHANISMS, login).await.map_err(|error| failed(&error))?;
        }
        Ok(Session { connection, usable: true })
    }
}

/// A connection on which mail can be sent.
pub(super) struct Session {
    connection: AsyncSmtpConnection,
    usable: bool,
}

impl Session {
    /// Whether another mail can be sent on it.
    pub(super) const fn usable(&self) -> bool {
        self.usable
    }

    /// Hands a letter over, and returns what was said by those of several recipients who do not get it. One who may take it
    /// later is waited for, and nobody gets it until then, if `patient`: whoever has got it would get it again.
    pub(super) async fn deliver(&mut self, letter: &Letter, patient: bool) -> Result<Vec<String>, Failure> {
        let delivered = self.converse(letter, patient).await;
        self.usable = match &delivered {
            Ok(_) => true,
            // The server is still about this mail.
            Err(Failure::Refused(_) | Failure::Deferred(_)) => self.connection.command(Rset).await.is_ok(),
            Err(Failure::Transport(_)) => false,
        };
        delivered
    }

    async fn converse(&mut self, letter: &Letter, patient: bool) -> Result<Vec<String>, Failure> {
        // Whatever is said of the sender is said of every mail.
        let sender = self.connection.command(Mail::new(Some(letter.from.clone()), Vec::new())).await;
        sender.map_err(|error| Failure::Transport(format!("the sender `{}` was refused: {error}", letter.from)))?;
        let (mut accepted, mut refused, mut deferred) = (0_usize, Vec::new(), Vec::new());
        for recipient in &letter.to {
            match self.recipient(recipient).await {
                Ok(()) => accepted += 1,
                Err(Failure::Refused(why)) => refused.push(why),
                Err(Failure::Deferred(why)) => deferred.push(why),
                Err(failure) => return Err(failure),
            }
        }
        if !deferred.is_empty() && (patient || accepted == 0) {
            return Err(Failure::Deferred(deferred.join("; ")));
        }
        if accepted == 0 {
            return Err(Failure::Refused(refused.join("; ")));
        }
        self.connection.command(Data).await.map_err(|error| failure("the content", &error))?;
        self.connection.message(&letter.content).await.map_err(|error| failure("the content", &error))?;
        refused.append(&mut deferred);
        Ok(refused)
    }

    async fn recipient(&mut self, recipient: &Address) -> Result<(), Failure> {
        let said = self.connection.command(Rcpt::new(recipient.clone(), Vec::new())).await;
        said.map(|_| ()).map_err(|error| failure(&format!("`{recipient}`"), &error))
    }

    /// Says goodbye.
    pub(super) async fn quit(mut self) {
        let _ = self.connection.quit().await;
    }
}

/// What a server means by refusing `what`.
fn failure(what: &str, error: &smtp::Error) -> Failure {
    let why = format!("{what} was refused: {error}");
    match error.status().map(u16_of) {
        // The server ends the connection, or wants to know us better: that is not about this mail.
        Some(421 | 503 | 530 | 534 | 535 | 538) | None => Failure::Transport(why),
        Some(_) if error.is_permanent() => Failure::Refused(why),
        Some(_) => Failure::Deferred(why),
    }
}

fn u16_of(code: Code) -> u16 {
    code.into()
}
