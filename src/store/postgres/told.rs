//! Changed rows as one statement tells of them, in JSON: one question and one view, whatever has changed.

use std::str::FromStr;
use std::sync::Arc;

use serde::Deserialize;

use crate::clock::Timestamp;
use crate::credential::{DigestKind, SecretDigest};
use crate::entity::{Client, ClientKeys, Practice, RevokedToken, StoredKey, StoredSecret, User};
use crate::id::{ClientId, KeyId, PracticeId, TokenId, UserId};
use crate::store::rows::from_digits;
use crate::store::unclear::{NEVER, known, nobody};
use crate::store::{Change, Error, Subject};

/// What stands for more rows than are worth naming.
const EVERYTHING: &str = "*";

macro_rules! moment {
    ($column:literal) => {
        concat!("floor(extract(epoch FROM ", $column, ") * 1000)::bigint")
    };
}

/// The newest change, after which one the log begins, the history, how old the oldest change is in seconds, and what changed after `$1`, each row once, as it is
/// now; no rows if there are more than `$2`, or too many to name. All of it as of one moment.
pub(super) const CHANGED: &str = concat!(
    "WITH log AS MATERIALIZED (
         SELECT DISTINCT kind, key FROM gateway.change_rows JOIN gateway.change_txns USING (xid) WHERE seq > $1 LIMIT $2 + 1)
     SELECT gateway.head(), (SELECT seq FROM gateway.change_floor), gateway.history(),
         (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(at)), 0)::float8 FROM gateway.change_txns WHERE seq > $1),
         CASE WHEN (SELECT count(*) FROM log) <= $2 AND NOT EXISTS (SELECT FROM log WHERE key = '*') THEN (
             SELECT coalesce(json_agg(json_build_object('kind', kind, 'key', key, 'fenced', EXISTS (
                 SELECT FROM gateway.fences AS f
                 WHERE f.kind = log.kind AND f.key = log.key AND NOT pg_visible_in_snapshot(f.xid, pg_current_snapshot())), 'row', CASE kind
                 WHEN 'practice' THEN (
                     SELECT json_build_object('name', name, 'api_access', api_access) FROM gateway.practices WHERE practice_id = key)
                 WHEN 'user' THEN (
                     SELECT json_build_object('practice_id', practice_id, 'role', role, 'api_access', api_access, 'left_at', ",
    moment!("left_at"),
    ") FROM gateway.users WHERE user_id = key)
                 WHEN 'key' THEN (
                     SELECT json_build_object('algorithm', algorithm, 'sealed', encode(sealed, 'hex'), 'created_at', ",
    moment!("created_at"),
    ", 'signs_from', ",
    moment!("signs_from"),
    ", 'revoked_at', ",
    moment!("revoked_at"),
    ") FROM gateway.signing_keys WHERE key_id = key)
                 WHEN 'token' THEN (
                     SELECT json_build_object('client_id', client_id, 'expires_at', ",
    moment!("expires_at"),
    ", 'revoked_at', ",
    moment!("revoked_at"),
    ") FROM gateway.revoked_tokens WHERE token_id = key)
                 WHEN 'client' THEN (
                     SELECT json_build_object('practice_id', practice_id, 'owner', owner, 'name', name, 'scopes', scopes,
                         'allowed_addresses', allowed_addresses::text[], 'tier', tier, 'created_at', ",
    moment!("created_at"),
    ", 'expires_at', ",
    moment!("expires_at"),
    ", 'revoked_at', ",
    moment!("revoked_at"),
    ", 'jwks', jwks, 'jwks_url', jwks_url, 'secrets', (
                             SELECT coalesce(json_agg(json_build_object('generation', generation, 'digest_kind', digest_kind,
                                 'digest', encode(digest, 'hex'), 'created_at', ",
    moment!("s.created_at"),
    ", 'expires_at', ",
    moment!("s.expires_at"),
    ", 'ended', ended) ORDER BY generation DESC), '[]') FROM gateway.client_secrets AS s WHERE s.client_id = key))
                     FROM gateway.clients WHERE client_id = key)
                 END)), '[]')::text FROM log)
         END"
);

/// One row, or that it is gone.
#[derive(Deserialize)]
struct Told {
    kind: String,
    key: String,
    /// A transaction that cannot be seen yet is about to take access from it.
    fenced: bool,
    row: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct PracticeRow {
    name: Arc<str>,
    api_access: String,
}

#[derive(Deserialize)]
struct UserRow {
    practice_id: String,
    role: String,
    api_access: bool,
    left_at: Option<i64>,
}

#[derive(Deserialize)]
struct ClientRow {
    practice_id: String,
    owner: Option<String>,
    name: Arc<str>,
    scopes: Vec<String>,
    allowed_addresses: Vec<String>,
    tier: Option<Arc<str>>,
    created_at: i64,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    jwks: Option<String>,
    jwks_url: Option<String>,
    secrets: Vec<SecretRow>,
}

#[derive(Deserialize)]
struct KeyRow {
    algorithm: String,
    sealed: String,
    created_at: i64,
    signs_from: Option<i64>,
    revoked_at: Option<i64>,
}

#[derive(Deserialize)]
struct SecretRow {
    generation: u32,
    digest_kind: String,
    digest: String,
    created_at: i64,
    expires_at: Option<i64>,
    ended: bool,
}

/// The changes in the answer to [`CHANGED`].
pub(super) fn changes(json: &str) -> Result<Vec<Change>, Error> {
    let told: Vec<Told> = serde_json::from_str(json).map_err(|error| Error::Row {
        table: "change_rows",
        key: EVERYTHING.to_owned(),
        why: error.to_string(),
    })?;
    Ok(told.into_iter().filter_map(change).flat_map(|(change, fence)| [Some(change), fence]).flatten().collect())
}

/// What became of one row. One that is not understood is as good as absent: whatever it says, nothing is admitted by it.
/// And what has no valid id was never taken in, so there is nothing to take out.
fn change(told: Told) -> Option<(Change, Option<Change>)> {
    let Told { kind, key, fenced, row } = told;
    let unclear = |why: String| tracing::error!(kind, key, why, "a row is left out; nothing is admitted by it");
    // Of these two nothing is ever fenced.
    match kind.as_str() {
        "key" => {
            let id: KeyId = parse(&key).map_err(unclear).ok()?;
            let signing_key = row.and_then(|row| signing_key(&id, row).map_err(unclear).ok());
            return Some((Change::SigningKey(id, signing_key), None));
        }
        "token" => {
            let id: TokenId = parse(&key).map_err(unclear).ok()?;
            return Some((Change::RevokedToken(id, row.map(|row| revoked_token(id, &row))), None));
        }
        _ => {}
    }
    let subject = subject(&kind, &key)?;
    let change = match subject.clone() {
        Subject::Practice(id) => {
            let practice = row.and_then(|row| practice(&id, row).map_err(unclear).ok());
            Change::Practice(id, practice)
        }
        Subject::User(id) => {
            let user = row.and_then(|row| user(&id, row).map_err(unclear).ok());
            Change::User(id, user)
        }
        Subject::Client(id) => {
            let client = row.and_then(|row| client(id, row).map_err(unclear).ok());
            Change::Client(id, client)
        }
    };
    Some((change, fenced.then_some(Change::Fenced(subject))))
}

/// What a kind and a key in the log name.
pub(super) fn subject(kind: &str, key: &str) -> Option<Subject> {
    let subject = match kind {
        "practice" => parse(key).map(Subject::Practice),
        "user" => parse(key).map(Subject::User),
        "client" => parse(key).map(Subject::Client),
        _ => Err("this program does not know the kind".to_owned()),
    };
    subject.map_err(|why| tracing::error!(kind, key, why, "a row is left out; nothing is admitted by it")).ok()
}

fn practice(id: &PracticeId, row: serde_json::Value) -> Result<Practice, String> {
    let row: PracticeRow = read(row)?;
    Ok(Practice { id: id.clone(), name: row.name, api_access: parse(&row.api_access)? })
}

fn user(id: &UserId, row: serde_json::Value) -> Result<User, String> {
    let row: UserRow = read(row)?;
    Ok(User {
        id: id.clone(),
        practice_id: parse(&row.practice_id)?,
        role: parse(&row.role)?,
        api_access: row.api_access,
        left_at: row.left_at.map(Timestamp),
    })
}

fn client(id: ClientId, row: serde_json::Value) -> Result<Client, String> {
    let row: ClientRow = read(row)?;
    if row.scopes.is_empty() {
        return Err("it has no scope".to_owned());
    }
    Ok(Client {
        id,
        practice_id: parse(&row.practice_id)?,
        owner: row.owner.as_deref().map(parse).transpose()?,
        name: row.name,
        scopes: row.scopes.iter().map(|scope| parse(scope)).collect::<Result<_, _>>()?,
        allowed_addresses: row.allowed_addresses.iter().map(|network| parse(network)).collect::<Result<_, _>>()?,
        tier: row.tier,
        created_at: Timestamp(row.created_at),
        expires_at: row.expires_at.map(Timestamp),
        revoked_at: row.revoked_at.map(Timestamp),
        secrets: row.secrets.iter().map(secret).collect::<Result<_, _>>()?,
        keys: ClientKeys::from_either(row.jwks.as_deref(), row.jwks_url.as_deref()).ok_or("it has keys in two places")?,
    })
}

fn signing_key(id: &KeyId, row: serde_json::Value) -> Result<StoredKey, String> {
    let row: KeyRow = read(row)?;
    Ok(StoredKey {
        id: id.clone(),
        algorithm: parse(&row.algorithm)?,
        sealed: from_digits(&row.sealed)?.into(),
        created_at: Timestamp(row.created_at),
        signs_from: row.signs_from.map(Timestamp),
        revoked_at: row.revoked_at.map(Timestamp),
    })
}

/// It is revoked whatever else its row says.
fn revoked_token(id: TokenId, row: &serde_json::Value) -> RevokedToken {
    let moment = |name: &str| row[name].as_i64().map(Timestamp).ok_or_else(|| format!("{name}: there is none"));
    RevokedToken {
        id,
        client_id: known(parse(row["client_id"].as_str().unwrap_or_default()), nobody()),
        expires_at: known(moment("expires_at"), NEVER),
        revoked_at: known(moment("revoked_at"), Timestamp(0)),
    }
}

fn secret(row: &SecretRow) -> Result<StoredSecret, String> {
    let kind = DigestKind::from_word(&row.digest_kind).ok_or_else(|| format!("`{}` is no kind of digest", row.digest_kind))?;
    let digest = from_digits(&row.digest)?.try_into().map_err(|_| "a digest is not 32 bytes")?;
    Ok(StoredSecret {
        generation: row.generation,
        digest: SecretDigest::from_parts(kind, digest),
        created_at: Timestamp(row.created_at),
        expires_at: row.expires_at.map(Timestamp),
        ended: row.ended,
    })
}

fn read<T: serde::de::DeserializeOwned>(row: serde_json::Value) -> Result<T, String> {
    serde_json::from_value(row).map_err(|error| error.to_string())
}

fn parse<T: FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}
