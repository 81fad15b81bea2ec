//! A page of a table as one value: a row by itself goes from the thread that reads to the one that waits for it, and waking
//! that one costs more than the row.

use std::borrow::Cow;
use std::fmt;

use ipnet::IpNet;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Row as _};

use super::fault::damaged;
use super::rows::{Table, flag, words};
use crate::clock::Timestamp;
use crate::store::Error;
use crate::store::rows::{Row, as_text, from_digits};

/// Some rows of a table, in the order that was asked for, and those of another one that belong to them.
pub(super) struct Page {
    pub(super) rows: Rows,
    pub(super) others: Rows,
    /// The key of the last one, if there is one and it is a text.
    pub(super) last: Option<String>,
}

pub(super) enum Rows {
    /// An array of arrays in JSON (RFC 8259).
    Packed(String),
    /// Each by itself.
    Apart(Vec<SqliteRow>),
}

impl Page {
    /// Reads the rows of a table for which `which` holds, where `after` stands for `?1`, in the order of their keys; and of the other
    /// table, if there is one, those with a key beyond `after` that is none beyond the last of these, in the order of their first two
    /// columns. In one statement: while it is carried out in another thread, nothing has to be asked anew.
    pub(super) async fn read(
        conn: &mut SqliteConnection,
        table: &Table,
        other: Option<&Table>,
        which: &str,
        after: &str,
    ) -> Result<Self, Error> {
        let key = table.key();
        let rows = |table: &Table, from: &str| format!("(SELECT json_group_array(json_array({})) FROM {from})", table.packed());
        let of_these = |last: &str| format!("WHERE {key} > ?1 AND {key} <= {last} ORDER BY 1, 2");
        let others = other.map(|other| rows(other, &format!("({other} {})", of_these(&format!("(SELECT max({key}) FROM these)")))));
        let packed = format!(
            "WITH these AS MATERIALIZED ({table} {which}) SELECT {}, (SELECT max({key}) FROM these), {}",
            rows(table, "these"),
            others.as_deref().unwrap_or("'[]'")
        );
        let packed = sqlx::query_as(AssertSqlSafe(packed)).bind(after).fetch_one(&mut *conn).await;
        if let Ok((rows, last, others)) = packed {
            return Ok(Self { rows: Rows::Packed(rows), others: Rows::Packed(others), last });
        }
        // One value that is not what its column is for, or no UTF-8, keeps them all from being packed. Another fault shows again.
        let rows = sqlx::query(AssertSqlSafe(format!("{table} {which}"))).bind(after).fetch_all(&mut *conn).await?;
        let last: Option<String> = rows.last().and_then(|row| row.try_get(0).ok());
        let others = if let (Some(other), Some(last)) = (other, &last) {
            sqlx::query(AssertSqlSafe(format!("{other} {}", of_these("?2")))).bind(after).bind(last).fetch_all(conn).await?
        } else {
            Vec::new()
        };
        Ok(Self { rows: Rows::Apart(rows), others: Rows::Apart(others), last })
    }
}

impl Rows {
    /// Reads what was packed.
    pub(super) fn open(&self) -> Result<Open<'_>, Error> {
        match self {
            Self::Packed(rows) => {
                let opened = serde_json::from_str(rows);
                Ok(Open::Packed(opened.map_err(|error| damaged(&format!("what SQLite packed is not understood: {error}")))?))
            }
            Self::Apart(rows) => Ok(Open::Apart(rows)),
        }
    }
}

/// Rows whose values can be told apart.
pub(super) enum Open<'a> {
    Packed(Packed<'a>),
    Apart(&'a [SqliteRow]),
}

impl Open<'_> {
    pub(super) fn rows(&self) -> Vec<Values<'_>> {
        match self {
            Self::Packed(packed) => packed.rows().map(Values::Packed).collect(),
            Self::Apart(rows) => rows.iter().map(Values::Apart).collect(),
        }
    }
}

/// The values of some rows, one behind the other: a vector for each row would be allocated for each client at a start.
#[derive(Default)]
pub(super) struct Packed<'a> {
    values: Vec<Value<'a>>,
    /// Where each row ends.
    ends: Vec<usize>,
}

impl<'a> Packed<'a> {
    fn rows(&self) -> impl Iterator<Item = &[Value<'a>]> {
        let begins = std::iter::once(&0).chain(&self.ends);
        begins.zip(&self.ends).map(|(begin, end)| &self.values[*begin..*end])
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Packed<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_seq(AllRows(Packed::default()))
    }
}

struct AllRows<'a>(Packed<'a>);

impl<'de: 'a, 'a> Visitor<'de> for AllRows<'a> {
    type Value = Packed<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut rows: A) -> Result<Packed<'a>, A::Error> {
        while rows.next_element_seed(OneRow(&mut self.0.values))?.is_some() {
            self.0.ends.push(self.0.values.len());
        }
        Ok(self.0)
    }
}

/// Puts the values of a row behind those that are there.
struct OneRow<'v, 'a>(&'v mut Vec<Value<'a>>);

impl<'de: 'a, 'a> DeserializeSeed<'de> for OneRow<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de: 'a, 'a> Visitor<'de> for OneRow<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a row")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        while let Some(value) = values.next_element()? {
            self.0.push(value);
        }
        Ok(())
    }
}

/// One row.
pub(super) enum Values<'a> {
    Packed(&'a [Value<'a>]),
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
                let page = Page::read(&mut conn, &table, None, "WHERE ?1 = ''", "").await.unwrap();
                let row = sqlx::query(AssertSqlSafe(select.clone())).fetch_one(&mut conn).await.unwrap();
                let (is, by_itself) = (packed(&page.rows.open().unwrap().rows()[0]).ok(), apart(&row).ok());
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
