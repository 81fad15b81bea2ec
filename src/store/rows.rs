//! From rows to practices, users, clients, keys and tokens, and what is remembered of them; nowhere else. Each backend selects
//! the same columns in the same order.

use std::borrow::Cow;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Error;
use super::audit::{Event, Hash};
use super::records::{ClientRow, DenialRow, LastUse, OutboxMail, Recipient, TeamMember, UsageRow};
use super::unclear::{NEVER, known, nobody};
use crate::clock::{Day, Timestamp};
use crate::credential::{DigestKind, SecretDigest};
use crate::entity::{Client, ClientKeys, Practice, RevokedToken, StoredKey, StoredSecret, User};
use crate::id::{ClientId, Revision, UserId};

/// A row, however it came. Columns are named by their place in what is selected; an error says what is wrong with one.
pub(super) trait Row {
    fn text(&self, at: usize) -> Result<Option<&str>, String>;
    fn flag(&self, at: usize) -> Result<bool, String>;
    fn number(&self, at: usize) -> Result<i64, String>;
    /// In whole milliseconds, rounded down: an end is never later than it says.
    fn moment(&self, at: usize) -> Result<Option<Timestamp>, String>;
    fn bytes(&self, at: usize) -> Result<Cow<'_, [u8]>, String>;
    fn texts<T>(&self, at: usize, each: impl FnMut(&str) -> Result<T, String>) -> Result<Vec<T>, String>;
    fn networks(&self, at: usize) -> Result<Vec<IpNet>, String>;
}

pub(super) fn as_text(error: impl Display) -> String {
    error.to_string()
}

/// From hexadecimal digits.
pub(super) fn from_digits(digits: &str) -> Result<Vec<u8>, String> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |two: &[u8]| u8::try_from(digit(*two.first()?)? << 4 | digit(*two.get(1)?)?).ok();
    digits.as_bytes().chunks(2).map(byte).collect::<Option<_>>().ok_or_else(|| "bytes are not written as hexadecimal digits".to_owned())
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

    pub(super) fn number<T: TryFrom<i64, Error: Display>>(&self, (at, name): Column) -> Result<T, Error> {
        self.read(name, |row| row.number(at)?.try_into().map_err(as_text))
    }

    pub(super) fn some_moment(&self, (at, name): Column) -> Result<Option<Timestamp>, Error> {
        self.read(name, |row| row.moment(at))
    }

    pub(super) fn moment(&self, column: Column) -> Result<Timestamp, Error> {
        self.read(column.1, |row| row.moment(column.0)?.ok_or_else(|| "there is none".to_owned()))
    }

    pub(super) fn digest(&self, (at, name): Column) -> Result<[u8; 32], Error> {
        self.read(name, |row| row.bytes(at)?.as_ref().try_into().map_err(|_| "not 32 bytes".to_owned()))
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
pub(super) fn member(row: &impl Row) -> Result<TeamMember, Error> {
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
pub(super) fn client_row(row: &impl Row) -> Result<ClientRow, Error> {
    let client = client(row)?;
    let row = Reading { row, table: "secret_uses" };
    let used = |at| Ok::<_, Error>(LastUse { at, address: row.parse((13, "address"))?, generation: row.number((14, "generation"))? });
    Ok(ClientRow { client, last_used: row.some_moment((12, "last_used_at"))?.map(used).transpose()? })
}

/// A secret, and whose it is.
pub(super) fn secret(row: &impl Row) -> Result<(ClientId, StoredSecret), Error> {
    let row = Reading { row, table: "client_secrets" };
    let kind = row.text((2, "digest_kind"))?;
    let kind = DigestKind::from_word(kind).ok_or_else(|| row.wrong(&"digest_kind: not a word for one"))?;
    let secret = StoredSecret {
        generation: row.number((1, "generation"))?,
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
pub(super) fn event(row: &impl Row) -> Result<Event, Error> {
    let row = Reading { row, table: "audit_events" };
    Ok(Event {
        id: row.number((1, "id"))?,
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

/// A refusal.
pub(super) fn denial(row: &impl Row) -> Result<DenialRow, Error> {
    let row = Reading { row, table: "denials" };
    Ok(DenialRow {
        request_id: row.text((0, "request_id"))?.into(),
        at: row.moment((1, "at"))?,
        practice: row.parse((2, "practice_id"))?,
        client: row.parse_some((3, "client_id"))?,
        user: row.parse_some((4, "user_id"))?,
        owner: row.parse_some((5, "owner"))?,
        route: row.text((6, "route"))?.into(),
        method: row.text((7, "method"))?.into(),
        path: row.text((8, "path"))?.into(),
        reason: row.text((9, "reason"))?.into(),
        status: row.number((10, "status"))?,
        address: row.parse((11, "address"))?,
        revision: Revision(row.number((12, "revision"))?),
    })
}

/// What a client did on a day.
pub(super) fn usage_row(row: &impl Row) -> Result<UsageRow, Error> {
    let row = Reading { row, table: "usage_daily" };
    let scope = row.text((2, "scope"))?;
    Ok(UsageRow {
        day: Day(row.number((1, "day"))?),
        client: row.parse((0, "client_id"))?,
        scope: if scope.is_empty() { None } else { Some(row.parse((2, "scope"))?) },
        requests: row.number((3, "requests"))?,
        refused: row.number((4, "refused"))?,
    })
}

/// A mail, or the id of one that nobody is there to get.
pub(super) fn mail(row: &impl Row) -> Result<Result<OutboxMail, i64>, Error> {
    let row = Reading { row, table: "email_outbox" };
    let id = row.parse((0, "id"))?;
    let recipient = match (row.parse_some::<UserId>((6, "recipient_user"))?, row.some_text((8, "email"))?) {
        (None, _) => Recipient::Operators,
        (Some(user), Some(email)) => Recipient::Person { user, name: row.some_text((7, "name"))?.map(Into::into), email: email.into() },
        (Some(_), None) => return Ok(Err(id)),
    };
    let Some(practice_name) = row.some_text((3, "name"))? else { return Ok(Err(id)) };
    let client = row.parse_some((4, "client_id"))?.zip(row.some_text((5, "name"))?.map(Into::into));
    Ok(Ok(OutboxMail {
        id,
        kind: row.parse((1, "kind"))?,
        practice_id: row.parse((2, "practice_id"))?,
        practice_name: practice_name.into(),
        client,
        recipient,
        created_at: row.moment((9, "created_at"))?,
        attempts: row.number((10, "attempts"))?,
        details: row.parse((11, "details"))?,
    }))
}
