//! The life of a client: created, edited, its secret rotated and ended, revoked.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use super::{Error, Lifecycle, name};
use crate::clock::{Timestamp, now};
use crate::credential::Secret;
use crate::entity::{Client, ClientKeys, StoredSecret};
use crate::id::{ClientId, PracticeId, UserId};
use crate::jwks::{self, Networks};
use crate::scope::ScopeToken;
use crate::store::{Actor, ClientEdit, NewClient, Receipt};
use crate::token::KeySet;

/// What a new client is to be.
#[derive(Clone, Debug)]
pub struct NewClientRequest {
    /// The practice whose data it reaches.
    pub practice: PracticeId,
    /// The user who owns it, for a personal client; `None` for a practice-level one.
    pub owner: Option<UserId>,
    /// For people; trimmed.
    pub name: String,
    /// At least one.
    pub scopes: Vec<ScopeToken>,
    /// Empty: any address.
    pub allowed_addresses: Vec<IpNet>,
    /// The name of a tier in the route file.
    pub tier: Option<String>,
    /// When it ends by itself, if it does; in the future.
    pub expires_at: Option<Timestamp>,
    /// Keys of its own, with which it may sign assertions in the place of its secret.
    pub keys: ClientKeys,
}

impl NewClientRequest {
    /// A practice-level client of this name with these scopes, from any address, that does not expire.
    #[must_use]
    pub fn new(practice: PracticeId, name: &str, scopes: Vec<ScopeToken>) -> Self {
        Self {
            practice,
            owner: None,
            name: name.to_owned(),
            scopes,
            allowed_addresses: vec![],
            tier: None,
            expires_at: None,
            keys: ClientKeys::None,
        }
    }
}

/// A new client, in force, with its secret in the clear: the one time it can be shown.
#[derive(Debug)]
pub struct Issued {
    /// The client.
    pub client: Client,
    /// Its secret.
    pub secret: Secret,
    /// How it came into force.
    pub receipt: Receipt,
}

/// A new secret, in force and in the clear: the one time it can be shown.
#[derive(Debug)]
pub struct Rotated {
    /// Which secret of the client it is.
    pub generation: u32,
    /// The secret.
    pub secret: Secret,
    /// When the secrets before it end or ended.
    pub others_end: Timestamp,
    /// How it came into force.
    pub receipt: Receipt,
}

/// For how long the old secret goes on working beside a new one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overlap {
    /// Not at all.
    #[default]
    None,
    /// One hour.
    OneHour,
    /// 24 hours.
    OneDay,
    /// Seven days.
    SevenDays,
}

impl Overlap {
    /// Every choice, from none to the longest.
    pub const EVERY: [Self; 4] = [Self::None, Self::OneHour, Self::OneDay, Self::SevenDays];

    /// The word for it on the command line and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::OneHour => "1h",
            Self::OneDay => "24h",
            Self::SevenDays => "7d",
        }
    }

    /// How long it is.
    #[must_use]
    pub const fn duration(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::OneHour => Duration::from_hours(1),
            Self::OneDay => Duration::from_hours(24),
            Self::SevenDays => Duration::from_hours(7 * 24),
        }
    }
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Overlap {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let found = Self::EVERY.into_iter().find(|overlap| overlap.as_str() == text);
        found.ok_or_else(|| Error::Invalid(format!("`{text}` is no overlap: give `none`, `1h`, `24h` or `7d`")))
    }
}

/// A network (`192.0.2.0/24`) or a single address (`192.0.2.7`).
///
/// # Errors
/// [`Error::Invalid`] for anything else, also for a network with bits set behind its prefix: it may be a slip, and
/// guessing wrong would let in more than was meant.
pub fn parse_network(text: &str) -> Result<IpNet, Error> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let invalid = |why: String| Error::Invalid(format!("`{text}` is not a network: {why}"));
    let network: IpNet = text.parse().map_err(|_| invalid("give an address or a CIDR block, as `192.0.2.0/24`".into()))?;
    if network.trunc() != network {
        return Err(invalid(format!("the address has bits behind the prefix; did you mean `{}`?", network.trunc())));
    }
    Ok(network)
}

impl Lifecycle {
    /// Creates a client with its first secret.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a bad name, no scope or an end in the past; [`store::Error::Conflict`](crate::store::Error::Conflict)
    /// when the practice is not active, or the owner's access is off.
    pub async fn create_client(&self, request: NewClientRequest, by: &Actor) -> Result<Issued, Error> {
        let now = now();
        let scopes = distinct_scopes(request.scopes)?;
        check_end(request.expires_at, now)?;
        let secret = Secret::generate();
        let first =
            StoredSecret { generation: 1, digest: secret.digest(self.pepper.as_deref()), created_at: now, expires_at: None, ended: false };
        let client = Client {
            id: new_client_id(),
            practice_id: request.practice,
            owner: request.owner,
            name: name::check(&request.name)?.into(),
            scopes,
            allowed_addresses: distinct(request.allowed_addresses),
            tier: request.tier.map(check_tier).transpose()?.map(Into::into),
            created_at: now,
            expires_at: request.expires_at,
            revoked_at: None,
            secrets: vec![first],
            keys: check_keys(request.keys, &self.key_networks)?,
        };
        let committed = self.store.create_client(&NewClient { client: client.clone() }, by).await?;
        let receipt = self.in_force(committed).await?;
        Ok(Issued { client, secret, receipt })
    }

    /// Makes a new secret; the old ones end after the overlap, or when they would have ended anyway.
    ///
    /// # Errors
    /// [`store::Error::Conflict`](crate::store::Error::Conflict) for a revoked client.
    pub async fn rotate(&self, id: ClientId, overlap: Overlap, by: &Actor) -> Result<Rotated, Error> {
        let now = now();
        let others_end = now.after(overlap.duration());
        let secret = Secret::generate();
        let digest = secret.digest(self.pepper.as_deref());
        let (generation, committed) = self.store.add_secret(id, &digest, now, others_end, by).await?;
        let receipt = self.in_force(committed).await?;
        Ok(Rotated { generation, secret, others_end, receipt })
    }

    /// Ends one secret now.
    ///
    /// # Errors
    /// [`store::Error::NotFound`](crate::store::Error::NotFound) if the client has no secret of that generation.
    pub async fn end_secret(&self, id: ClientId, generation: u32, by: &Actor) -> Result<Receipt, Error> {
        self.in_force(self.store.end_secret(id, generation, now(), by).await?).await
    }

    /// Takes a client out of use for good. Returns when no live node accepts it any more; doing it again is harmless.
    ///
    /// # Errors
    /// [`Error::Unconfirmed`]: revoked, but the nodes could not be waited for.
    pub async fn revoke(&self, id: ClientId, by: &Actor) -> Result<Receipt, Error> {
        self.in_force(self.store.revoke_client(id, now(), by).await?).await
    }

    /// Changes name, scopes, addresses, tier or expiry of a client.
    ///
    /// # Errors
    /// [`Error::Invalid`] as for [`create_client`](Self::create_client);
    /// [`store::Error::Conflict`](crate::store::Error::Conflict) for a revoked client.
    pub async fn edit(&self, id: ClientId, edit: ClientEdit, by: &Actor) -> Result<Receipt, Error> {
        check_end(edit.expires_at.flatten(), now())?;
        let edit = ClientEdit {
            name: edit.name.as_deref().map(name::check).transpose()?.map(str::to_owned),
            scopes: edit.scopes.map(distinct_scopes).transpose()?,
            allowed_addresses: edit.allowed_addresses.map(distinct),
            tier: edit.tier.map(|tier| tier.map(check_tier).transpose()).transpose()?,
            expires_at: edit.expires_at,
            keys: edit.keys.map(|keys| check_keys(keys, &self.key_networks)).transpose()?,
            only_if: edit.only_if,
        };
        self.in_force(self.store.edit_client(id, &edit, by).await?).await
    }
}

fn new_client_id() -> ClientId {
    let mut letters = [0_u8; ClientId::RANDOM];
    for letter in &mut letters {
        // 0 is not drawn yet. 1 to 248 are four times 62 values, so each letter is as likely; what is above is not.
        while *letter == 0 || *letter > 248 {
            getrandom::fill(std::slice::from_mut(letter)).expect("the operating system gives random numbers");
        }
    }
    ClientId::from_random(letters)
}

fn distinct_scopes(scopes: Vec<ScopeToken>) -> Result<Vec<ScopeToken>, Error> {
    if scopes.is_empty() {
        return Err(Error::Invalid("the client would have no scope: give at least one".into()));
    }
    Ok(distinct(scopes))
}

fn distinct<T: PartialEq>(items: Vec<T>) -> Vec<T> {
    items.into_iter().fold(Vec::new(), |mut kept, item| {
        if !kept.contains(&item) {
            kept.push(item);
        }
        kept
    })
}

fn check_end(expires_at: Option<Timestamp>, now: Timestamp) -> Result<(), Error> {
    match expires_at {
        Some(end) if end <= now => Err(Error::Invalid(format!("the client would end at {end}, which is past: give a later moment"))),
        _ => Ok(()),
    }
}

/// The most that the keys of a client may take, in bytes: every node holds them.
const MAX_KEYS: usize = 16 * 1024;

fn check_keys(keys: ClientKeys, networks: &Networks) -> Result<ClientKeys, Error> {
    let invalid = |why: String| Err(Error::Invalid(format!("the keys of the client are not taken: {why}")));
    match &keys {
        ClientKeys::None => {}
        ClientKeys::Jwks(text) if text.len() > MAX_KEYS => {
            return invalid(format!("the set has {} bytes, and {MAX_KEYS} at most", text.len()));
        }
        ClientKeys::Jwks(text) => match KeySet::from_jwks(text.as_bytes()) {
            Ok((_, left_out)) if !left_out.is_empty() => return invalid(left_out[0].to_string()),
            Ok((keys, _)) if keys.is_empty() => return invalid("the set is empty".into()),
            Ok(_) => {}
            Err(error) => return invalid(error.to_string()),
        },
        ClientKeys::Url(url) => {
            if let Err(error) = jwks::check(url, networks) {
                return invalid(format!("`{url}`: {error}"));
            }
        }
    }
    Ok(keys)
}

fn check_tier(tier: String) -> Result<String, Error> {
    let ok = (1..=64).contains(&tier.len()) && tier.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if ok { Ok(tier) } else { Err(Error::Invalid(format!("`{tier}` is not the name of a tier: expected letters, digits, `_` or `-`"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_a_block_or_an_address_and_never_a_guess() {
        assert_eq!(parse_network("192.0.2.7").unwrap().to_string(), "192.0.2.7/32");
        assert_eq!(parse_network("2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        for wrong in ["", "192.0.2.7/24", "192.0.2.0/33", "example.test", "192.0.2.0/24 "] {
            assert!(parse_network(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_overlap_reads_as_it_is_written() {
        for overlap in Overlap::EVERY {
            assert_eq!(overlap.as_str().parse::<Overlap>().unwrap(), overlap);
        }
        assert!("2h".parse::<Overlap>().is_err());
    }
}
