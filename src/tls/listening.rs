//! What a listener presents: certificates by name, whose certificates it asks for, and all of it anew when the files change.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::{Error, authorities, certified_key};
use crate::clock::Timestamp;

/// The lowest version of TLS that is spoken; there is none below 1.2 (RFC 8996).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lowest {
    /// TLS 1.2 (RFC 5246).
    #[default]
    V12,
    /// TLS 1.3 (RFC 8446).
    V13,
}

/// A certificate and its key, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The chain, the listener's own certificate first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// How a listener speaks TLS, by the files that say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// For whoever asks for no name (RFC 6066, section 3), or for one that no certificate has.
    pub first: Pair,
    /// For the names in them.
    pub more: Vec<Pair>,
    /// The lowest version.
    pub lowest: Lowest,
    /// Authorities, as a PEM file: whoever connects must show a certificate of theirs. `None`: none is asked for.
    pub client_authorities: Option<PathBuf>,
}

/// A file among those that a listener is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The certificate of a pair; 0 is the first pair.
    Certificate(usize),
    /// The key of a pair.
    Key(usize),
    /// The authorities of those who connect.
    ClientAuthorities,
}

impl Listening {
    /// Every certificate with its key.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// Every file that it is made from.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.pairs().flat_map(|pair| [&*pair.certificate, &*pair.key]);
        pairs.chain(self.client_authorities.as_deref())
    }

    /// What is wrong with the files, and with which.
    #[must_use]
    pub fn check(&self) -> Vec<(Part, Error)> {
        let mut wrong = Vec::new();
        for (at, pair) in self.pairs().enumerate() {
            let [certificate, key] = super::check(&pair.certificate, &pair.key);
            wrong.extend(certificate.map(|error| (Part::Certificate(at), error)));
            wrong.extend(key.map(|error| (Part::Key(at), error)));
        }
        wrong.extend(self.client_authorities.as_deref().and_then(|path| Some((Part::ClientAuthorities, authorities(path).err()?))));
        if wrong.is_empty() {
            wrong.extend(self.certificates().err().map(|wrong| *wrong));
        }
        wrong
    }

    /// The certificates by name, and when the first of them ends.
    fn certificates(&self) -> Result<(Certificates, Timestamp), Box<(Part, Error)>> {
        let mut by_name = BTreeMap::<String, (usize, Arc<CertifiedKey>)>::new();
        let (mut first, mut ends) = (None, Timestamp(i64::MAX));
        for (at, pair) in self.pairs().enumerate() {
            let wrong = |error| Box::new((Part::Certificate(at), error));
            let certified = Arc::new(certified_key(&pair.certificate, &pair.key).map_err(wrong)?);
            let facts = Facts::of(&pair.certificate, &certified.cert[0]).map_err(wrong)?;
            if at > 0 && facts.names.is_empty() {
                return Err(wrong(Error::NoName(pair.certificate.clone())));
            }
            ends = ends.min(facts.ends);
            for name in facts.names {
                match by_name.get(&name) {
                    Some((other, _)) if *other != at => return Err(wrong(Error::NameTaken { path: pair.certificate.clone(), name })),
                    _ => by_name.insert(name, (at, Arc::clone(&certified))),
                };
            }
            first.get_or_insert(certified);
        }
        let by_name = by_name.into_iter().map(|(name, (_, certified))| (name, certified)).collect();
        Ok((Certificates { first: first.expect("there is a first pair"), by_name }, ends))
    }

    /// Reads all files.
    fn read(&self) -> Result<Presented, Error> {
        let (certificates, ends) = self.certificates().map_err(|wrong| wrong.1)?;
        let both: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];
        let versions = if self.lowest == Lowest::V13 { &both[..1] } else { both };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = match &self.client_authorities {
            None => Arc::new(NoClientAuth),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                roots.add_parsable_certificates(authorities(path)?);
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                    .build()
                    .map_err(|_| Error::NoCertificate(path.clone()))?
            }
        };
        // What the provider offers is AEAD with forward secrecy only. No early data: it could be replayed.
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(Error::Provider)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(certificates));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Its keys change every six hours; and with every new configuration, so that no session outlives what it was made under.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().map_err(Error::Provider)?;
        Ok(Presented { config: Arc::new(config), ends })
    }
}

/// What there is for handshakes, and when the first of its certificates ends.
struct Presented {
    config: Arc<ServerConfig>,
    ends: Timestamp,
}

/// The TLS of a listener, which can be replaced while connections are made.
pub struct Live {
    listening: Listening,
    now: ArcSwap<Presented>,
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.listening).finish()
    }
}

impl Live {
    /// Reads what the listener presents.
    ///
    /// # Errors
    /// A file cannot be read or holds something else, a key is not that of its certificate, or two certificates have the
    /// same name.
    pub fn load(listening: Listening) -> Result<Self, Error> {
        Ok(Self { now: ArcSwap::from_pointee(listening.read()?), listening })
    }

    /// Reads the files again; handshakes from now on use what they hold. On an error all stays as it was.
    ///
    /// # Errors
    /// As of [`Live::load`].
    pub fn reload(&self) -> Result<(), Error> {
        self.now.store(Arc::new(self.listening.read()?));
        Ok(())
    }

    /// For a handshake.
    #[must_use]
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.now.load().config)
    }

    /// When the first of its own certificates ends.
    #[must_use]
    pub fn ends(&self) -> Timestamp {
        self.now.load().ends
    }

    /// What it is made from.
    #[must_use]
    pub const fn listening(&self) -> &Listening {
        &self.listening
    }
}

#[derive(Debug)]
struct Certificates {
    first: Arc<CertifiedKey>,
    /// In lower case; `*.` stands for one label (RFC 9525, section 6.3).
    by_name: BTreeMap<String, Arc<CertifiedKey>>,
}

impl Certificates {
    fn of(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name.map(str::to_ascii_lowercase) else { return &self.first };
        let wildcard = || name.split_once('.').and_then(|(_, rest)| self.by_name.get(&format!("*.{rest}")));
        self.by_name.get(&name).or_else(wildcard).unwrap_or(&self.first)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.of(hello.server_name())))
    }
}

/// What a certificate says.
struct Facts {
    /// The names of DNS that it is for, in lower case.
    names: Vec<String>,
    ends: Timestamp,
}

impl Facts {
    fn of(path: &Path, certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| Error::NoCertificate(path.to_owned()))?;
        let alternatives = parsed.subject_alternative_name().ok().flatten();
        let names = alternatives.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
        Ok(Self { names: names.collect(), ends: Timestamp(parsed.validity().not_after.timestamp().saturating_mul(1000)) })
    }
}
