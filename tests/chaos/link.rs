//! A link that can be cut: a TCP proxy between a gateway and its database.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// They are held; those that are there when it ends go on then, late.
    Hold,
    /// Each piece is so much later.
    Delay(Duration),
}

#[derive(Clone, Copy, Debug)]
struct State {
    to_server: Mode,
    to_client: Mode,
    /// Where it leads.
    port: u16,
    /// One more with each time that every connection is broken.
    broken: u64,
}

/// The link.
pub struct Link {
    pub address: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

impl Link {
    /// A link to a port of this machine.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(watch::Sender::new(State { to_server: Mode::Pass, to_client: Mode::Pass, port, broken: 0 }));
        let states = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = states.subscribe();
                tokio::spawn(async move {
                    let port = state.borrow().port;
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    let broken = state.borrow().broken;
                    let mut breaks = state.clone();
                    tokio::select! {
                        () = carry(from_client, to_server, state.clone(), |state| state.to_server) => {}
                        () = carry(from_server, to_client, state, |state| state.to_client) => {}
                        () = async { let _ = breaks.wait_for(|state| state.broken != broken).await; } => {}
                    }
                });
            }
        });
        Self { address, state }
    }

    /// Sets what becomes of either direction.
    pub fn set(&self, to_server: Mode, to_client: Mode) {
        self.state.send_modify(|state| (state.to_server, state.to_client) = (to_server, to_client));
    }

    /// Has every new connection lead to another port, as when an address moves to another machine.
    pub fn lead_to(&self, port: u16) {
        self.state.send_modify(|state| state.port = port);
    }

    /// Breaks every connection.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.broken += 1);
    }
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>, mode: fn(&State) -> Mode) {
    let mut bytes = vec![0; 65_536];
    while let Ok(n @ 1..) = from.read(&mut bytes).await {
        let now = mode(&state.borrow());
        if let Mode::Delay(late) = now {
            tokio::time::sleep(late).await;
        }
        if wait_until_not_held(&mut state, mode).await.is_err() || to.write_all(&bytes[..n]).await.is_err() {
            return;
        }
    }
}

async fn wait_until_not_held(state: &mut watch::Receiver<State>, mode: fn(&State) -> Mode) -> Result<(), watch::error::RecvError> {
    state.wait_for(|state| mode(state) != Mode::Hold).await.map(drop)
}
