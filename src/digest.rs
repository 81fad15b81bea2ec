//! SHA-256 (FIPS 180-4) and HMAC with it (RFC 2104), by the provider that also does TLS.

use aws_lc_rs::{digest, hmac};

/// What SHA-256 comes to.
pub type Digest = [u8; 32];

/// The SHA-256 of some bytes.
#[must_use]
pub fn sha256(bytes: impl AsRef<[u8]>) -> Digest {
    array(digest::digest(&digest::SHA256, bytes.as_ref()).as_ref())
}

/// SHA-256 of bytes that come in pieces.
#[derive(Clone)]
pub struct Sha256(digest::Context);

impl Default for Sha256 {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Sha256 {
    /// Adds a piece.
    pub fn update(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.update(bytes.as_ref());
    }

    /// The SHA-256 of all of them.
    #[must_use]
    pub fn finish(self) -> Digest {
        array(self.0.finish().as_ref())
    }
}

/// HMAC-SHA-256 under one key.
pub struct Mac(hmac::Key);

impl Mac {
    /// The one under this key.
    #[must_use]
    pub fn new(key: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// The code of some bytes.
    #[must_use]
    pub fn of(&self, bytes: &[u8]) -> Digest {
        array(hmac::sign(&self.0, bytes).as_ref())
    }
}

fn array(digest: &[u8]) -> Digest {
    digest.try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn these_are_the_digests_of_the_standards() {
        // FIPS 180-4, and case 2 of RFC 4231 §4.3.
        let abc = bytes("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(sha256("abc")[..], abc);
        let mut pieces = Sha256::default();
        pieces.update("a");
        pieces.update("bc");
        assert_eq!(pieces.finish()[..], abc);
        let mac = bytes("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        assert_eq!(Mac::new(b"Jefe").of(b"what do ya want for nothing?")[..], mac);
    }
}
