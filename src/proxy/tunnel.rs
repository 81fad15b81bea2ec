//! Bytes both ways, until one side ends it, nobody says anything any more, or the permit no longer holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::context::Context;
use super::guard::Guard;
use super::live::Scope;
use super::{Settings, Shared};
use crate::access::Denial;

const PIECE: usize = 16 * 1024;
/// How long the one side has to end what the other has ended.
const FAREWELL: Duration = Duration::from_secs(5);

/// A connection that has switched protocols, before its first byte.
pub struct Tunnel {
    pub(super) upstream: Stream,
    /// What the client is told first.
    pub(super) first: BytesMut,
    pub(super) context: Context,
}

/// What both directions have in common.
struct Way<'a> {
    shared: &'a Shared,
    scope: &'a Scope,
    /// Moved on by every piece.
    heard: AtomicUsize,
    denial: Mutex<Option<Denial>>,
}

impl Tunnel {
    /// Carries bytes until it is over; records the request then.
    pub async fn run(mut self, guard: Guard, shared: &Shared, scope: &Arc<Scope>) {
        let _counted = shared.active.request();
        // From here on a change that concerns it finds it; one that came before is found by this.
        let _entered = shared.inflight.enter(scope, &shared.gate);
        let way = Way { shared, scope, heard: AtomicUsize::new(0), denial: Mutex::new(None) };
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        let mut client = guard.into_tunnel();
        tokio::select! {
            biased;
            () = scope.cancel.cancelled() => {}
            () = way.silence() => {}
            () = async {
                if way.put(&mut client, &self.first).await.is_err() {
                    return;
                }
                let (mut from_client, mut to_client) = tokio::io::split(client);
                let (mut from_upstream, mut to_upstream) = tokio::io::split(&mut self.upstream);
                let up = way.carry(&mut from_client, &mut to_upstream, &received);
                let down = way.carry(&mut from_upstream, &mut to_client, &sent);
                tokio::pin!(up, down);
                // Whoever is done first leaves the other a moment: a farewell is answered.
                tokio::select! {
                    () = &mut up => drop(timeout(FAREWELL, down).await),
                    () = &mut down => drop(timeout(FAREWELL, up).await),
                }
            } => {}
        }
        let denial = way.denial.into_inner();
        self.context.request_bytes += received.into_inner();
        self.context.response_bytes += sent.into_inner();
        if denial.is_some() {
            self.context.denial = denial;
        }
    }
}

impl Way<'_> {
    fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// Returns when nothing has been heard from either side for as long as a connection may be idle.
    async fn silence(&self) {
        loop {
            let heard = self.heard.load(Ordering::Relaxed);
            sleep(self.settings().idle_timeout).await;
            if self.heard.load(Ordering::Relaxed) == heard {
                return;
            }
        }
    }

    async fn put(&self, to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<(), ()> {
        let written = async {
            to.write_all(bytes).await?;
            to.flush().await
        };
        timeout(self.settings().write_timeout, written).await.map_err(drop)?.map_err(drop)
    }

    /// One direction to its end.
    async fn carry(&self, from: &mut (impl AsyncRead + Unpin), to: &mut (impl AsyncWrite + Unpin), count: &AtomicU64) {
        let mut piece = BytesMut::with_capacity(PIECE);
        while let Ok(read) = from.read_buf(&mut piece).await {
            if read == 0 {
                break;
            }
            self.heard.fetch_add(1, Ordering::Relaxed);
            // Changes cut it by themselves; that the lease is over is nobody's change.
            if let Some(Err(denial)) = self.scope.permit.get().map(|permit| self.shared.gate.recheck(permit)) {
                self.denial.lock().get_or_insert(denial);
                self.scope.cancel.cancel();
                return;
            }
            if self.put(to, &piece).await.is_err() {
                return;
            }
            count.fetch_add(read as u64, Ordering::Relaxed);
            piece.clear();
        }
        let _ = timeout(self.settings().write_timeout, to.shutdown()).await;
    }
}
