//! From rows to practices, users, clients, keys and tokens; nowhere else.

use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::clock::Timestamp;
use crate::credential::{DigestKind, SecretDigest};
use crate::entity::{Client, ClientKeys, Practice, RevokedToken, StoredKey, StoredSecret, User};
use crate::id::ClientId;
use crate::scope::ScopeToken;
use crate::store::Error;
use crate::store::audit::{Event, Hash};
use crate::store::records::{ClientRow, LastUse, TeamMember};
use crate::store::unclear::{NEVER, known, nobody};

pub(super) const PRACTICE: &str = "SELECT practice_id, name, api_access FROM practices";
pub(super) const USER: &str = "SELECT user_id, practice_id, role, api_access, left_at FROM users";
pub(super) const MEMBER: &str =
    "SELECT user_id, practice_id, role, api_access, left_at, people.name, email FROM users LEFT JOIN people USING (user_id)";
pub(super) const CLIENT: &str =
    "SELECT client_id, practice_id, owner, name, scopes, allowed_addresses, tier, created_at, expires_at, revoked_at, jwks, jwks_url
     FROM clients";
/// With when it was last used.
pub(super) const CLIENT_ROW: &str =
    "SELECT clients.client_id AS client_id, practice_id, owner, name, scopes, allowed_addresses, tier, created_at, expires_at, revoked_at,
            jwks, jwks_url, last_used_at, address, generation
     FROM clients LEFT JOIN secret_uses ON secret_uses.client_id = clients.client_id AND secret_uses.generation = (
         SELECT generation FROM secret_uses AS used WHERE used.client_id = clients.client_id ORDER BY last_used_at DESC LIMIT 1)";
pub(super) const SECRET: &str = "SELECT client_id, generation, digest_kind, digest, created_at, expires_at, ended FROM client_secrets";
pub(super) const SIGNING_KEY: &str = "SELECT key_id, algorithm, sealed, created_at, signs_from, revoked_at FROM signing_keys";
pub(super) const REVOKED_TOKEN: &str = "SELECT token_id, client_id, expires_at, revoked_at FROM revoked_tokens";
pub(super) const EVENT: &str =
    "SELECT id, at, practice_id, actor, origin, action, target, before, after, prev_hash, hash FROM audit_events";

/// One row of a table, with what an error about it has to name.
pub(super) struct Reading<'r> {
    row: &'r SqliteRow,
    table: &'static str,
    key: String,
}

impl<'r> Reading<'r> {
    pub(super) fn new(row: &'r SqliteRow, table: &'static str, key: &str) -> Self {
        let key = row.try_get::<String, _>(key).unwrap_or_else(|_| "?".to_owned());
        Self { row, table, key }
    }

    /// Of a table whose key is no text.
    pub(super) fn of(row: &'r SqliteRow, table: &'static str, key: String) -> Self {
        Self { row, table, key }
    }

    pub(super) fn wrong(&self, why: &dyn std::fmt::Display) -> Error {
        Error::Row { table: self.table, key: self.key.clone(), why: why.to_string() }
    }

    pub(super) fn get<'a, T: sqlx::Decode<'a, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>>(
        &'a self,
        column: &'static str,
    ) -> Result<T, Error> {
        self.row.try_get(column).map_err(|error| self.wrong(&error))
    }

    pub(super) fn parse<T: FromStr<Err: std::fmt::Display>>(&self, column: &'static str) -> Result<T, Error> {
        self.get::<&str>(column)?.parse().map_err(|error: T::Err| self.wrong(&format!("{column}: {error}")))
    }

    pub(super) fn parse_some<T: FromStr<Err: std::fmt::Display>>(&self, column: &'static str) -> Result<Option<T>, Error> {
        self.get::<Option<&str>>(column)?.map(str::parse).transpose().map_err(|error: T::Err| self.wrong(&format!("{column}: {error}")))
    }

    pub(super) fn number<T: TryFrom<i64, Error: std::fmt::Display>>(&self, column: &'static str) -> Result<T, Error> {
        self.get::<i64>(column)?.try_into().map_err(|error: T::Error| self.wrong(&format!("{column}: {error}")))
    }

    pub(super) fn moment(&self, column: &'static str) -> Result<Timestamp, Error> {
        self.get(column).map(Timestamp)
    }

    pub(super) fn moment_if_any(&self, column: &'static str) -> Result<Option<Timestamp>, Error> {
        Ok(self.get::<Option<i64>>(column)?.map(Timestamp))
    }

    /// Words with one space between them. What is not understood is an error: a list of addresses that was merely
    /// skipped over would be empty, which means any address.
    pub(super) fn words<T: FromStr<Err: std::fmt::Display>>(&self, column: &'static str) -> Result<Vec<T>, Error> {
        let text: &str = self.get(column)?;
        if text.is_empty() {
            return Ok(Vec::new());
        }
        text.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(|error: T::Err| self.wrong(&format!("{column}: {error}")))
    }

    pub(super) fn bytes(&self, column: &'static str) -> Result<[u8; 32], Error> {
        self.get::<&[u8]>(column)?.try_into().map_err(|_| self.wrong(&format!("{column}: not 32 bytes")))
    }
}

/// A practice.
pub(super) fn practice(row: &SqliteRow) -> Result<Practice, Error> {
    let row = Reading::new(row, "practices", "practice_id");
    Ok(Practice { id: row.parse("practice_id")?, name: row.get::<&str>("name")?.into(), api_access: row.parse("api_access")? })
}

/// A user.
pub(super) fn user(row: &SqliteRow) -> Result<User, Error> {
    let row = Reading::new(row, "users", "user_id");
    let api_access = match row.get::<i64>("api_access")? {
        0 => false,
        1 => true,
        other => return Err(row.wrong(&format!("api_access: `{other}` is neither 0 nor 1"))),
    };
    Ok(User {
        id: row.parse("user_id")?,
        practice_id: row.parse("practice_id")?,
        role: row.parse("role")?,
        api_access,
        left_at: row.moment_if_any("left_at")?,
    })
}

/// A user, with their name and address.
pub(super) fn member(row: &SqliteRow) -> Result<TeamMember, Error> {
    let user = user(row)?;
    let row = Reading::new(row, "people", "user_id");
    let text = |column| Ok::<_, Error>(row.get::<Option<&str>>(column)?.map(Arc::from));
    Ok(TeamMember { user, name: text("name")?, email: text("email")? })
}

/// A client without its secrets.
pub(super) fn client(row: &SqliteRow) -> Result<Client, Error> {
    let row = Reading::new(row, "clients", "client_id");
    let scopes: Vec<ScopeToken> = row.words("scopes")?;
    if scopes.is_empty() {
        return Err(row.wrong(&"scopes: there is none"));
    }
    let keys = ClientKeys::from_either(row.get("jwks")?, row.get("jwks_url")?);
    Ok(Client {
        id: row.parse("client_id")?,
        practice_id: row.parse("practice_id")?,
        owner: row.parse_some("owner")?,
        name: row.get::<&str>("name")?.into(),
        scopes,
        allowed_addresses: row.words::<IpNet>("allowed_addresses")?,
        tier: row.get::<Option<&str>>("tier")?.map(Arc::from),
        created_at: row.moment("created_at")?,
        expires_at: row.moment_if_any("expires_at")?,
        revoked_at: row.moment_if_any("revoked_at")?,
        secrets: Vec::new(),
        keys: keys.ok_or_else(|| row.wrong(&"jwks: there is a jwks_url as well"))?,
    })
}

/// A client without its secrets, and when it was last used.
pub(super) fn client_row(row: &SqliteRow) -> Result<ClientRow, Error> {
    let client = client(row)?;
    let row = Reading::new(row, "secret_uses", "client_id");
    let used = |at| Ok::<_, Error>(LastUse { at, address: row.parse("address")?, generation: row.number("generation")? });
    Ok(ClientRow { client, last_used: row.moment_if_any("last_used_at")?.map(used).transpose()? })
}

/// A secret, and whose it is.
pub(super) fn secret(row: &SqliteRow) -> Result<(ClientId, StoredSecret), Error> {
    let row = Reading::new(row, "client_secrets", "client_id");
    let kind = DigestKind::from_word(row.get("digest_kind")?).ok_or_else(|| row.wrong(&"digest_kind: not a word for one"))?;
    let secret = StoredSecret {
        generation: row.number("generation")?,
        digest: SecretDigest::from_parts(kind, row.bytes("digest")?),
        created_at: row.moment("created_at")?,
        expires_at: row.moment_if_any("expires_at")?,
        ended: row.get("ended")?,
    };
    Ok((row.parse("client_id")?, secret))
}

/// A signing key.
pub(super) fn signing_key(row: &SqliteRow) -> Result<StoredKey, Error> {
    let row = Reading::new(row, "signing_keys", "key_id");
    Ok(StoredKey {
        id: row.parse("key_id")?,
        algorithm: row.parse("algorithm")?,
        sealed: row.get::<&[u8]>("sealed")?.into(),
        created_at: row.moment("created_at")?,
        signs_from: row.moment_if_any("signs_from")?,
        revoked_at: row.moment_if_any("revoked_at")?,
    })
}

/// A token that was revoked: which it is whatever else its row says.
pub(super) fn revoked_token(row: &SqliteRow) -> Result<RevokedToken, Error> {
    let row = Reading::new(row, "revoked_tokens", "token_id");
    Ok(RevokedToken {
        id: row.parse("token_id")?,
        client_id: known(row.parse("client_id"), nobody()),
        expires_at: known(row.moment("expires_at"), NEVER),
        revoked_at: known(row.moment("revoked_at"), Timestamp(0)),
    })
}

/// An audit event.
pub(super) fn event(row: &SqliteRow) -> Result<Event, Error> {
    let id = row.try_get::<i64, _>("id")?;
    let row = Reading::of(row, "audit_events", id.to_string());
    Ok(Event {
        id: u64::try_from(id).map_err(|error| row.wrong(&error))?,
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

/// Words with one space between them, as they are stored.
pub(super) fn join<T: std::fmt::Display>(words: &[T]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
