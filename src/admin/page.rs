//! Lists, a page at a time.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem::Problem;

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// `next` of the page before; left out: the first page.
    #[param(pattern = "^[A-Za-z0-9_-]{1,200}$")]
    cursor: Option<String>,
    /// How many at most; 50.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

impl PageQuery {
    /// How many at most.
    pub fn limit(&self) -> Result<usize, Problem> {
        match self.limit {
            None => Ok(50),
            Some(limit @ 1..=200) => Ok(limit as usize),
            Some(limit) => Err(Problem::malformed(Some("limit".into()), format!("{limit} is out of bounds: give 1 to 200"))),
        }
    }

    /// What the page before ended with.
    pub fn after<T: std::str::FromStr>(&self) -> Result<Option<T>, Problem> {
        let Some(cursor) = &self.cursor else { return Ok(None) };
        let text = URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let after = text.and_then(|text| text.parse().ok());
        after.map(Some).ok_or_else(Self::unknown_cursor)
    }

    /// The page before did not end with that.
    pub fn unknown_cursor() -> Problem {
        Problem::malformed(Some("cursor".into()), "it is not `next` of a page of this list")
    }

    /// How many rows are to be asked for: one more than are shown, to know whether there are more.
    pub fn rows(&self) -> Result<u32, Problem> {
        Ok(u32::try_from(self.limit()?).expect("it is at most 200") + 1)
    }

    /// One page of the rows that were asked for, and `next`.
    pub fn cut<T, K: std::fmt::Display>(&self, mut rows: Vec<T>, key: impl Fn(&T) -> K) -> Result<(Vec<T>, Option<String>), Problem> {
        let limit = self.limit()?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(key(last).to_string()));
        Ok((rows, next))
    }

    /// One page of a list, which goes on after the item whose key the page before ended with: the items, and `next`.
    pub fn of<T, K: PartialEq + std::str::FromStr + std::fmt::Display>(
        &self,
        items: Vec<T>,
        key: impl Fn(&T) -> K,
    ) -> Result<(Vec<T>, Option<String>), Problem> {
        let (limit, after) = (self.limit()?, self.after::<K>()?);
        let begin = match after {
            None => 0,
            Some(after) => items.iter().position(|item| key(item) == after).map_or(items.len(), |at| at + 1),
        };
        let more = items.len() > begin + limit;
        let page: Vec<T> = items.into_iter().skip(begin).take(limit).collect();
        let next = page.last().filter(|_| more).map(|last| URL_SAFE_NO_PAD.encode(key(last).to_string()));
        Ok((page, next))
    }
}
