//! What is selected, and how its values are read.

use std::borrow::Cow;
use std::fmt::{self, Display};

use ipnet::IpNet;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, TypeInfo as _, ValueRef as _};

use crate::clock::Timestamp;
use crate::store::rows::{Row, as_text};
pub(super) use crate::store::rows::{
    client, client_row, denial, event, mail, member, practice, revoked_token, secret, signing_key, usage_row, user,
};

pub(super) const PRACTICE: Table = Table::new("practices", "practice_id, name, api_access", "");
pub(super) const USER: Table = Table::new("users", "user_id, practice_id, role, api_access, left_at", "");
pub(super) const MEMBER: &str =
    "SELECT user_id, practice_id, role, api_access, left_at, people.name, email FROM users LEFT JOIN people USING (user_id)";
pub(super) const CLIENT: Table = Table::new(
    "clients",
    "client_id, practice_id, owner, name, scopes, allowed_addresses, tier, created_at, expires_at, revoked_at, jwks, jwks_url",
    "",
);
/// With when it was last used.
pub(super) const CLIENT_ROW: &str =
    "SELECT clients.client_id, practice_id, owner, name, scopes, allowed_addresses, tier, created_at, expires_at, revoked_at,
            jwks, jwks_url, last_used_at, address, generation
     FROM clients LEFT JOIN secret_uses ON secret_uses.client_id = clients.client_id AND secret_uses.generation = (
         SELECT generation FROM secret_uses AS used WHERE used.client_id = clients.client_id ORDER BY last_used_at DESC LIMIT 1)";
pub(super) const SECRET: Table =
    Table::new("client_secrets", "client_id, generation, digest_kind, digest, created_at, expires_at, ended", "digest");
pub(super) const SIGNING_KEY: Table = Table::new("signing_keys", "key_id, algorithm, sealed, created_at, signs_from, revoked_at", "sealed");
pub(super) const REVOKED_TOKEN: Table = Table::new("revoked_tokens", "token_id, client_id, expires_at, revoked_at", "");
pub(super) const EVENT: &str =
    "SELECT target, id, at, practice_id, actor, origin, action, before, after, prev_hash, hash FROM audit_events";

/// A table and what is read of it, its key first. As text: all that is read of all of its rows.
#[derive(Clone, Copy)]
pub(super) struct Table {
    name: &'static str,
    columns: &'static str,
    /// The column that has bytes in it, if any.
    bytes: &'static str,
}

impl Table {
    const fn new(name: &'static str, columns: &'static str, bytes: &'static str) -> Self {
        Self { name, columns, bytes }
    }

    fn each(&self) -> impl Iterator<Item = &'static str> {
        self.columns.split(", ")
    }

    pub(super) fn key(&self) -> &'static str {
        self.each().next().unwrap_or_default()
    }

    /// The columns as JSON can hold them: bytes as hexadecimal digits, and none where something else stands in their place.
    pub(super) fn packed(&self) -> String {
        let digits = |column| format!("CASE typeof({column}) WHEN 'blob' THEN hex({column}) END");
        let each = self.each().map(|column| if column == self.bytes { digits(column) } else { column.to_owned() });
        each.collect::<Vec<_>>().join(", ")
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SELECT {} FROM {}", self.columns, self.name)
    }
}

impl Row for SqliteRow {
    fn text(&self, at: usize) -> Result<Option<&str>, String> {
        self.try_get(at).map_err(as_text)
    }

    fn flag(&self, at: usize) -> Result<bool, String> {
        flag(self.number(at)?)
    }

    fn number(&self, at: usize) -> Result<i64, String> {
        // Asked for a number, sqlx takes NULL for 0.
        self.try_get::<Option<i64>, _>(at).map_err(as_text)?.ok_or_else(|| "there is none".to_owned())
    }

    fn moment(&self, at: usize) -> Result<Option<Timestamp>, String> {
        self.try_get(at).map(|at: Option<i64>| at.map(Timestamp)).map_err(as_text)
    }

    fn bytes(&self, at: usize) -> Result<Cow<'_, [u8]>, String> {
        // A text can be had as bytes too.
        if self.try_get_raw(at).map_err(as_text)?.type_info().name() != "BLOB" {
            return Err("not bytes".to_owned());
        }
        self.try_get(at).map(Cow::Borrowed).map_err(as_text)
    }

    fn texts<T>(&self, at: usize, each: impl FnMut(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        words(self.text(at)?, each)
    }

    fn networks(&self, at: usize) -> Result<Vec<IpNet>, String> {
        self.texts(at, |network| network.parse().map_err(as_text))
    }
}

/// As the tables have it.
pub(super) fn flag(number: i64) -> Result<bool, String> {
    match number {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(format!("`{other}` is neither 0 nor 1")),
    }
}

/// Words with one space between them. What is not understood is an error: a list of addresses that was merely skipped
/// over would be empty, which means any address.
pub(super) fn words<T>(text: Option<&str>, each: impl FnMut(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
    let text = text.ok_or("there is none")?;
    if text.is_empty() { Ok(Vec::new()) } else { text.split(' ').map(each).collect() }
}

/// Words with one space between them, as they are stored.
pub(super) fn join<T: Display>(words: &[T]) -> String {
    words.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
