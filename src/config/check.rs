//! What is allowed in a route map and probably not meant.

use std::fmt;

use serde_json::Value;

use super::RouteMap;
use crate::limit;
use crate::route::{Method, Requirement, Route};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Worth knowing.
    Note,
    /// Probably not meant.
    Warning,
    /// Wrong.
    Error,
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Note => "note",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        write!(f, "{level}: {}", self.message)
    }
}

/// Looks over a route map that has no mistakes.
#[must_use]
pub fn check(map: &RouteMap) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |level, message: String| findings.push(Finding { level, message });
    let routes = map.table.routes();
    for route in routes {
        let around = routes.iter().filter(|other| other.prefix != route.prefix && other.prefix.covers(route.prefix.as_str()));
        let Some(parent) = around.max_by_key(|other| other.prefix.as_str().len()) else { continue };
        if matches!(route.requirement, Requirement::Public) && !matches!(parent.requirement, Requirement::Public) {
            say(Level::Warning, format!("`{}` is public, inside `{}`, which asks for {}", route.prefix, parent.prefix, asks(parent)));
        } else if route.requirement != parent.requirement {
            say(
                Level::Note,
                format!("`{}` asks for {}, inside `{}`, which asks for {}", route.prefix, asks(route), parent.prefix, asks(parent)),
            );
        }
        for method in Method::EVERY
            .into_iter()
            .filter(|method| parent.methods.has(*method) && map.table.find(route.prefix.as_str(), Some(*method)).is_err())
        {
            say(
                Level::Note,
                format!("`{} {}` is refused (405), though `{}` takes {}", method.as_str(), route.prefix, parent.prefix, method.as_str()),
            );
        }
    }
    for scope in &map.scopes {
        if !routes.iter().any(|route| route.scopes.split(' ').any(|name| name == scope.as_str())) {
            say(Level::Warning, format!("no route asks for the scope `{scope}`"));
        }
    }
    for name in map.upstreams.keys() {
        if !routes.iter().any(|route| route.upstream.name == *name) {
            say(Level::Warning, format!("no route leads to the upstream `{name}`"));
        }
    }
    if !map.tiers.contains_key(limit::STANDARD) {
        say(Level::Note, format!("there is no tier `{}`, so clients that name no tier have no rate limit", limit::STANDARD));
    }
    findings
}

/// Looks for operations of an upstream's OpenAPI document that no route of this upstream takes.
#[must_use]
pub fn check_openapi(map: &RouteMap, upstream: &str, document: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let base = document["servers"][0]["url"].as_str().and_then(|url| url.parse::<http::Uri>().ok());
    let base = base.as_ref().map_or("", |uri| uri.path()).trim_end_matches('/');
    let paths = document["paths"].as_object();
    if paths.is_none() {
        findings.push(Finding { level: Level::Error, message: format!("the OpenAPI document of `{upstream}` has no `paths`") });
    }
    for (path, operations) in paths.into_iter().flatten() {
        // A template stands for any one segment.
        let concrete: String =
            path.split('/').map(|segment| if segment.contains('{') { "x" } else { segment }).collect::<Vec<_>>().join("/");
        let concrete = format!("{base}{concrete}");
        for method in Method::EVERY.into_iter().filter(|method| operations.get(method.as_str().to_ascii_lowercase()).is_some()) {
            let message = match map.table.find(&concrete, Some(method)) {
                Ok(route) if *route.upstream.name == *upstream => continue,
                Ok(route) => format!("`{} {base}{path}` leads to `{}`, not to `{upstream}`", method.as_str(), route.upstream.name),
                Err(_) => format!("`{} {base}{path}` of `{upstream}` has no route", method.as_str()),
            };
            findings.push(Finding { level: Level::Error, message });
        }
    }
    findings
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
