//! A new process takes over the listening sockets of a running one, so that no connection is refused in between.
//!
//! The running process starts the program anew, with a socket pair for standard input, and sends its listeners over it
//! (`SCM_RIGHTS`, unix(7)). The new one binds only what is not among them, and says when it is ready; if it ends before that, the
//! running one goes on. A store that one gateway alone can serve changes hands in between: then the new one says that it is ready
//! to, and begins once the running one has ended, while connections wait in the queues of the sockets.

use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Set for a process whose standard input is the socket that listeners come over.
const VARIABLE: &str = "SIGMAGATE_TAKE_OVER";
/// What the new process says when it is ready.
const READY: &[u8] = b"ready\n";
/// The kernel sends no more at once (`SCM_MAX_FD`).
const MOST: usize = 253;

/// Listening sockets, by the addresses that the settings have for them.
#[derive(Debug, Default)]
pub struct Sockets {
    inherited: Vec<(SocketAddr, TcpListener)>,
    before: Option<UnixStream>,
}

impl Sockets {
    /// Those of the process that is to be taken over, if this one was started for that.
    ///
    /// # Errors
    /// They do not come as they should.
    pub fn receive() -> anyhow::Result<Self> {
        if std::env::var_os(VARIABLE).is_none() {
            return Ok(Self::default());
        }
        let input = std::io::stdin().as_fd().try_clone_to_owned().context("standard input cannot be used")?;
        let mut before = UnixStream::from(input);
        let inherited = receive(&mut before)
            .with_context(|| format!("the listeners of the running gateway did not come: {VARIABLE} is for SIGUSR2 alone, unset it"))?;
        Ok(Self { inherited, before: Some(before) })
    }

    /// The socket that was bound for this address, or a new one.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub fn bind(&mut self, address: SocketAddr) -> std::io::Result<TcpListener> {
        match self.inherited.iter().position(|(bound, _)| *bound == address) {
            Some(at) => Ok(self.inherited.remove(at).1),
            None => TcpListener::bind(address),
        }
    }

    /// Tells the process that was taken over that it may stop. Sockets that nobody wanted are closed.
    pub fn ready(mut self) {
        self.say_ready();
    }

    /// Tells it so, and waits until it has ended. Blocks until then.
    pub fn wait_for_its_end(&mut self) {
        if let Some(mut before) = self.say_ready() {
            // It never says anything more: what comes is the end.
            let _ = before.read_to_end(&mut Vec::new());
        }
    }

    fn say_ready(&mut self) -> Option<UnixStream> {
        let mut before = self.before.take()?;
        // An error means that it is gone already.
        let _ = before.write_all(READY);
        Some(before)
    }
}

fn receive(from: &mut UnixStream) -> anyhow::Result<Vec<(SocketAddr, TcpListener)>> {
    let mut text = vec![0; 64 * 1024];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(from.as_fd(), &mut [IoSliceMut::new(&mut text)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let mut sockets: Vec<OwnedFd> = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            sockets.extend(files);
        }
    }
    let addresses: Vec<SocketAddr> = serde_json::from_slice(&text[..received.bytes])?;
    ensure!(addresses.len() == sockets.len(), "{} sockets came for {} addresses", sockets.len(), addresses.len());
    Ok(addresses.into_iter().zip(sockets.into_iter().map(TcpListener::from)).collect())
}

/// Another process that is ready in the place of this one.
#[derive(Debug)]
pub struct Successor {
    /// Its process id.
    pub pid: u32,
    /// Closed when this process ends, which may be waited for.
    _bond: UnixStream,
}

/// The program as it was started, to start it anew; its file may be another by then.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// This program. To be called before its file is replaced.
    ///
    /// # Errors
    /// The operating system does not say where it is.
    pub fn this() -> anyhow::Result<Self> {
        Ok(Self { path: std::env::current_exe().context("the operating system does not say where this program is")? })
    }

    /// Starts it with the arguments and the environment of this process, hands over the sockets, and returns once it
    /// is ready. Blocks until then.
    ///
    /// # Errors
    /// It cannot be started, or ends before it is ready.
    pub fn take_over(&self, sockets: &[(SocketAddr, TcpListener)]) -> anyhow::Result<Successor> {
        let (mut ours, theirs) = UnixStream::pair()?;
        let mut child = Command::new(&self.path)
            .args(std::env::args_os().skip(1))
            .env(VARIABLE, "1")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()
            .with_context(|| format!("`{}` cannot be started", self.path.display()))?;
        let told = send(&ours, sockets).and_then(|()| {
            let mut word = [0; READY.len()];
            ours.read_exact(&mut word)?;
            Ok(word)
        });
        if told.is_ok_and(|word| word == READY) {
            return Ok(Successor { pid: child.id(), _bond: ours });
        }
        // Whatever it said is in the log; it is gone, or of no use.
        let _ = child.kill();
        bail!("the new process ended before it was ready ({})", child.wait()?)
    }
}

fn send(to: &UnixStream, sockets: &[(SocketAddr, TcpListener)]) -> anyhow::Result<()> {
    ensure!(sockets.len() <= MOST, "no more than {MOST} listeners can be handed over");
    let addresses: Vec<SocketAddr> = sockets.iter().map(|(address, _)| *address).collect();
    let text = serde_json::to_vec(&addresses)?;
    let files: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, socket)| socket.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ensure!(ancillary.push(SendAncillaryMessage::ScmRights(&files)), "there are too many listeners");
    let sent = sendmsg(to.as_fd(), &[IoSlice::new(&text)], &mut ancillary, SendFlags::empty())?;
    ensure!(sent == text.len(), "the addresses could not be sent whole");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_received() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let sockets: Vec<_> = (0..3).map(|_| (any, TcpListener::bind(any).unwrap())).collect();
        send(&ours, &sockets).unwrap();
        let mut received = Sockets { inherited: receive(&mut theirs).unwrap(), before: Some(theirs) };
        // In their order, for those that are of one address.
        for (_, socket) in &sockets {
            assert_eq!(received.bind(any).unwrap().local_addr().unwrap(), socket.local_addr().unwrap());
        }
        let another = received.bind(any).unwrap().local_addr().unwrap();
        assert!(sockets.iter().all(|(_, socket)| socket.local_addr().unwrap() != another));
        received.ready();
        let mut word = Vec::new();
        (&ours).read_to_end(&mut word).unwrap();
        assert_eq!(word, READY);
    }
}
