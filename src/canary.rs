//! A key of the gateway's own, made and ended through the real path again and again: whether revocation works, and how
//! long it takes, is then known before somebody needs it.
//!
//! What is looked at after a receipt has to be final: anything else somebody could have undone in between, and the alarm
//! would be false. So each run ends a secret for good, which is the least that is final. The client is kept, over
//! restarts too, and the scope that it has is one that no route asks for: its key opens nothing.

#[cfg(test)]
mod tests;

use std::error::Error;
use std::iter::successors;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::time::sleep;

use crate::access::Denial;
use crate::clock::{boot_time, now};
use crate::credential::Secret;
use crate::entity::Client;
use crate::gate::{Gate, Request};
use crate::id::{ClientId, PracticeId};
use crate::lifecycle::{self, Lifecycle, NewClientRequest, Overlap};
use crate::metrics::{CanaryMetrics, CanaryOutcome as Outcome};
use crate::route::{Method, Requirement};
use crate::store::{self, Actor, Receipt};

const PRACTICE: &str = "sigmagate-canary";
/// Of a name that no route map would give to a scope of its own.
const SCOPE: &str = "sigmagate-canary";
/// How many secrets a client has before it is revoked and another takes its place: every node reads all of them with
/// every change of the client, and a revoked client is kept for ever like an ended secret, but by every node in memory.
const SECRETS: u32 = 100;

/// What a gate makes of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is genuine and in force.
    Admitted,
    /// It is not.
    Refused,
}

/// Asks a gate about a key; or says why the gate has no answer.
pub type Judge = Box<dyn Fn(ClientId, &Secret) -> Result<Verdict, String> + Send + Sync>;

/// Why a run was not carried out to its end, or did not show what it should.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Lifecycle(#[from] lifecycle::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("the gate could not judge the key: {0}")]
    Gate(String),
    #[error("the new key was refused although its receipt had come")]
    NewKeyRefused,
}

/// What a run came to.
enum Run {
    Shown(Receipt),
    AdmittedAfterReceipt(Receipt),
    /// Another node does it; it is to be looked at again after this time.
    StoodBy(Duration),
}

/// The secret that a client has at present: who made it is the one who runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    client: ClientId,
    generation: u32,
}

/// The canary of one node.
pub struct Canary {
    lifecycle: Lifecycle,
    judge: Judge,
    metrics: CanaryMetrics,
    every: Duration,
    /// A run of another node's that began so lately may still be under way, or is good for this node too.
    lately: Duration,
    secrets: u32,
    practice: PracticeId,
    by: Actor,
    /// What the last run of this node made.
    last: Option<Key>,
    /// The client to go on with.
    client: Option<ClientId>,
}

impl Canary {
    /// A canary that runs once in `every`, and has `judge` say what this node makes of its key.
    pub fn new(lifecycle: Lifecycle, judge: Judge, metrics: CanaryMetrics, every: Duration) -> Self {
        let practice = PRACTICE.parse().expect("a valid id");
        let by = Actor { name: "canary".into(), origin: "gateway".into() };
        // A node that is silent is waited for until its lease is over, with the first of the two changes of a run.
        let lately = every.max(lifecycle.store().lease() * 2);
        Self { lifecycle, judge, metrics, every, lately, secrets: SECRETS, practice, by, last: None, client: None }
    }

    /// Runs again and again until `stop` is done, and then ends at once: a secret that is still in use is ended by the
    /// next run, whoever makes it, and nobody knows it.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) {
        let work = async {
            // Nodes that start together are not to run together.
            sleep(part_of(self.every)).await;
            loop {
                let pause = self.tick().await;
                sleep(pause).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop => {}
        }
    }

    /// One run, unless another node makes it; returns how long to wait for the next.
    async fn tick(&mut self) -> Duration {
        let begun = boot_time();
        match self.once().await {
            Ok(Run::StoodBy(pause)) => return pause,
            Ok(Run::Shown(receipt)) => {
                self.metrics.revoked(receipt.waited);
                self.metrics.ran(Outcome::Ok);
                tracing::debug!(revision = receipt.revision.0, applied = receipt.applied, "canary: revoked, and refused since");
            }
            Ok(Run::AdmittedAfterReceipt(receipt)) => {
                self.metrics.ran(Outcome::AdmittedAfterReceipt);
                tracing::error!(
                    revision = receipt.revision.0,
                    applied = receipt.applied,
                    expired = receipt.expired,
                    "canary: this node admits a key that was revoked, although the receipt for it has come"
                );
            }
            Err(failure) => {
                // It may have been about the client: the next run looks for one anew.
                self.client = None;
                self.metrics.ran(Outcome::Failed);
                let causes = successors(failure.source(), |&cause| cause.source());
                let error = causes.fold(failure.to_string(), |text, cause| format!("{text}: {cause}"));
                tracing::warn!(error, "canary: whether revocation works could not be shown; tried again in time");
            }
        }
        self.every.saturating_sub(boot_time().since(begun))
    }

    async fn once(&mut self) -> Result<Run, Failure> {
        let client = self.client().await?;
        if let Some(pause) = client.as_ref().and_then(|client| self.made_elsewhere(client)) {
            return Ok(Run::StoodBy(pause));
        }
        let (key, secret) = self.issue(client).await?;
        (self.last, self.client) = (Some(key), Some(key.client));
        let before = (self.judge)(key.client, &secret);
        // Whatever came of that, the key is not left in use.
        let receipt = if key.generation < self.secrets {
            self.lifecycle.end_secret(key.client, key.generation, &self.by).await?
        } else {
            self.client = None;
            self.lifecycle.revoke(key.client, &self.by).await?
        };
        let after = (self.judge)(key.client, &secret);
        if after == Ok(Verdict::Admitted) {
            return Ok(Run::AdmittedAfterReceipt(receipt));
        }
        match before.and_then(|before| after.map(|_| before)) {
            Ok(Verdict::Admitted) => Ok(Run::Shown(receipt)),
            Ok(Verdict::Refused) if self.overtaken(key).await? => Ok(Run::StoodBy(self.every)),
            Ok(Verdict::Refused) => Err(Failure::NewKeyRefused),
            Err(why) => Err(Failure::Gate(why)),
        }
    }

    /// Whether another node has made a secret since, and so ended this one.
    async fn overtaken(&self, key: Key) -> Result<bool, store::Error> {
        let client = self.lifecycle.store().client(key.client).await?;
        Ok(client.secrets.iter().any(|secret| secret.generation > key.generation))
    }

    /// The client to go on with, if there is one: the oldest that is not revoked, so that nodes agree on it even if two
    /// have made one each.
    async fn client(&self) -> Result<Option<Client>, store::Error> {
        let store = self.lifecycle.store();
        if let Some(id) = self.client {
            let client = store.client(id).await?;
            if client.revoked_at.is_none() {
                return Ok(Some(client));
            }
        }
        let clients = store.clients(Some(&self.practice), None).await?;
        Ok(clients.into_iter().rev().find(|client| client.revoked_at.is_none()))
    }

    /// How long to stand by, if another node has made a secret so lately that this node need not: until half a period
    /// after its next one is due. So one node goes on, and another takes its place when it is gone.
    fn made_elsewhere(&self, client: &Client) -> Option<Duration> {
        let newest = client.secrets.iter().max_by_key(|secret| secret.generation)?;
        if self.last == Some(Key { client: client.id, generation: newest.generation }) {
            return None;
        }
        // Far in the future is as good as long ago: some clock was wrong, and nobody would run until it is right.
        let age = Duration::from_millis((now().0 - newest.created_at.0).unsigned_abs());
        (age < self.lately).then(|| (self.lately * 3 / 2).saturating_sub(age))
    }

    async fn issue(&self, client: Option<Client>) -> Result<(Key, Secret), Failure> {
        if let Some(client) = client {
            let rotated = self.lifecycle.rotate(client.id, Overlap::None, &self.by).await?;
            return Ok((Key { client: client.id, generation: rotated.generation }, rotated.secret));
        }
        if let Err(store::Error::NotFound { .. }) = self.lifecycle.store().practice(&self.practice).await {
            self.lifecycle.put_practice(&self.practice, "Canary of the gateways", &self.by).await?;
        }
        self.lifecycle.approve(&self.practice, &self.by).await?;
        let request = NewClientRequest::new(self.practice.clone(), "Canary", vec![SCOPE.parse().expect("a valid scope")]);
        let issued = self.lifecycle.create_client(request, &self.by).await?;
        Ok((Key { client: issued.client.id, generation: 1 }, issued.secret))
    }
}

/// Asks this gate about a key as requests do, on a route that asks for one.
pub fn at(gate: Arc<Gate>) -> Judge {
    Box::new(move |client, secret| {
        let routes = gate.routes();
        let route = routes.routes().iter().find(|route| route.requirement != Requirement::Public);
        let route = route.ok_or("no route asks for a credential")?;
        let method = Method::EVERY.into_iter().find(|method| route.methods.has(*method)).ok_or("the route takes no method")?;
        let authorization = format!("Basic {}", STANDARD.encode(format!("{client}:{}", secret.reveal())));
        let request = Request {
            method: method.as_str().as_bytes(),
            target: route.prefix.as_str().as_bytes(),
            authorization: Some(authorization.as_bytes()),
            // Nobody calls from there, so nobody else pays for the failures.
            peer: Ipv4Addr::UNSPECIFIED.into(),
        };
        match gate.decide(&request).outcome {
            // The scope and the limits are looked at last: everything else about the key was found good.
            Ok(_) | Err(Denial::InsufficientScope(_) | Denial::RateLimited { .. } | Denial::TooManyAtOnce) => Ok(Verdict::Admitted),
            // Too many failures is said only of a key that is refused anyway.
            Err(Denial::CredentialInvalid(_) | Denial::TooManyFailures { .. }) => Ok(Verdict::Refused),
            Err(denial) => Err(format!("it answers `{}`", denial.label())),
        }
    })
}

/// Some time from nothing to the whole of `period`.
fn part_of(period: Duration) -> Duration {
    let mut random = [0; 4];
    getrandom::fill(&mut random).expect("the operating system gives random numbers");
    period.mul_f64(f64::from(u32::from_ne_bytes(random)) / f64::from(u32::MAX))
}
