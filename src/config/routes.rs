//! The route map, checked.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::document::Step::{Index, Key};
use super::document::{Place, Step};
use super::file::{RouteFile, RoutesFile};
use super::upstreams::{self, Upstreams};
use super::{Found, Gateway, OAUTH_PATHS, Purpose, did_you_mean, issuers};
use crate::id::RouteId;
use crate::limit::{Allowance, Tier};
use crate::route::{Method, MethodSet, PathPrefix, Requirement, Route, RouteTable};
use crate::scope::{ScopeRegistry, ScopeSet, ScopeToken};
use crate::token::Issuer;
use crate::upstream::Protocol;

/// The route map.
#[derive(Debug)]
pub struct RouteMap {
    /// The routes, ready to be searched.
    pub table: RouteTable,
    /// The rate limits, by name.
    pub tiers: BTreeMap<Arc<str>, Tier>,
    /// The upstreams, by name.
    pub upstreams: Upstreams,
    /// The scopes that are declared.
    pub scopes: Vec<ScopeToken>,
    /// Whether letters of paths match in either case.
    pub ignore_case: bool,
    /// Who else issues tokens that are believed.
    pub issuers: Vec<Arc<Issuer>>,
    /// The files that were read for this beside the route file: keys of issuers, and what upstreams are trusted by.
    pub beside: Vec<PathBuf>,
    /// Where all this stands, for whoever finds something in it.
    pub(super) places: Places,
}

/// Where the parts of a route map stand.
#[derive(Debug)]
pub(super) struct Places {
    /// The file.
    pub whole: Place,
    /// The prefixes of the routes, by their ids.
    pub routes: Vec<Place>,
    /// The upstreams, by name.
    pub upstreams: BTreeMap<Arc<str>, Place>,
    /// The scopes, in their order.
    pub scopes: Vec<Place>,
}

impl Places {
    fn new(file: &RoutesFile, found: &Found<'_>) -> Self {
        let at = |steps: &[Step<'_>]| found.node.nearest(steps).place.clone();
        Self {
            whole: at(&[]),
            routes: (0..file.routes.len()).map(|n| at(&[Key("routes"), Index(n), Key("prefix")])).collect(),
            upstreams: file.upstreams.keys().map(|name| (name.as_str().into(), at(&[Key("upstreams"), Key(name)]))).collect(),
            scopes: (0..file.scopes.len()).map(|n| at(&[Key("scopes"), Index(n)])).collect(),
        }
    }
}

/// Checks what the schema could not; `None` if no map can be made. Paths of files count from `base`.
pub(super) fn build(
    file: &RoutesFile,
    base: &Path,
    purpose: Purpose,
    gateway: &Gateway,
    registry: &ScopeRegistry,
    before: &Upstreams,
    found: &mut Found<'_>,
) -> Option<RouteMap> {
    let scopes = scopes(file, found);
    let upstreams = upstreams::build(&file.upstreams, base, purpose, before, found);
    if file.routes.is_empty() {
        found.wrong(&[Key("routes")], "there is no route, so every request would be refused: add a [[routes]]");
    }
    let mut routes = Vec::new();
    for (at, route) in file.routes.iter().enumerate() {
        own_path(at, route, file.ignore_case, gateway, found);
        routes.extend(build_route(at, route, gateway, &scopes, &upstreams, registry, found));
    }
    let mut tiers = BTreeMap::new();
    for (name, tier) in &file.tiers {
        plain(name, &[Key("tiers"), Key(name)], found);
        let practice = tier.practice.as_ref().and_then(|practice| allowance(practice.per_second, practice.burst));
        if let Some(rate) = allowance(tier.per_second, tier.burst) {
            let concurrent = tier.concurrent.and_then(NonZeroU32::new);
            tiers.insert(Arc::from(name.as_str()), Tier { name: name.as_str().into(), rate, practice, concurrent });
        }
    }
    let issuers = issuers::build(&file.issuers, base, gateway, found);
    let key_files = file.issuers.iter().filter_map(|issuer| issuer.jwks_file.as_ref()).map(|path| base.join(path));
    let beside = key_files.chain(upstreams::files(&file.upstreams, base)).collect();
    let (ignore_case, places) = (file.ignore_case, Places::new(file, found));
    match RouteTable::new(routes, ignore_case) {
        Ok(table) => Some(RouteMap { table, tiers, upstreams, scopes, ignore_case, issuers, beside, places }),
        Err(conflicts) => {
            for conflict in conflicts {
                let first = found.node.nearest(&[Key("routes"), Index(conflict.first.0 as usize), Key("prefix")]).place.clone();
                let line = if let Place::File { line, .. } = first { line } else { 0 };
                let message = format!(
                    "the route at line {line} has the same prefix and shares a method: leave one of them out, or give each its own `methods`"
                );
                found.wrong(&[Key("routes"), Index(conflict.second.0 as usize), Key("prefix")], message);
            }
            None
        }
    }
}

/// `None`: one of them is zero, which the schema has told of.
fn allowance(per_second: u32, burst: u32) -> Option<Allowance> {
    Some(Allowance { per_second: NonZeroU32::new(per_second)?, burst: NonZeroU32::new(burst)? })
}

fn scopes(file: &RoutesFile, found: &mut Found<'_>) -> Vec<ScopeToken> {
    let mut scopes: Vec<ScopeToken> = Vec::new();
    for (at, name) in file.scopes.iter().enumerate() {
        let steps = [Key("scopes"), Index(at)];
        let Some(scope) = found.parsed(&steps, name.parse::<ScopeToken>()) else { continue };
        if scope.is_all() {
            found.wrong(&steps, "`all` is built in: leave it out");
        } else if scopes.contains(&scope) {
            found.wrong(&steps, format!("`{scope}` is declared twice"));
        } else if scopes.len() == ScopeRegistry::MAX {
            found.wrong(&steps, format!("there can be {} scopes at most", ScopeRegistry::MAX));
        } else {
            scopes.push(scope);
        }
    }
    scopes
}

/// Names become labels of metrics, words of answers and arguments of commands, so they are plain.
pub(super) fn plain(name: &str, steps: &[Step<'_>], found: &mut Found<'_>) {
    let plain = (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if !plain {
        found.wrong(steps, "is not a name: expected 1 to 64 letters, digits, `_` or `-`");
    }
}

/// Tells of a route that no request would ever reach: the gateway answers there itself.
fn own_path(at: usize, file: &RouteFile, ignore_case: bool, gateway: &Gateway, found: &mut Found<'_>) {
    if gateway.oauth.is_none() {
        return;
    }
    let prefix = if ignore_case { file.prefix.to_ascii_lowercase() } else { file.prefix.clone() };
    let under = |own: &&&str| prefix.strip_prefix(**own).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if let Some(own) = OAUTH_PATHS.iter().find(under) {
        let message = format!("the gateway answers at `{own}` itself, since `oauth.master_key` is given: take another prefix");
        found.wrong(&[Key("routes"), Index(at), Key("prefix")], message);
    }
}

fn build_route(
    at: usize,
    file: &RouteFile,
    gateway: &Gateway,
    declared: &[ScopeToken],
    upstreams: &Upstreams,
    registry: &ScopeRegistry,
    found: &mut Found<'_>,
) -> Option<Route> {
    let here = [Key("routes"), Index(at)];
    let of = |name| [Key("routes"), Index(at), Key(name)];
    let prefix = found.parsed(&of("prefix"), file.prefix.parse::<PathPrefix>());
    let methods = match &file.methods {
        None => Some(MethodSet::ALL),
        Some(names) if names.is_empty() => {
            found.wrong(&of("methods"), "is empty, so the route would take nothing: leave it out for all, or name some");
            None
        }
        Some(names) => {
            let parse =
                |(i, name): (usize, &String)| found.parsed(&[Key("routes"), Index(at), Key("methods"), Index(i)], name.parse::<Method>());
            let parsed: Vec<Method> = names.iter().enumerate().filter_map(parse).collect();
            (parsed.len() == names.len()).then(|| parsed.into_iter().collect())
        }
    };
    let given: Vec<&str> = ["scopes", "scopes_all", "public"].into_iter().filter(|name| found.has(&here, name)).collect();
    let requirement = match given.as_slice() {
        ["scopes"] => {
            required(&of("scopes"), file.scopes.as_deref(), declared, registry, found).map(|(set, text)| (Requirement::AnyOf(set), text))
        }
        ["scopes_all"] => required(&of("scopes_all"), file.scopes_all.as_deref(), declared, registry, found)
            .map(|(set, text)| (Requirement::AllOf(set), text)),
        ["public"] if file.public == Some(true) => Some((Requirement::Public, "".into())),
        ["public"] => {
            found.wrong(&of("public"), "is false, and the route asks for no scope: name its `scopes`");
            None
        }
        // One that had the wrong type was told, and taken out.
        [] if ["scopes", "scopes_all", "public"].into_iter().any(|name| found.told(&of(name))) => None,
        [] => {
            found.wrong(&here, "says not what it asks for: give `scopes`, `scopes_all` or `public = true`");
            None
        }
        several => {
            found.wrong(&here, format!("has {}: give exactly one of them", several.join(" and ")));
            None
        }
    };
    if file.stale_grace_ms > 0 && matches!(requirement, Some((Requirement::Public, _))) {
        found.wrong(&of("stale_grace_ms"), "means nothing where everybody may pass: leave it out");
    }
    let names: Vec<&str> = upstreams.keys().map(|name| &**name).collect();
    let upstream = upstreams
        .get(file.upstream.as_str())
        .ok_or_else(|| format!("no upstream is called `{}`; {}", file.upstream, did_you_mean(&file.upstream, &names)));
    let upstream = found.parsed(&of("upstream"), upstream);
    if file.websocket && upstream.is_some_and(|upstream| upstream.settings.protocol == Protocol::Http2) {
        found.wrong(&of("websocket"), "needs an upstream of HTTP/1.1: leave it out, or name another upstream");
    }
    let (requirement, scopes) = requirement?;
    Some(Route {
        id: RouteId(u32::try_from(at).ok()?),
        prefix: prefix?,
        methods: methods?,
        requirement,
        scopes,
        upstream: Arc::clone(upstream?),
        allow_path_parameters: file.allow_path_parameters,
        websocket: file.websocket,
        forward_authorization: file.forward_authorization,
        body_limit_bytes: file.body_limit_bytes.unwrap_or(gateway.limits.body_bytes),
        stale_grace: Duration::from_millis(file.stale_grace_ms.into()),
    })
}

fn required(
    steps: &[Step<'_>],
    names: Option<&[String]>,
    declared: &[ScopeToken],
    registry: &ScopeRegistry,
    found: &mut Found<'_>,
) -> Option<(ScopeSet, Arc<str>)> {
    // `None`: it had the wrong type, which has been told.
    let names = names?;
    if names.is_empty() {
        found.wrong(steps, "is empty: name at least one scope, or say `public = true` if everybody may pass");
        return None;
    }
    let known: Vec<&str> = declared.iter().map(ScopeToken::as_str).collect();
    let mut set = ScopeSet::EMPTY;
    let mut wrong = false;
    for (at, name) in names.iter().enumerate() {
        let steps: Vec<Step<'_>> = steps.iter().copied().chain([Index(at)]).collect();
        let scope = match declared.iter().find(|scope| scope.as_str() == name) {
            Some(scope) => registry.intern(scope).map_err(|error| error.to_string()),
            None if name == ScopeToken::ALL => {
                Err("no route can ask for `all`: it is what a client has that may ask for everything".to_owned())
            }
            None => Err(format!("no scope `{name}` is declared in `scopes`; {}", did_you_mean(name, &known))),
        };
        match found.parsed(&steps, scope) {
            Some(scope) => set = set.union(scope),
            None => wrong = true,
        }
    }
    (!wrong).then(|| (set, names.join(" ").into()))
}
