//! Fetching from servers of this machine, which behave as they like; and when something is fetched at all.

mod current;
mod fetching;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::*;
use crate::token::{Algorithm, KeySet, SigningKey};

fn networks(allowed: &[&str]) -> Vec<IpNet> {
    allowed.iter().map(|network| network.parse().unwrap()).collect()
}

/// A public key in a set, as text.
fn jwks(keys: &[&Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn key(kid: &str) -> Value {
    let mut jwk = SigningKey::generate(Algorithm::EdDsa).unwrap().public().to_jwk();
    jwk["kid"] = kid.into();
    jwk
}

fn set(keys: &[&Value]) -> KeySet {
    KeySet::from_jwks(jwks(keys).as_bytes()).unwrap().0
}

/// A count that tests and servers share.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Count {
    fn add(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}
