//! Public keys as JWK (RFC 7517, RFC 7518 §6, RFC 8037 §2), each good for signatures of its own kind only.

use std::collections::HashMap;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use serde_json::{Map, Value, json};

use super::jws::MAX_KID;
use super::{Algorithm, json};
use crate::digest::sha256;

/// The most keys that a set may have: an issuer has a handful.
const MAX_KEYS: usize = 100;
/// Bits of an RSA modulus: fewer are weak (RFC 7518 §3.3), more are a way to keep us busy.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why a JWK or a set of them is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedKey {
    /// Not JSON of the right shape.
    #[error("this is no JWK set (RFC 7517 §5): an object with a list `keys` of at most {MAX_KEYS}")]
    Set,
    /// A member is missing or malformed.
    #[error("`{0}` is missing or malformed")]
    Member(&'static str),
    /// Another kind of key, or a secret one.
    #[error("it is no public key of Ed25519, P-256, P-384 or RSA")]
    Kind,
    /// Not a point of the curve, or a modulus of the wrong size.
    #[error("it is too weak or not valid (RSA takes 2048 to 8192 bits and an odd exponent over 2)")]
    Weak,
    /// `use` or `key_ops` says that it is for something else, or `alg` is none of its kind.
    #[error("it is not for checking signatures, or not by its `alg`")]
    Purpose,
    /// No key, or two, of one `kid`.
    #[error("two keys have the same `kid`")]
    Twice,
}

/// A key that signatures can be checked with.
#[derive(Clone)]
pub struct PublicKey {
    kid: Option<String>,
    material: Material,
    /// All that its kind can do, or the one that its `alg` names.
    algorithms: Vec<Algorithm>,
    library: DecodingKey,
}

#[derive(Clone, PartialEq, Eq)]
enum Material {
    Ed25519([u8; 32]),
    /// Both coordinates, of 32 bytes each or of 48.
    Ec(Vec<u8>),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PublicKey({:?}, {:?})", self.kid, self.algorithms)
    }
}

/// The same key under the same name, for the same uses.
impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.kid == other.kid && self.material == other.material && self.algorithms == other.algorithms
    }
}

impl Eq for PublicKey {}

impl Material {
    /// What it can do, and the library's form of it; only of what is valid (RFC 8725 §3.4).
    fn checked(&self) -> Result<(Vec<Algorithm>, DecodingKey), MalformedKey> {
        let weak = |_| MalformedKey::Weak;
        match self {
            Self::Ed25519(x) => {
                if is_degenerate(*x) {
                    return Err(MalformedKey::Weak);
                }
                ParsedPublicKey::new(&ED25519, x.as_slice()).map_err(weak)?;
                Ok((vec![Algorithm::EdDsa], DecodingKey::from_ed_der(x)))
            }
            Self::Ec(coordinates) => {
                // Uncompressed (SEC 1 §2.3.3).
                let point = [&[4], coordinates.as_slice()].concat();
                let (algorithm, rules) = match coordinates.len() {
                    64 => (Algorithm::Es256, &ECDSA_P256_SHA256_FIXED),
                    _ => (Algorithm::Es384, &ECDSA_P384_SHA384_FIXED),
                };
                ParsedPublicKey::new(rules, &point).map_err(weak)?;
                Ok((vec![algorithm], DecodingKey::from_ec_der(&point)))
            }
            Self::Rsa { n, e } => {
                let bits = n.first().map_or(0, |first| n.len() * 8 - first.leading_zeros() as usize);
                let odd = |number: &[u8]| number.last().is_some_and(|last| last % 2 == 1);
                if !RSA_BITS.contains(&bits) || !odd(n) || !odd(e) || e.len() > 4 || e.as_slice() == [1] {
                    return Err(MalformedKey::Weak);
                }
                let can = [Algorithm::Rs256, Algorithm::Rs384, Algorithm::Rs512, Algorithm::Ps256, Algorithm::Ps384, Algorithm::Ps512];
                Ok((can.to_vec(), DecodingKey::from_rsa_raw_components(n, e)))
            }
        }
    }

    /// The members that RFC 7638 §3.2 counts, which are those that make the key.
    fn members(&self) -> Vec<(&'static str, String)> {
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        // In the order of their names.
        match self {
            Self::Ed25519(x) => vec![("crv", "Ed25519".into()), ("kty", "OKP".into()), ("x", encode(x))],
            Self::Ec(coordinates) => {
                let (x, y) = coordinates.split_at(coordinates.len() / 2);
                let curve = if x.len() == 32 { "P-256" } else { "P-384" };
                vec![("crv", curve.into()), ("kty", "EC".into()), ("x", encode(x)), ("y", encode(y))]
            }
            Self::Rsa { n, e } => vec![("e", encode(e)), ("kty", "RSA".into()), ("n", encode(n))],
        }
    }
}

/// Whether a point of Ed25519 is one of the eight that have but a few multiples, or is not written in its one form (RFC 8032
/// §5.1.3). With such a key one signature is right for many messages, and who has made it needs no private key.
fn is_degenerate(point: [u8; 32]) -> bool {
    const OF_ORDER_EIGHT: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3,
            0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c,
            0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    // Without the sign of x, in little-endian. The prime is 2^255 - 19.
    let mut y = point;
    y[31] &= 0x7f;
    let zero_or_one = y[0] <= 1 && y[1..].iter().all(|byte| *byte == 0);
    let from_minus_one_on = y[0] >= 0xec && y[31] == 0x7f && y[1..31].iter().all(|byte| *byte == 0xff);
    zero_or_one || from_minus_one_on || OF_ORDER_EIGHT.contains(&y)
}

impl PublicKey {
    pub(super) fn ed25519(x: [u8; 32]) -> Result<Self, MalformedKey> {
        Self::of(Material::Ed25519(x)).map(Self::named)
    }

    /// `coordinates`: x and y, of 32 bytes each.
    pub(super) fn p256(coordinates: &[u8]) -> Result<Self, MalformedKey> {
        Self::of(Material::Ec(coordinates.to_vec())).map(Self::named)
    }

    fn of(material: Material) -> Result<Self, MalformedKey> {
        let (algorithms, library) = material.checked()?;
        Ok(Self { kid: None, material, algorithms, library })
    }

    /// Its own thumbprint as its name.
    fn named(mut self) -> Self {
        self.kid = Some(self.thumbprint());
        self
    }

    /// Reads one JWK.
    ///
    /// # Errors
    /// [`MalformedKey`] says what is wrong with it.
    pub fn from_jwk(jwk: &Map<String, Value>) -> Result<Self, MalformedKey> {
        let text = |name: &'static str| match jwk.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(MalformedKey::Member(name)),
        };
        let bytes = |name: &'static str| {
            let text = text(name)?.ok_or(MalformedKey::Member(name))?;
            URL_SAFE_NO_PAD.decode(text).map_err(|_| MalformedKey::Member(name))
        };
        // A private key where a public one belongs has leaked, and a shared secret is none of ours.
        if jwk.contains_key("d") || jwk.contains_key("k") {
            return Err(MalformedKey::Kind);
        }
        let coordinates = |length: usize| {
            let (x, y) = (bytes("x")?, bytes("y")?);
            if x.len() != length {
                return Err(MalformedKey::Member("x"));
            }
            if y.len() != length {
                return Err(MalformedKey::Member("y"));
            }
            Ok(Material::Ec([x, y].concat()))
        };
        let material = match (text("kty")?, text("crv")?) {
            (Some("OKP"), Some("Ed25519")) => Material::Ed25519(bytes("x")?.try_into().map_err(|_| MalformedKey::Member("x"))?),
            (Some("EC"), Some("P-256")) => coordinates(32)?,
            (Some("EC"), Some("P-384")) => coordinates(48)?,
            (Some("RSA"), _) => {
                let (n, e) = (bytes("n")?, bytes("e")?);
                // Without leading zeros (RFC 7518 §6.3.1.1), so that one key has one thumbprint.
                if n.first() == Some(&0) || e.first() == Some(&0) {
                    return Err(MalformedKey::Member("n"));
                }
                Material::Rsa { n, e }
            }
            _ => return Err(MalformedKey::Kind),
        };
        let mut key = Self::of(material)?;
        if text("use")?.is_some_and(|purpose| purpose != "sig") {
            return Err(MalformedKey::Purpose);
        }
        if let Some(operations) = jwk.get("key_ops") {
            let operations = operations.as_array().ok_or(MalformedKey::Member("key_ops"))?;
            if !operations.iter().any(|operation| operation == "verify") {
                return Err(MalformedKey::Purpose);
            }
        }
        if let Some(name) = text("alg")? {
            key.algorithms.retain(|algorithm| name.parse() == Ok(*algorithm));
            if key.algorithms.is_empty() {
                return Err(MalformedKey::Purpose);
            }
        }
        key.kid = text("kid")?.map(str::to_owned);
        // No token could name it.
        if key.kid.as_ref().is_some_and(|kid| kid.len() > MAX_KID) {
            return Err(MalformedKey::Member("kid"));
        }
        Ok(key)
    }

    /// What tokens call it.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// The key as others are told of it.
    #[must_use]
    pub fn to_jwk(&self) -> Value {
        let mut jwk: Map<String, Value> =
            self.material.members().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        jwk.insert("use".to_owned(), json!("sig"));
        if let [algorithm] = self.algorithms.as_slice() {
            jwk.insert("alg".to_owned(), json!(algorithm.as_str()));
        }
        if let Some(kid) = &self.kid {
            jwk.insert("kid".to_owned(), json!(kid));
        }
        Value::Object(jwk)
    }

    /// The SHA-256 thumbprint (RFC 7638 §3), in base64url.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        let members = self.material.members().into_iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect::<Vec<_>>();
        URL_SAFE_NO_PAD.encode(sha256(format!("{{{}}}", members.join(","))))
    }

    pub(super) fn takes(&self, algorithm: Algorithm) -> bool {
        self.algorithms.contains(&algorithm)
    }

    pub(super) fn has_signed(&self, message: &[u8], signature: &str, algorithm: Algorithm) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.library, algorithm.library()).unwrap_or(false)
    }
}

/// Keys by their `kid`.
#[derive(Clone, Debug, Default)]
pub struct KeySet {
    named: HashMap<String, PublicKey>,
    nameless: Vec<PublicKey>,
}

/// The same keys, in whatever order they were named.
impl PartialEq for KeySet {
    fn eq(&self, other: &Self) -> bool {
        let within = |one: &Self, all: &Self| one.nameless.iter().all(|key| all.nameless.contains(key));
        self.named == other.named && self.len() == other.len() && within(self, other) && within(other, self)
    }
}

impl Eq for KeySet {}

impl KeySet {
    /// Reads a JWK set (RFC 7517 §5); what is left out of it, and why, comes second: a set may have keys for other uses.
    ///
    /// # Errors
    /// [`MalformedKey::Set`] for what is no set, [`MalformedKey::Twice`] if two usable keys have one `kid`.
    pub fn from_jwks(text: &[u8]) -> Result<(Self, Vec<MalformedKey>), MalformedKey> {
        let set = json::object(text).ok_or(MalformedKey::Set)?;
        let jwks = set.get("keys").and_then(Value::as_array).filter(|keys| keys.len() <= MAX_KEYS).ok_or(MalformedKey::Set)?;
        let (mut keys, mut left_out) = (Self::default(), Vec::new());
        for jwk in jwks {
            match PublicKey::from_jwk(jwk.as_object().ok_or(MalformedKey::Set)?) {
                Ok(key) => keys.add(key)?,
                Err(error) => left_out.push(error),
            }
        }
        Ok((keys, left_out))
    }

    /// Adds a key.
    ///
    /// # Errors
    /// [`MalformedKey::Twice`] if there is one of that `kid`.
    pub fn add(&mut self, key: PublicKey) -> Result<(), MalformedKey> {
        match &key.kid {
            None => self.nameless.push(key),
            Some(kid) if self.named.contains_key(kid) => return Err(MalformedKey::Twice),
            Some(kid) => drop(self.named.insert(kid.clone(), key)),
        }
        Ok(())
    }

    /// Every key, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &PublicKey> {
        self.named.values().chain(&self.nameless)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.len() + self.nameless.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The key of that name; without a name only if there is but one key at all.
    #[must_use]
    pub fn find(&self, kid: Option<&str>) -> Option<&PublicKey> {
        match kid {
            Some(kid) => self.named.get(kid),
            None if self.len() == 1 => self.iter().next(),
            None => None,
        }
    }
}
