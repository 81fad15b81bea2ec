//! From rows to practices, users, clients, keys and tokens; nowhere else.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use crate::clock::Timestamp;
use crate::credential::{DigestKind, SecretDigest};
use crate::entity::{Client, ClientKeys, Practice, RevokedToken, StoredKey, StoredSecret, User};
use crate::id::ClientId;
use crate::store::Error;
use crate::store::audit::{Event, Hash};
use crate::store::records::{ClientRow, LastUse, TeamMember};
use crate::store::unclear::{NEVER, known, nobody};

// As the tables have it: whatever the database had to work out for each of a million rows would be waited for.
pub(super) const PRACTICE: &str = "SELECT practice_id, name, api_access FROM gateway.practices";
pub(super) const USER: &str = "SELECT user_id, practice_id, role, api_access, left_at FROM gateway.users";
pub(super) const MEMBER: &str = "SELECT user_id, practice_id, role, api_access, left_at, people.name, email FROM gateway.users LEFT JOIN gateway.people USING (user_id)";
pub(super) const CLIENT: &str =
    "SELECT client_id, practice_id, owner, name, scopes, allowed_addresses, tier, created_at, expires_at, revoked_at, jwks, jwks_url
     FROM gateway.clients";
/// With when it was last used.
pub(super) const CLIENT_ROW: &str =
    "SELECT client_id, practice_id, owner, name, scopes, allowed_addresses, tier, created_at, expires_at, revoked_at, jwks, jwks_url,
            last_used_at, host(address), generation
     FROM gateway.clients LEFT JOIN LATERAL (
         SELECT last_used_at, address, generation FROM gateway.secret_uses
         WHERE secret_uses.client_id = clients.client_id ORDER BY last_used_at DESC LIMIT 1) AS used ON true";
pub(super) const SECRET: &str =
    "SELECT client_id, generation, digest_kind, digest, created_at, expires_at, ended FROM gateway.client_secrets";
pub(super) const SIGNING_KEY: &str = "SELECT key_id, algorithm, sealed, created_at, signs_from, revoked_at FROM gateway.signing_keys";
pub(super) const REVOKED_TOKEN: &str = "SELECT token_id, client_id, expires_at, revoked_at FROM gateway.revoked_tokens";
pub(super) const EVENT: &str =
    "SELECT target, id, at, practice_id, actor, origin, action, before, after, prev_hash, hash FROM gateway.audit_events";

/// A row, however it came. Columns are named by their place in the lists above; an error says what is wrong with one.
pub(super) trait Row {
    fn text(&self, at: usize) -> Result<Option<&str>, String>;
    fn flag(&self, at: usize) -> Result<bool, String>;
    fn number(&self, at: usize) -> Result<i64, String>;
    /// In whole milliseconds, rounded down: an end is never later than it says.
    fn moment(&self, at: usize) -> Result<Option<Timestamp>, String>;
    fn bytes(&self, at: usize) -> Result<&[u8], String>;
    fn texts<T>(&self, at: usize, each: impl FnMut(&str) -> Result<T, String>) -> Result<Vec<T>, String>;
    fn networks(&self, at: usize) -> Result<Vec<IpNet>, String>;
}

impl Row for PgRow {
    fn text(&self, at: usize) -> Result<Option<&str>, String> {
        self.try_get(at).map_err(as_text)
    }

    fn flag(&self, at: usize) -> Result<bool, String> {
        self.try_get(at).map_err(as_text)
    }

    fn number(&self, at: usize) -> Result<i64, String> {
        self.try_get(at).map_err(as_text)
    }

    fn moment(&self, at: usize) -> Result<Option<Timestamp>, String> {
        let at: Option<OffsetDateTime> = self.try_get(at).map_err(as_text)?;
        Ok(at.map(|at| Timestamp(i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).unwrap_or(i64::MAX))))
    }

    fn bytes(&self, at: usize) -> Result<&[u8], String> {
        self.try_get(at).map_err(as_text)
    }

    fn texts<T>(&self, at: usize, mut each: impl FnMut(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        let texts: Vec<String> = self.try_get(at).map_err(as_text)?;
        texts.iter().map(|text| each(text)).collect()
    }

    fn networks(&self, at: usize) -> Result<Vec<IpNet>, String> {
        self.try_get(at).map_err(as_text)
    }
}

pub(super) fn as_text(error: impl Display) -> String {
    error.to_string()
}

/// One row of a table, with what an error about it has to name. Its key is its first column.
pub(super) struct Reading<'r, R> {
    pub(super) row: &'r R,
    pub(super) table: &'static str,
}

impl<'r, R: Row> Reading<'r, R> {
    pub(super) fn wrong(&self, why: &dyn Display) -> Error {
        let key = self.row.text(0).ok().flatten().unwrap_or("?").to_owned();
        Error::Row { table: self.table, key, why: why.to_string() }
    }

    /// What `how` makes of a column; an error names the column.
    pub(super) fn read<T>(&self, name: &str, how: impl FnOnce(&'r R) -> Result<T, String>) -> Result<T, Error> {
        how(self.row).map_err(|why| self.wrong(&format!("{name}: {why}")))
    }

    pub(super) fn some_text(&self, (at, name): Column) -> Result<Option<&'r str>, Error> {
        self.read(name, |row| row.text(at))
    }

    pub(super) fn text(&self, column: Column) -> Result<&'r str, Error> {
        self.read(column.1, |row| row.text(column.0)?.ok_or_else(|| "there is none".to_owned()))
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&self, column: Column) -> Result<T, Error> {
        let text = self.text(column)?;
        self.read(column.1, |_| text.parse().map_err(as_text))
    }

    pub(super) fn parse_some<T: FromStr<Err: Display>>(&self, column: Column) -> Result<Option<T>, Error> {
        let text = self.some_text(column)?;
        self.read(column.1, |_| text.map(str::parse).transpose().map_err(as_text))
    }

    pub(super) fn some_moment(&self, (at, name): Column) -> Result<Option<Timestamp>, Error> {
        self.read(name, |row| row.moment(at))
    }

    pub(super) fn moment(&self, column: Column) -> Result<Timestamp, Error> {
        self.read(column.1, |row| row.moment(column.0)?.ok_or_else(|| "there is none".to_owned()))
    }

    pub(super) fn digest(&self, (at, name): Column) -> Result<[u8; 32], Error> {
        self.read(name, |row| row.bytes(at)?.try_into().map_err(|_| "not 32 bytes".to_owned()))
    }
}

/// A column's place and name.
pub(super) type Column = (usize, &'static str);

/// A practice.
pub(super) fn practice(row: &impl Row) -> Result<Practice, Error> {
    let row = Reading { row, table: "practices" };
    Ok(Practice { id: row.parse((0, "practice_id"))?, name: row.text((1, "name"))?.into(), api_access: row.parse((2, "api_access"))? })
}

/// A user.
pub(super) fn user(row: &impl Row) -> Result<User, Error> {
    let row = Reading { row, table: "users" };
    Ok(User {
        id: row.parse((0, "user_id"))?,
        practice_id: row.parse((1, "practice_id"))?,
        role: row.parse((2, "role"))?,
        api_access: row.read("api_access", |row| row.flag(3))?,
        left_at: row.some_moment((4, "left_at"))?,
    })
}

/// A user, with the name and the address behind them.
pub(super) fn member(row: &PgRow) -> Result<TeamMember, Error> {
    let user = user(row)?;
    let row = Reading { row, table: "people" };
    Ok(TeamMember { user, name: row.some_text((5, "name"))?.map(Arc::from), email: row.some_text((6, "email"))?.map(Arc::from) })
}

/// A client without its secrets.
pub(super) fn client(row: &impl Row) -> Result<Client, Error> {
    let row = Reading { row, table: "clients" };
    let scopes = row.read("scopes", |row| row.texts(4, |scope| scope.parse().map_err(as_text)))?;
    if scopes.is_empty() {
        return Err(row.wrong(&"scopes: there is none"));
    }
    let keys = ClientKeys::from_either(row.some_text((10, "jwks"))?, row.some_text((11, "jwks_url"))?);
    Ok(Client {
        id: row.parse((0, "client_id"))?,
        practice_id: row.parse((1, "practice_id"))?,
        owner: row.parse_some((2, "owner"))?,
        name: row.text((3, "name"))?.into(),
        scopes,
        allowed_addresses: row.read("allowed_addresses", |row| row.networks(5))?,
        tier: row.some_text((6, "tier"))?.map(Arc::from),
        created_at: row.moment((7, "created_at"))?,
        expires_at: row.some_moment((8, "expires_at"))?,
        revoked_at: row.some_moment((9, "revoked_at"))?,
        secrets: Vec::new(),
        keys: keys.ok_or_else(|| row.wrong(&"jwks: there is a jwks_url as well"))?,
    })
}

/// A client without its secrets, and when it was last used.
pub(super) fn client_row(row: &PgRow) -> Result<ClientRow, Error> {
    let client = client(row)?;
    let row = Reading { row, table: "secret_uses" };
    let used = |at| {
        let generation = row.read("generation", |row| u32::try_from(row.number(14)?).map_err(as_text))?;
        Ok::<_, Error>(LastUse { at, address: row.parse((13, "address"))?, generation })
    };
    Ok(ClientRow { client, last_used: row.some_moment((12, "last_used_at"))?.map(used).transpose()? })
}

/// A secret, and whose it is.
pub(super) fn secret(row: &impl Row) -> Result<(ClientId, StoredSecret), Error> {
    let row = Reading { row, table: "client_secrets" };
    let kind = row.text((2, "digest_kind"))?;
    let kind = DigestKind::from_word(kind).ok_or_else(|| row.wrong(&"digest_kind: not a word for one"))?;
    let secret = StoredSecret {
        generation: row.read("generation", |row| u32::try_from(row.number(1)?).map_err(as_text))?,
        digest: SecretDigest::from_parts(kind, row.digest((3, "digest"))?),
        created_at: row.moment((4, "created_at"))?,
        expires_at: row.some_moment((5, "expires_at"))?,
        ended: row.read("ended", |row| row.flag(6))?,
    };
    Ok((row.parse((0, "client_id"))?, secret))
}

/// A signing key.
pub(super) fn signing_key(row: &impl Row) -> Result<StoredKey, Error> {
    let row = Reading { row, table: "signing_keys" };
    Ok(StoredKey {
        id: row.parse((0, "key_id"))?,
        algorithm: row.parse((1, "algorithm"))?,
        sealed: row.read("sealed", |row| row.bytes(2))?.into(),
        created_at: row.moment((3, "created_at"))?,
        signs_from: row.some_moment((4, "signs_from"))?,
        revoked_at: row.some_moment((5, "revoked_at"))?,
    })
}

/// A token that was revoked: which it is whatever else its row says.
pub(super) fn revoked_token(row: &impl Row) -> Result<RevokedToken, Error> {
    let row = Reading { row, table: "revoked_tokens" };
    Ok(RevokedToken {
        id: row.parse((0, "token_id"))?,
        client_id: known(row.parse((1, "client_id")), nobody()),
        expires_at: known(row.moment((2, "expires_at")), NEVER),
        revoked_at: known(row.moment((3, "revoked_at")), Timestamp(0)),
    })
}

/// An audit event.
pub(super) fn event(row: &PgRow) -> Result<Event, Error> {
    let row = Reading { row, table: "audit_events" };
    Ok(Event {
        id: row.read("id", |row| u64::try_from(row.number(1)?).map_err(as_text))?,
        at: row.moment((2, "at"))?,
        practice_id: row.parse_some((3, "practice_id"))?,
        actor: row.text((4, "actor"))?.to_owned(),
        origin: row.text((5, "origin"))?.to_owned(),
        action: row.text((6, "action"))?.to_owned(),
        target: row.text((0, "target"))?.to_owned(),
        before: row.parse((7, "before"))?,
        after: row.parse((8, "after"))?,
        prev_hash: Hash(row.digest((9, "prev_hash"))?),
        hash: Hash(row.digest((10, "hash"))?),
    })
}
