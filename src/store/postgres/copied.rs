//! Rows as `COPY … TO STDOUT (FORMAT binary)` sends them: a million of them at a fraction of what a query would cost.
//!
//! The format is that of <https://www.postgresql.org/docs/current/sql-copy.html>, "Binary Format"; a field is what the
//! `send` function of its type makes of it.

use std::borrow::Cow;
use std::net::{Ipv4Addr, Ipv6Addr};

use futures_util::TryStreamExt;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sqlx::PgConnection;

use super::fault::unusable;
use crate::clock::Timestamp;
use crate::store::Error;
use crate::store::rows::Row;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// More columns than any list has.
const COLUMNS: usize = 16;
/// From 1970 to 2000, from where the database counts, in microseconds.
const TO_2000: i64 = 946_684_800_000_000;

/// Reads what a `SELECT` finds, row by row.
pub(super) async fn copy(conn: &mut PgConnection, select: &str, mut each: impl FnMut(&Copied<'_>)) -> Result<(), Error> {
    let mut sent = conn.copy_out_raw(&format!("COPY ({select}) TO STDOUT (FORMAT binary)")).await?;
    let (mut place, mut rest) = (Place::Header, Vec::new());
    while let Some(message) = sent.try_next().await? {
        if rest.is_empty() {
            // A message is a row, mostly, but nothing promises that.
            rest.extend_from_slice(place.through(&message, &mut each)?);
        } else {
            rest.extend_from_slice(&message);
            rest = place.through(&rest, &mut each)?.to_vec();
        }
    }
    if matches!(place, Place::End) { Ok(()) } else { Err(broken("it ends early")) }
}

/// What comes next.
enum Place {
    Header,
    Row,
    End,
}

impl Place {
    /// Reads as much as is whole; gives what is left.
    fn through<'a>(&mut self, mut bytes: &'a [u8], each: &mut impl FnMut(&Copied<'_>)) -> Result<&'a [u8], Error> {
        while let Some(left) = self.step(bytes, each)? {
            bytes = left;
        }
        Ok(bytes)
    }

    /// Reads one thing; `None`: it is not all there yet.
    fn step<'a>(&mut self, bytes: &'a [u8], each: &mut impl FnMut(&Copied<'_>)) -> Result<Option<&'a [u8]>, Error> {
        match self {
            Self::Header => {
                let Some((signature, rest)) = bytes.split_at_checked(SIGNATURE.len()) else { return Ok(None) };
                if signature != SIGNATURE {
                    return Err(broken("it does not begin as it should"));
                }
                // Flags, of which none is known, and an extension, of which there is none yet.
                let Some((flags, rest)) = number(rest) else { return Ok(None) };
                let Some((extension, rest)) = field(rest)? else { return Ok(None) };
                if flags != 0 || extension.is_none() {
                    return Err(broken("its header is not understood"));
                }
                *self = Self::Row;
                Ok(Some(rest))
            }
            Self::Row => {
                let Some((count, mut rest)) = bytes.split_first_chunk() else { return Ok(None) };
                let count = i16::from_be_bytes(*count);
                if count == -1 {
                    *self = Self::End;
                    return Ok(Some(rest));
                }
                let mut fields = [None; COLUMNS];
                let count =
                    usize::try_from(count).ok().filter(|count| *count <= COLUMNS).ok_or_else(|| broken("a row has too many columns"))?;
                for place in &mut fields[..count] {
                    let Some((field, after)) = field(rest)? else { return Ok(None) };
                    (*place, rest) = (field, after);
                }
                each(&Copied(&fields[..count]));
                Ok(Some(rest))
            }
            Self::End if bytes.is_empty() => Ok(None),
            Self::End => Err(broken("it goes on after its end")),
        }
    }
}

/// A field and what follows it; its length, and -1 for NULL, stands before it. `None`: it is not all there yet.
type Field<'a> = (Option<&'a [u8]>, &'a [u8]);
fn field(bytes: &[u8]) -> Result<Option<Field<'_>>, Error> {
    let Some((length, rest)) = number(bytes) else { return Ok(None) };
    if length == -1 {
        return Ok(Some((None, rest)));
    }
    let length = usize::try_from(length).map_err(|_| broken("a field has no length"))?;
    Ok(rest.split_at_checked(length).map(|(field, rest)| (Some(field), rest)))
}

fn number(bytes: &[u8]) -> Option<(i32, &[u8])> {
    bytes.split_first_chunk().map(|(number, rest)| (i32::from_be_bytes(*number), rest))
}

fn broken(why: &str) -> Error {
    unusable(format!("the copy of a table is not understood: {why}"))
}

/// One row.
pub(super) struct Copied<'a>(&'a [Option<&'a [u8]>]);

impl<'a> Copied<'a> {
    fn some(&self, at: usize) -> Result<Option<&'a [u8]>, String> {
        self.0.get(at).copied().ok_or_else(|| "no such column".to_owned())
    }

    fn field(&self, at: usize) -> Result<&'a [u8], String> {
        self.some(at)?.ok_or_else(|| "there is none".to_owned())
    }

    fn eight(&self, at: usize) -> Result<i64, String> {
        Ok(i64::from_be_bytes(self.field(at)?.try_into().map_err(|_| "not eight bytes")?))
    }

    /// The elements of an array of one dimension.
    fn elements(&self, at: usize, mut each: impl FnMut(&'a [u8]) -> Result<(), String>) -> Result<(), String> {
        let wrong = || "not a list".to_owned();
        let bytes = self.field(at)?;
        let (dimensions, rest) = number(bytes).ok_or_else(wrong)?;
        if dimensions == 0 {
            return Ok(());
        }
        // Whether any is NULL, and the type; then how many there are, and from which index on.
        let (shape, mut rest) = rest.split_at_checked(16).filter(|_| dimensions == 1).ok_or_else(wrong)?;
        let (count, _) = number(&shape[8..]).ok_or_else(wrong)?;
        for _ in 0..count {
            let (element, after) = field(rest).ok().flatten().ok_or_else(wrong)?;
            each(element.ok_or("an element is NULL")?)?;
            rest = after;
        }
        if rest.is_empty() { Ok(()) } else { Err(wrong()) }
    }
}

impl Row for Copied<'_> {
    fn text(&self, at: usize) -> Result<Option<&str>, String> {
        self.some(at)?.map(text).transpose()
    }

    fn flag(&self, at: usize) -> Result<bool, String> {
        match self.field(at)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => Err("neither true nor false".to_owned()),
        }
    }

    fn number(&self, at: usize) -> Result<i64, String> {
        self.eight(at)
    }

    fn moment(&self, at: usize) -> Result<Option<Timestamp>, String> {
        if self.some(at)?.is_none() {
            return Ok(None);
        }
        let micros = self.eight(at)?.checked_add(TO_2000).ok_or("beyond all time")?;
        Ok(Some(Timestamp(micros.div_euclid(1000))))
    }

    fn bytes(&self, at: usize) -> Result<Cow<'_, [u8]>, String> {
        self.field(at).map(Cow::Borrowed)
    }

    fn texts<T>(&self, at: usize, mut each: impl FnMut(&str) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut texts = Vec::new();
        self.elements(at, |element| {
            texts.push(each(text(element)?)?);
            Ok(())
        })?;
        Ok(texts)
    }

    fn networks(&self, at: usize) -> Result<Vec<IpNet>, String> {
        let mut networks = Vec::new();
        self.elements(at, |element| {
            networks.push(network(element).ok_or("not a network")?);
            Ok(())
        })?;
        Ok(networks)
    }
}

fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

/// Family, bits, whether it is of the type `cidr`, length, address.
fn network(bytes: &[u8]) -> Option<IpNet> {
    match *bytes {
        [2, bits, _, 4, ref address @ ..] => Ipv4Net::new(Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?), bits).ok().map(IpNet::V4),
        [3, bits, _, 16, ref address @ ..] => Ipv6Net::new(Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?), bits).ok().map(IpNet::V6),
        _ => None,
    }
}
