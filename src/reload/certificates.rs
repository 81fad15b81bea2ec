//! The certificates of listeners, taken up anew.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use zeroize::Zeroizing;

use crate::clock::now;
use crate::digest::{Sha256, sha256};
use crate::metrics::Metrics;
use crate::tls;

/// The TLS of every listener that has some.
#[derive(Default)]
pub struct Certificates {
    listeners: Vec<Listener>,
}

struct Listener {
    /// What people call it.
    name: String,
    live: Arc<tls::Live>,
    /// What its files held when they were last read.
    read: Mutex<[u8; 32]>,
}

impl Certificates {
    /// Of these listeners, by name.
    pub fn new(listeners: impl IntoIterator<Item = (String, Arc<tls::Live>)>, metrics: &Metrics) -> Self {
        let listeners = listeners.into_iter().map(|(name, live)| {
            let listener = Listener { read: Mutex::new(digest(&live)), name, live };
            listener.tell(metrics);
            listener
        });
        Self { listeners: listeners.collect() }
    }

    /// Every file that they are made from.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        self.listeners.iter().flat_map(|listener| listener.live.listening().files())
    }

    /// Takes up what the files hold now; a listener with a wrong one goes on with what it had.
    pub(super) fn reload(&self, metrics: &Metrics) -> Result<(), Vec<String>> {
        let wrong: Vec<_> = self.listeners.iter().filter_map(|listener| listener.reload(metrics).err()).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    pub(super) fn reload_if_changed(&self, metrics: &Metrics) {
        for listener in &self.listeners {
            let changed = *listener.read.lock() != digest(&listener.live);
            if changed {
                // What is wrong has been logged.
                let _ = listener.reload(metrics);
            }
        }
    }
}

impl Listener {
    fn reload(&self, metrics: &Metrics) -> Result<(), String> {
        let mut read = self.read.lock();
        // Before the files are read to be taken up: no change can fall in between.
        *read = digest(&self.live);
        let taken = self.live.reload();
        metrics.certificates().reloaded(taken.is_ok());
        match taken {
            Ok(()) => {
                tracing::info!(listener = %self.name, ends = %self.live.ends(), "certificates taken up");
                self.tell(metrics);
                Ok(())
            }
            Err(error) => {
                let why = error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"));
                tracing::error!(listener = %self.name, %why, "certificates refused; those before stay in force");
                Err(format!("listener {}: {why}", self.name))
            }
        }
    }

    fn tell(&self, metrics: &Metrics) {
        let ends = self.live.ends();
        metrics.certificates().ends(&self.name, ends);
        if ends <= now() {
            tracing::warn!(listener = %self.name, %ends, "a certificate has ended: clients will refuse it");
        }
    }
}

/// Of some of the files nothing more may be kept.
fn digest(live: &tls::Live) -> [u8; 32] {
    let mut digest = Sha256::default();
    for file in live.listening().files() {
        let content = Zeroizing::new(std::fs::read(file).unwrap_or_default());
        digest.update(sha256(&*content));
    }
    digest.finish()
}
