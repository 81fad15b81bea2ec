//! A page of a table as one value: a row by itself goes from the thread that reads to the one that waits for it, and waking
//! that one costs more than the row.

use std::borrow::Cow;
use std::fmt;

use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Visitor};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::fault::damaged;
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
                let rows: Vec<_> =
                    serde_json::from_str(rows).map_err(|error| damaged(&format!("what SQLite packed is not understood: {error}")))?;
                Ok(rows.into_iter().map(Values::Packed).collect())
            }
            Rows::Apart(rows) => Ok(rows.iter().map(Values::Apart).collect()),
        }
    }
}

/// One row.
pub(super) enum Values<'a> {
    Packed(Vec<Value<'a>>),
    Apart(&'a SqliteRow),
}

/// One value of a row that was packed.
pub(super) enum Value<'a> {
    Null,
    Number(i64),
    /// Of a column for bytes: hexadecimal digits.
    Text(Cow<'a, str>),
    /// No column is for it.
    Odd,
}

fn value<'v, 'a>(values: &'v [Value<'a>], at: usize) -> Result<&'v Value<'a>, String> {
    values.get(at).ok_or_else(|| "no such column".to_owned())
}

impl Row for Values<'_> {
    fn text(&self, at: usize) -> Result<Option<&str>, String> {
        let values = match self {
            Self::Packed(values) => values,
            Self::Apart(row) => return row.text(at),
        };
        match value(values, at)? {
            Value::Null => Ok(None),
            Value::Text(text) => Ok(Some(text)),
            Value::Number(_) | Value::Odd => Err("not a text".to_owned()),
        }
    }

    fn flag(&self, at: usize) -> Result<bool, String> {
        flag(self.number(at)?)
    }

    fn number(&self, at: usize) -> Result<i64, String> {
        let values = match self {
            Self::Packed(values) => values,
            Self::Apart(row) => return row.number(at),
        };
        match value(values, at)? {
            Value::Number(number) => Ok(*number),
            Value::Null | Value::Text(_) | Value::Odd => Err("not a whole number".to_owned()),
        }
    }

    fn moment(&self, at: usize) -> Result<Option<Timestamp>, String> {
        match self {
            Self::Packed(values) if matches!(value(values, at)?, Value::Null) => Ok(None),
            Self::Packed(_) => self.number(at).map(|at| Some(Timestamp(at))),
            Self::Apart(row) => row.moment(at),
        }
    }

    fn bytes(&self, at: usize) -> Result<Cow<'_, [u8]>, String> {
        match self {
            Self::Packed(_) => from_digits(self.text(at)?.ok_or("not bytes")?).map(Cow::Owned),
            Self::Apart(row) => row.bytes(at),
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

#[cfg(test)]
mod tests {
    use sqlx::Connection;

    use super::super::rows::{CLIENT, SECRET, client, secret};
    use super::*;

    /// What may stand where it should not once a page of the file is damaged.
    const ODD: [&str; 15] = [
        "NULL",
        "0",
        "1",
        "-1",
        "1.5",
        "9223372036854775807",
        "''",
        "'1'",
        "'billing'",
        "'a' || char(0) || 'b \u{1f98a}'",
        "'abababababababababababababababab'",
        "'abababababababababababababababababababababababababababababababab'",
        "CAST(x'ff' AS TEXT)",
        "x''",
        "zeroblob(32)",
    ];

    /// Each of the odd values in each of the columns of a row that is fine, by itself in a page.
    async fn read_both_ways<T: PartialEq + fmt::Debug>(
        table: Table,
        fine: &[&str],
        packed: impl Fn(&Values<'_>) -> Result<T, Error>,
        apart: impl Fn(&SqliteRow) -> Result<T, Error>,
    ) {
        let mut conn = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        let (select, mut understood) = (table.to_string(), 0);
        let (columns, name) = select.strip_prefix("SELECT ").unwrap().split_once(" FROM ").unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE TABLE {name} ({columns})"))).execute(&mut conn).await.unwrap();
        for at in 0..fine.len() {
            for odd in ODD.iter().chain(&[fine[at]]) {
                let mut values = fine.to_vec();
                values[at] = odd;
                let put = format!("DELETE FROM {name}; INSERT INTO {name} VALUES ({})", values.join(", "));
                sqlx::raw_sql(AssertSqlSafe(put)).execute(&mut conn).await.unwrap();
                let page = Page::read(&mut conn, &table, "", &[]).await.unwrap();
                let row = sqlx::query(AssertSqlSafe(select.clone())).fetch_one(&mut conn).await.unwrap();
                let (is, by_itself) = (packed(&page.rows().unwrap()[0]).ok(), apart(&row).ok());
                assert_eq!(is, by_itself, "{values:?}");
                understood += usize::from(is.is_some());
            }
        }
        assert!(understood > fine.len(), "{understood}");
    }

    #[tokio::test]
    async fn a_row_says_the_same_however_its_page_is_read() {
        let id = "'smd_00000000000000000000'";
        read_both_ways(SECRET, &[id, "1", "'sha256'", "randomblob(32)", "1", "NULL", "0"], |row| secret(row), secret).await;
        let fine = [id, "'p'", "NULL", "'name'", "'billing tasks'", "'192.0.2.0/24'", "NULL", "1", "NULL", "NULL", "NULL", "NULL"];
        read_both_ways(CLIENT, &fine, |row| client(row), client).await;
    }
}
