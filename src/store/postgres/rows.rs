//! What is selected, and how its values are read.

use std::borrow::Cow;

use ipnet::IpNet;
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use time::OffsetDateTime;

use crate::clock::Timestamp;
pub(super) use crate::store::rows::Row;
use crate::store::rows::as_text;
pub(super) use crate::store::rows::{
    Reading, client, client_row, denial, event, mail, member, practice, revoked_token, secret, signing_key, usage_row, user,
};

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

    fn bytes(&self, at: usize) -> Result<Cow<'_, [u8]>, String> {
        self.try_get(at).map(Cow::Borrowed).map_err(as_text)
    }

    fn texts<T>(&self, at: usize, mut each: impl FnMut(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        let texts: Vec<String> = self.try_get(at).map_err(as_text)?;
        texts.iter().map(|text| each(text)).collect()
    }

    fn networks(&self, at: usize) -> Result<Vec<IpNet>, String> {
        self.try_get(at).map_err(as_text)
    }
}
