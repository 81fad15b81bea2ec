//! Who vouches for the servers of an upstream, and what the gateway shows them.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls_pki_types::CertificateDer;

use crate::digest::Sha256;
use crate::tls::Identity;

/// Who vouches for the servers of an upstream, and for us. Two are equal if they hold the same.
pub struct Trust {
    /// Who vouches for the servers; `None`: whom the system trusts.
    pub authorities: Option<Vec<CertificateDer<'static>>>,
    /// What we show; `None`: nothing.
    pub identity: Option<Identity>,
    fingerprint: [u8; 32],
    prepared: OnceLock<Arc<dyn Any + Send + Sync>>,
}

impl Trust {
    /// These authorities, and this certificate of ours.
    #[must_use]
    pub fn new(authorities: Option<Vec<CertificateDer<'static>>>, identity: Option<Identity>) -> Self {
        let mut hash = Sha256::default();
        let mut add = |kind: &[u8], bytes: &[u8]| {
            hash.update(kind);
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        // No authorities at all would trust nobody, and is not the same as those of the system.
        add(if authorities.is_some() { b"own" } else { b"sys" }, b"");
        authorities.iter().flatten().for_each(|authority| add(b"aut", authority));
        if let Some(Identity { chain, key }) = &identity {
            for certificate in chain {
                add(b"crt", certificate);
            }
            add(b"key", key);
        }
        Self { authorities, identity, fingerprint: hash.finish(), prepared: OnceLock::new() }
    }

    /// What tells it from every other.
    #[must_use]
    pub const fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// What the data plane makes of it, made once. `T` is always the same type.
    ///
    /// # Panics
    /// It was asked for another `T` before.
    pub fn prepared<T: Any + Send + Sync>(&self, make: impl FnOnce(&Self) -> T) -> Arc<T> {
        let prepared = self.prepared.get_or_init(|| Arc::new(make(self)));
        Arc::clone(prepared).downcast().expect("one type is made of a trust")
    }
}

impl PartialEq for Trust {
    fn eq(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }
}

impl Eq for Trust {}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust")
            .field("own_authorities", &self.authorities.is_some())
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}
