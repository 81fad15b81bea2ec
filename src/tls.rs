//! TLS: the one crypto provider of the process, what PEM files must hold, and what listeners present.

mod listening;

use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

pub use listening::{Listening, Live, Lowest, Pair, Part};

/// Why a certificate or its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not there.
    #[error("there is no file `{}`", .0.display())]
    Missing(PathBuf),
    /// The file is there and cannot be read.
    #[error("`{}` cannot be read", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system says.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("`{}` holds no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// The file holds something else.
    #[error("`{}` holds no private key in PEM", .0.display())]
    NoKey(PathBuf),
    /// The key cannot be read without a pass phrase, which nobody is there to type.
    #[error("`{}` is encrypted: decrypt it, as `openssl pkey` does, and let nobody else read the file", .0.display())]
    EncryptedKey(PathBuf),
    /// A certificate that is to be chosen by name has none.
    #[error("the certificate `{}` is for no name of DNS, so nobody could ask for it", .0.display())]
    NoName(PathBuf),
    /// Two certificates have one name.
    #[error("the certificate `{}` is for `{name}`, as another one before it is: a name has one certificate", .path.display())]
    NameTaken {
        /// The later one.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// The provider lacks something.
    #[error("TLS cannot be set up")]
    Provider(#[source] rustls::Error),
    /// The key is of a kind that TLS does not use, or belongs to another certificate.
    #[error("the key `{}` does not fit the certificate `{}`", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
        /// What rustls says.
        source: rustls::Error,
    },
}

/// Makes AWS-LC the provider of every TLS connection of the process. Called first thing; a second call changes nothing.
pub fn install_provider() {
    // An error means that a provider is installed already: by an earlier call, since nothing else installs one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// A certificate chain with its key, from PEM files.
///
/// # Errors
/// A file cannot be read or holds something else; the key is not that of the certificate.
pub fn certified_key(certificate: &Path, key: &Path) -> Result<CertifiedKey, Error> {
    pair(chain(certificate)?, private_key(key)?, certificate, key)
}

/// What is wrong with the certificate, and what with the key: that they belong together is asked of the key.
fn check(certificate: &Path, key: &Path) -> [Option<Error>; 2] {
    match (chain(certificate), private_key(key)) {
        (Ok(chain), Ok(private)) => [None, pair(chain, private, certificate, key).err()],
        (chain, private) => [chain.err(), private.err()],
    }
}

/// The certificates in a PEM file that whoever is connected to may be vouched for by.
///
/// # Errors
/// The file cannot be read, or holds something else.
pub fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = chain(path)?;
    let usable = |certificate: &CertificateDer<'static>| rustls::RootCertStore::empty().add(certificate.clone()).is_ok();
    if certificates.iter().all(usable) { Ok(certificates) } else { Err(Error::NoCertificate(path.to_owned())) }
}

/// A certificate chain with its private key, as they go over to whoever connects.
pub struct Identity {
    /// The certificates, our own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The private key, DER.
    pub key: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// What we show to whom we connect to, from PEM files.
///
/// # Errors
/// As of [`certified_key`].
pub fn identity(certificate: &Path, key: &Path) -> Result<Identity, Error> {
    let (chain, private) = (chain(certificate)?, private_key(key)?);
    let der = Zeroizing::new(private.secret_der().to_vec());
    pair(chain.clone(), private, certificate, key)?;
    Ok(Identity { chain, key: der })
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(path)?;
    match CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>() {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(Error::NoCertificate(path.to_owned())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|_| {
        let encrypted = text.windows(21).any(|words| words == b"ENCRYPTED PRIVATE KEY");
        if encrypted { Error::EncryptedKey(path.to_owned()) } else { Error::NoKey(path.to_owned()) }
    })
}

fn pair(
    chain: Vec<CertificateDer<'static>>,
    private: PrivateKeyDer<'static>,
    certificate: &Path,
    key: &Path,
) -> Result<CertifiedKey, Error> {
    CertifiedKey::from_der(chain, private, &rustls::crypto::aws_lc_rs::default_provider()).map_err(|source| Error::Mismatch {
        certificate: certificate.to_owned(),
        key: key.to_owned(),
        source,
    })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    std::fs::read(path).map(Zeroizing::new).map_err(|source| match source.kind() {
        ErrorKind::NotFound => Error::Missing(path.to_owned()),
        _ => Error::Unreadable { path: path.to_owned(), source },
    })
}
