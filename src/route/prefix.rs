//! What a route begins with.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::RequestTarget;

/// A path prefix of whole segments in canonical form: `/`, or `/a/b` without a slash at its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPrefix(Arc<str>);

/// Why a text is not a path prefix.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedPrefix {
    /// Does not begin with a slash.
    #[error("`{0}` does not begin with `/`")]
    NoSlash(String),
    /// Ends in a slash, which would leave it open whether the prefix without the slash is meant too.
    #[error("`{0}` ends with `/`: prefixes match whole segments, so write `{1}`")]
    TrailingSlash(String, String),
    /// Has a query.
    #[error("`{0}` has a query: only the path decides where a request goes")]
    Query(String),
    /// No request could ever have it, since such targets are refused.
    #[error("`{0}` cannot be a prefix: {1}")]
    Refused(String, &'static str),
    /// Requests are decided on another spelling.
    #[error("`{0}` is not canonical: write `{1}`")]
    NotCanonical(String, String),
}

impl PathPrefix {
    /// The prefix as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').skip(1).filter(|segment| !segment.is_empty())
    }

    /// Whether `path` lies under it: equal, or followed by a slash. The plain definition that [`super::RouteTable`] is
    /// tested against.
    #[must_use]
    pub fn covers(&self, path: &str) -> bool {
        &*self.0 == "/" || path.strip_prefix(&*self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl FromStr for PathPrefix {
    type Err = MalformedPrefix;
    fn from_str(text: &str) -> Result<Self, MalformedPrefix> {
        let shown = || text.chars().take(200).collect::<String>();
        if !text.starts_with('/') {
            return Err(MalformedPrefix::NoSlash(shown()));
        }
        if text.contains('?') {
            return Err(MalformedPrefix::Query(shown()));
        }
        if text.len() > 1 && text.ends_with('/') {
            return Err(MalformedPrefix::TrailingSlash(shown(), text.trim_end_matches('/').chars().take(200).collect()));
        }
        let target = RequestTarget::parse(text.as_bytes()).map_err(|refused| MalformedPrefix::Refused(shown(), refused.detail()))?;
        if target.has_parameters() {
            return Err(MalformedPrefix::Refused(shown(), "`;` begins a parameter, which is not part of a segment's name"));
        }
        if target.path() != text {
            return Err(MalformedPrefix::NotCanonical(shown(), target.path().to_owned()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for PathPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_canonical_or_refused_with_what_to_write() {
        for ok in ["/", "/a", "/api/public/v1/billing", "/a%20b"] {
            assert_eq!(ok.parse::<PathPrefix>().unwrap().as_str(), ok);
        }
        for (wrong, says) in [
            ("billing", "does not begin with `/`"),
            ("/billing/", "write `/billing`"),
            ("/a?b", "has a query"),
            ("/a//b", "empty segment"),
            ("/a/../b", "dot segment"),
            ("/%61", "write `/a`"),
            ("/a%2fb", "encoded slash"),
            ("/a;v=1", "parameter"),
        ] {
            let error = wrong.parse::<PathPrefix>().unwrap_err().to_string();
            assert!(error.contains(says), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let prefix: PathPrefix = "/billing".parse().unwrap();
        for (path, covered) in
            [("/billing", true), ("/billing/", true), ("/billing/7", true), ("/billingx", false), ("/billing.evil", false), ("/", false)]
        {
            assert_eq!(prefix.covers(path), covered, "{path}");
        }
    }
}
