//! A route map held against what an upstream says it has.

use serde_json::Value;

use super::{Finding, Level};
use crate::config::RouteMap;
use crate::route::{Method, NotFound, RequestTarget};

/// The methods that OpenAPI 3 has a key for.
const METHODS: [&str; 8] = ["get", "head", "post", "put", "patch", "delete", "options", "trace"];

/// Looks for operations of an upstream's OpenAPI document that no route leads to, or that a route leads elsewhere. Base
/// paths of servers count; a parameter in a path stands for any one segment.
#[must_use]
pub fn check_openapi(map: &RouteMap, upstream: &str, document: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let error = |key: &str, message| Finding { level: Level::Error, place: map.places.whole.clone(), key: key.to_owned(), message };
    let Some(paths) = document["paths"].as_object().filter(|_| document["openapi"].is_string()) else {
        return vec![error("", format!("the document of `{upstream}` is not OpenAPI 3: it has no `openapi` or no `paths`"))];
    };
    for (template, item) in paths {
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let method = method.to_ascii_uppercase();
            // The nearest list of servers counts, and none is the root.
            let servers =
                [operation, item, document].into_iter().find_map(|owner| owner["servers"].as_array().filter(|all| !all.is_empty()));
            let mut bases: Vec<String> = servers.map_or_else(|| vec![String::new()], |all| all.iter().map(base_path).collect());
            bases.sort();
            bases.dedup();
            for base in bases {
                if let Err(why) = lookup(map, upstream, &method, &format!("{base}{template}")) {
                    findings.push(error("routes", format!("`{method} {base}{template}` of `{upstream}`: {why}")));
                }
            }
        }
    }
    findings
}

fn lookup(map: &RouteMap, upstream: &str, method: &str, template: &str) -> Result<(), String> {
    let path = fill_in(template);
    let target = RequestTarget::parse(path.as_bytes()).map_err(|why| format!("no request can have this path: {why}"))?;
    let route = map.table.find(target.path(), Method::parse(method.as_bytes())).map_err(|not_found| match not_found {
        NotFound::NoRoute => "no route covers it".to_owned(),
        NotFound::MethodNotAllowed(allow) => format!("its route takes {allow} only"),
    })?;
    if &*route.upstream.name == upstream {
        return Ok(());
    }
    Err(format!("routes[{}] (`{}`) leads to `{}`", route.id.0, route.prefix, route.upstream.name))
}

/// The path of a server's URL, without a slash at its end; variables have their defaults.
fn base_path(server: &Value) -> String {
    let mut url = server["url"].as_str().unwrap_or_default().to_owned();
    for (name, variable) in server["variables"].as_object().into_iter().flatten() {
        url = url.replace(&format!("{{{name}}}"), variable["default"].as_str().unwrap_or_default());
    }
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |at| &rest[at..]),
        None => &url,
    };
    let path = path.trim_end_matches('/');
    if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

/// The path with a plain word for each `{parameter}`: one that nobody would make a segment of a prefix.
fn fill_in(template: &str) -> String {
    let mut path = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, parameter)) = rest.split_once('{') {
        path.push_str(before);
        path.push_str("any-value");
        rest = parameter.split_once('}').map_or("", |(_, after)| after);
    }
    path + rest
}
