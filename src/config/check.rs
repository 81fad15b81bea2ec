//! What is allowed in a route map and probably not meant.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

use super::document::{Mistake, Place, Printable};
use super::{Config, RouteMap};
use crate::limit;
use crate::route::{Method, Requirement, Route};

mod openapi;

pub use openapi::check_openapi;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Probably not meant.
    Warning,
    /// Wrong.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Where it stands.
    pub place: Place,
    /// The key, as `routes[3].prefix`; empty when it is about the whole file.
    pub key: String,
    /// What it is.
    pub message: String,
}

impl From<Mistake> for Finding {
    fn from(mistake: Mistake) -> Self {
        Self { level: Level::Error, place: mistake.place, key: mistake.key, message: mistake.message }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.place, self.level)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", Printable(&self.key))?;
        }
        Printable(&self.message).fmt(f)
    }
}

impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Finding", 6)?;
        fields.serialize_field("level", &self.level)?;
        match &self.place {
            Place::File { path, line, column } => {
                fields.serialize_field("file", &path.to_string_lossy())?;
                fields.serialize_field("line", line)?;
                fields.serialize_field("column", column)?;
            }
            Place::Variable(name) => fields.serialize_field("variable", name)?,
        }
        fields.serialize_field("key", &self.key)?;
        fields.serialize_field("message", &self.message)?;
        fields.end()
    }
}

/// Looks over a configuration that has no mistakes.
#[must_use]
pub fn check(config: &Config) -> Vec<Finding> {
    let map = &config.routes;
    let mut findings = Vec::new();
    let index = Index::new(map);
    for route in map.table.routes() {
        let place = &map.places.routes[route.id.0 as usize];
        let key = format!("routes[{}].prefix", route.id.0);
        let mut say = |level, message| findings.push(Finding { level, place: place.clone(), key: key.clone(), message });
        let longest = config.gateway.limits.target_bytes;
        if route.prefix.as_str().len() > longest {
            say(
                Level::Warning,
                format!("no request can reach it: a target has {longest} bytes at most (`limits.target_bytes`), and this is longer"),
            );
        }
        index.around(route, &mut say);
    }
    let asked = |scope: &str| map.table.routes().iter().any(|route| route.scopes.split(' ').any(|name| name == scope));
    for ((at, scope), place) in map.scopes.iter().enumerate().zip(&map.places.scopes) {
        if !asked(scope.as_str()) {
            let message = format!("no route asks for the scope `{scope}`");
            findings.push(Finding { level: Level::Warning, place: place.clone(), key: format!("scopes[{at}]"), message });
        }
    }
    for (name, place) in &map.places.upstreams {
        if !map.table.routes().iter().any(|route| route.upstream.name == *name) {
            let message = format!("no route leads to the upstream `{name}`");
            findings.push(Finding { level: Level::Warning, place: place.clone(), key: format!("upstreams.{name}"), message });
        }
    }
    if !map.tiers.contains_key(limit::STANDARD) {
        let message = format!("there is no tier `{}`, so clients that name no tier have no rate limit", limit::STANDARD);
        findings.push(Finding { level: Level::Note, place: map.places.whole.clone(), key: "tiers".into(), message });
    }
    findings
}

/// The routes by their prefixes, as paths are compared with them, and by their prefixes whatever their case.
struct Index<'a> {
    map: &'a RouteMap,
    exact: HashMap<Cow<'a, str>, Vec<&'a Route>>,
    folded: HashMap<String, Vec<&'a Route>>,
}

impl<'a> Index<'a> {
    fn new(map: &'a RouteMap) -> Self {
        let mut index = Self { map, exact: HashMap::new(), folded: HashMap::new() };
        for route in map.table.routes() {
            index.exact.entry(index.path(route)).or_default().push(route);
            index.folded.entry(route.prefix.as_str().to_ascii_lowercase()).or_default().push(route);
        }
        index
    }

    fn path(&self, route: &'a Route) -> Cow<'a, str> {
        let path = route.prefix.as_str();
        if self.map.ignore_case { path.to_ascii_lowercase().into() } else { path.into() }
    }

    /// The routes of the longest prefix above `path`: they are what would decide without those at it.
    fn above(&self, path: &str) -> &[&'a Route] {
        let mut rest = path;
        while let Some(at) = rest.rfind('/').filter(|_| rest != "/") {
            rest = if at == 0 { "/" } else { &rest[..at] };
            if let Some(routes) = self.exact.get(rest) {
                return routes;
            }
        }
        &[]
    }

    /// Compares a route with those around it.
    fn around(&self, route: &'a Route, say: &mut dyn FnMut(Level, String)) {
        let path = self.path(route);
        // The same prefix in other letters is another route to us, but perhaps not to the upstream.
        let twins = &self.folded[&route.prefix.as_str().to_ascii_lowercase()];
        if let Some(twin) = twins.iter().find(|other| other.id < route.id && self.path(other) != path) {
            say(
                Level::Warning,
                format!("`{}` and {} differ only in case: does the upstream tell them apart?", route.prefix, self.named(twin)),
            );
        }
        let parents = self.above(&path);
        for parent in parents.iter().filter(|parent| parent.methods.meets(route.methods)) {
            let inside = format!("inside {}, which asks for {}", self.named(parent), asks(parent));
            match (&route.requirement, &parent.requirement) {
                (own, other) if own == other => {
                    if says_the_same(route, parent) {
                        say(Level::Note, format!("`{}` changes nothing: {} says the same", route.prefix, self.named(parent)));
                    }
                }
                (Requirement::Public, _) => say(Level::Warning, format!("`{}` is public, {inside}", route.prefix)),
                _ => say(Level::Note, format!("`{}` asks for {}, {inside}", route.prefix, asks(route))),
            }
        }
        // The longest prefix decides alone, so a method that only the shorter one takes is refused under the longer one.
        let own = &self.exact[&path];
        let taken = |method: Method, routes: &[&Route]| routes.iter().any(|route| route.methods.has(method));
        let lost: Vec<_> =
            Method::EVERY.into_iter().filter(|method| taken(*method, parents) && !taken(*method, own)).map(Method::as_str).collect();
        if own[0].id == route.id && !lost.is_empty() {
            let message = format!(
                "`{}` shadows {} and refuses {} (405): the longest prefix decides alone",
                route.prefix,
                self.named(parents[0]),
                lost.join(", ")
            );
            say(Level::Note, message);
        }
    }

    /// A route, and where it stands.
    fn named(&self, route: &Route) -> String {
        match &self.map.places.routes[route.id.0 as usize] {
            Place::File { line, .. } => format!("`{}` (line {line})", route.prefix),
            Place::Variable(_) => format!("`{}`", route.prefix),
        }
    }
}

/// Whether requests would be treated the same without `route`, inside `parent`.
fn says_the_same(route: &Route, parent: &Route) -> bool {
    route.methods == parent.methods
        && route.upstream.name == parent.upstream.name
        && route.allow_path_parameters == parent.allow_path_parameters
        && route.websocket == parent.websocket
        && route.forward_authorization == parent.forward_authorization
        && route.body_limit_bytes == parent.body_limit_bytes
}

/// What a route asks for, in words.
#[must_use]
pub fn asks(route: &Route) -> String {
    match route.requirement {
        Requirement::Public => "nothing".into(),
        Requirement::AnyOf(_) if !route.scopes.contains(' ') => format!("`{}`", route.scopes),
        Requirement::AnyOf(_) => format!("any of `{}`", route.scopes),
        Requirement::AllOf(_) => format!("all of `{}`", route.scopes),
    }
}
