//! From rows to practices, users and clients; nowhere else.

use std::str::FromStr;
use std::sync::Arc;

use sqlx::Row;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use crate::clock::Timestamp;
use crate::credential::{DigestKind, SecretDigest};
use crate::entity::{Client, Practice, StoredSecret, User};
use crate::id::ClientId;
use crate::scope::ScopeToken;
use crate::store::Error;
use crate::store::audit::{Event, Hash};

// As the tables have it: whatever the database had to work out for each of a million rows would be waited for.
pub(super) const PRACTICE: &str = "SELECT practice_id, name, api_access FROM gateway.practices";
pub(super) const USER: &str = "SELECT user_id, practice_id, role, api_access, left_at FROM gateway.users";
pub(super) const CLIENT: &str =
    "SELECT client_id, practice_id, owner, name, scopes, allowed_addresses, tier, created_at, expires_at, revoked_at FROM gateway.clients";
pub(super) const SECRET: &str = "SELECT client_id, generation, digest_kind, digest, created_at, expires_at FROM gateway.client_secrets";
pub(super) const EVENT: &str =
    "SELECT id, at, practice_id, actor, origin, action, target, before, after, prev_hash, hash FROM gateway.audit_events";

/// One row of a table, with what an error about it has to name.
struct Reading<'r> {
    row: &'r PgRow,
    table: &'static str,
    key: &'static str,
}

impl<'r> Reading<'r> {
    fn wrong(&self, why: &dyn std::fmt::Display) -> Error {
        let key = self.row.try_get::<String, _>(self.key).unwrap_or_else(|_| "?".to_owned());
        Error::Row { table: self.table, key, why: why.to_string() }
    }

    fn get<T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(&self, column: &'static str) -> Result<T, Error> {
        self.row.try_get(column).map_err(|error| self.wrong(&error))
    }

    fn parse<T: FromStr<Err: std::fmt::Display>>(&self, column: &'static str) -> Result<T, Error> {
        self.get::<&str>(column)?.parse().map_err(|error: T::Err| self.wrong(&format!("{column}: {error}")))
    }

    fn parse_some<T: FromStr<Err: std::fmt::Display>>(&self, column: &'static str) -> Result<Option<T>, Error> {
        self.get::<Option<&str>>(column)?.map(str::parse).transpose().map_err(|error: T::Err| self.wrong(&format!("{column}: {error}")))
    }

    fn moment(&self, column: &'static str) -> Result<Timestamp, Error> {
        self.get(column).map(timestamp)
    }

    fn moment_if_any(&self, column: &'static str) -> Result<Option<Timestamp>, Error> {
        Ok(self.get::<Option<OffsetDateTime>>(column)?.map(timestamp))
    }

    fn list<T: FromStr<Err: std::fmt::Display>>(&self, column: &'static str) -> Result<Vec<T>, Error> {
        let words: Vec<String> = self.get(column)?;
        words.iter().map(|word| word.parse()).collect::<Result<_, _>>().map_err(|error: T::Err| self.wrong(&format!("{column}: {error}")))
    }

    fn bytes(&self, column: &'static str) -> Result<[u8; 32], Error> {
        self.get::<&[u8]>(column)?.try_into().map_err(|_| self.wrong(&format!("{column}: not 32 bytes")))
    }
}

/// A practice.
pub(super) fn practice(row: &PgRow) -> Result<Practice, Error> {
    let row = Reading { row, table: "practices", key: "practice_id" };
    Ok(Practice { id: row.parse("practice_id")?, name: row.get::<&str>("name")?.into(), api_access: row.parse("api_access")? })
}

/// A user.
pub(super) fn user(row: &PgRow) -> Result<User, Error> {
    let row = Reading { row, table: "users", key: "user_id" };
    Ok(User {
        id: row.parse("user_id")?,
        practice_id: row.parse("practice_id")?,
        role: row.parse("role")?,
        api_access: row.get("api_access")?,
        left_at: row.moment_if_any("left_at")?,
    })
}

/// A client without its secrets.
pub(super) fn client(row: &PgRow) -> Result<Client, Error> {
    let row = Reading { row, table: "clients", key: "client_id" };
    let scopes: Vec<ScopeToken> = row.list("scopes")?;
    if scopes.is_empty() {
        return Err(row.wrong(&"scopes: there is none"));
    }
    Ok(Client {
        id: row.parse("client_id")?,
        practice_id: row.parse("practice_id")?,
        owner: row.parse_some("owner")?,
        name: row.get::<&str>("name")?.into(),
        scopes,
        allowed_addresses: row.get("allowed_addresses")?,
        tier: row.get::<Option<&str>>("tier")?.map(Arc::from),
        created_at: row.moment("created_at")?,
        expires_at: row.moment_if_any("expires_at")?,
        revoked_at: row.moment_if_any("revoked_at")?,
        secrets: Vec::new(),
    })
}

/// A secret, and whose it is.
pub(super) fn secret(row: &PgRow) -> Result<(ClientId, StoredSecret), Error> {
    let row = Reading { row, table: "client_secrets", key: "client_id" };
    let generation = u32::try_from(row.get::<i64>("generation")?).map_err(|error| row.wrong(&format!("generation: {error}")))?;
    let kind = DigestKind::from_word(row.get("digest_kind")?).ok_or_else(|| row.wrong(&"digest_kind: not a word for one"))?;
    let secret = StoredSecret {
        generation,
        digest: SecretDigest::from_parts(kind, row.bytes("digest")?),
        created_at: row.moment("created_at")?,
        expires_at: row.moment_if_any("expires_at")?,
    };
    Ok((row.parse("client_id")?, secret))
}

/// An audit event.
pub(super) fn event(row: &PgRow) -> Result<Event, Error> {
    let row = Reading { row, table: "audit_events", key: "target" };
    Ok(Event {
        id: u64::try_from(row.get::<i64>("id")?).map_err(|error| row.wrong(&error))?,
        at: row.moment("at")?,
        practice_id: row.parse_some("practice_id")?,
        actor: row.get("actor")?,
        origin: row.get("origin")?,
        action: row.get("action")?,
        target: row.get("target")?,
        before: row.parse("before")?,
        after: row.parse("after")?,
        prev_hash: Hash(row.bytes("prev_hash")?),
        hash: Hash(row.bytes("hash")?),
    })
}

/// In whole milliseconds, rounded down: an end is never later than it says.
fn timestamp(at: OffsetDateTime) -> Timestamp {
    Timestamp(i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX))
}
