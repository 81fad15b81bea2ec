//! A page of a table as one value: a row by itself goes from the thread that reads to the one that waits for it, and waking
//! that one costs more than the row.

use std::borrow::Cow;
use std::fmt;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Visitor};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::fault::unusable;
use super::rows::{Table, flag, words};
use crate::clock::Timestamp;
use crate::store::Error;
use crate::store::rows::{Row, as_text, from_digits};

/// Some rows of a table, in the order that was asked for.
pub(super) struct Page {
    rows: Rows,
    /// The key of the last one, if there is one and it is a text.
    pub(super) last: Option<String>,
}

enum Rows {
    /// An array of arrays in JSON (RFC 8259).
    Packed(String),
    /// Each by itself.
    Apart(Vec<SqliteRow>),
}

impl Page {
    /// Reads the rows of a table for which `which` holds, where the texts stand for `?1`, `?2` and so on. They come in the order
    /// of their keys.
    pub(super) async fn read(conn: &mut SqliteConnection, table: &Table, which: &str, texts: &[&str]) -> Result<Self, Error> {
        let (columns, key) = (table.packed(), table.key());
        let packed = AssertSqlSafe(format!("SELECT json_group_array(json_array({columns})), max({key}) FROM ({table} {which})"));
        let packed = texts.iter().fold(sqlx::query_as(packed), |query, text| query.bind(*text));
        if let Ok((rows, last)) = packed.fetch_one(&mut *conn).await {
            return Ok(Self { rows: Rows::Packed(rows), last });
        }
        // One value that is not what its column is for, or no UTF-8, keeps them all from being packed. Another fault shows again.
        let apart = AssertSqlSafe(format!("{table} {which}"));
        let apart = texts.iter().fold(sqlx::query(apart), |query, text| query.bind(*text));
        let rows = apart.fetch_all(conn).await?;
        let last = rows.last().and_then(|row| row.try_get(0).ok());
        Ok(Self { rows: Rows::Apart(rows), last })
    }

    pub(super) fn rows(&self) -> Result<Vec<Values<'_>>, Error> {
        match &self.rows {
            Rows::Packed(rows) => {
                serde_json::from_str(rows).map_err(|error| unusable(format!("what SQLite packed is not understood: {error}")))
            }
            Rows::Apart(rows) => Ok(rows.iter().map(Values::of).collect()),
        }
    }
}

/// One row.
#[derive(serde::Deserialize)]
pub(super) struct Values<'a>(#[serde(borrow)] Vec<Value<'a>>);

enum Value<'a> {
    Null,
    Number(i64),
    /// Of a column for bytes: hexadecimal digits, when packed.
    Text(Cow<'a, str>),
    Bytes(&'a [u8]),
    /// No column is for it.
    Odd,
}

impl<'a> Values<'a> {
    fn of(row: &'a SqliteRow) -> Self {
        let value = |at| {
            if let Ok(number) = row.try_get::<Option<i64>, _>(at) {
                return number.map_or(Value::Null, Value::Number);
            }
            match row.try_get::<&str, _>(at) {
                Ok(text) => Value::Text(text.into()),
                Err(_) => row.try_get(at).map_or(Value::Odd, Value::Bytes),
            }
        };
        Self((0..row.len()).map(value).collect())
    }

    fn at(&self, at: usize) -> Result<&Value<'a>, String> {
        self.0.get(at).ok_or_else(|| "no such column".to_owned())
    }
}

impl Row for Values<'_> {
    fn text(&self, at: usize) -> Result<Option<&str>, String> {
        match self.at(at)? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            _ => Err("not a text".to_owned()),
        }
    }

    fn flag(&self, at: usize) -> Result<bool, String> {
        flag(self.number(at)?)
    }

    fn number(&self, at: usize) -> Result<i64, String> {
        match self.at(at)? {
            Value::Number(number) => Ok(*number),
            _ => Err("not a whole number".to_owned()),
        }
    }

    fn moment(&self, at: usize) -> Result<Option<Timestamp>, String> {
        match self.at(at)? {
            Value::Null => Ok(None),
            _ => self.number(at).map(|at| Some(Timestamp(at))),
        }
    }

    fn bytes(&self, at: usize) -> Result<Cow<'_, [u8]>, String> {
        match self.at(at)? {
            Value::Text(digits) => Ok(Cow::Owned(from_digits(digits)?)),
            Value::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            _ => Err("not bytes".to_owned()),
        }
    }

    fn texts<T>(&self, at: usize, each: impl FnMut(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        words(self.text(at)?, each)
    }

    fn networks(&self, at: usize) -> Result<Vec<IpNet>, String> {
        self.texts(at, |network| network.parse().map_err(as_text))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Value<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(AsItIs)
    }
}

struct AsItIs;

impl<'de> Visitor<'de> for AsItIs {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of SQLite's")
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(i64::try_from(number).map_or(Value::Odd, Value::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value<'de>, E> {
        Ok(Value::Odd)
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(Value::Text(text.to_owned().into()))
    }
}
