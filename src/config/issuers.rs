//! Who else issues tokens that are believed, checked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::document::Step::{self, Index, Key};
use super::file::IssuerFile;
use super::{Found, Gateway};
use crate::jwks::{self, Networks};
use crate::token::{Algorithm, Issuer, KeySet, KeySource};

/// Checks what the schema could not, and fills in the defaults. Paths count from `base`.
pub(super) fn build(files: &[IssuerFile], base: &Path, gateway: &Gateway, found: &mut Found<'_>) -> Vec<Arc<Issuer>> {
    let networks = Networks::new(&gateway.key_networks);
    let own = gateway.oauth.as_ref().and_then(|oauth| oauth.issuer.as_deref());
    let mut taken = BTreeMap::new();
    let mut issuers = Vec::new();
    for (at, file) in files.iter().enumerate() {
        let steps = [Key("issuers"), Index(at), Key("issuer")];
        if file.issuer.is_empty() {
            found.wrong(&steps, "is empty: write what `iss` is in its tokens");
        } else if own == Some(&file.issuer) {
            found.wrong(&steps, "is this gateway itself (`oauth.issuer`), whose tokens are believed anyway: leave it out");
        } else if let Some(other) = taken.insert(file.issuer.as_str(), at) {
            found.wrong(&steps, format!("is the same as that of issuers[{other}]: say everything about an issuer in one place"));
        }
        issuers.extend(build_issuer(at, file, base, &networks, found).map(Arc::new));
    }
    issuers
}

fn build_issuer(at: usize, file: &IssuerFile, base: &Path, networks: &Networks, found: &mut Found<'_>) -> Option<Issuer> {
    let here = [Key("issuers"), Index(at)];
    let of = |name| [Key("issuers"), Index(at), Key(name)];
    let keys = keys(&here, file, base, networks, found);
    let audiences = list(&of("audiences"), &file.audiences, "whom its tokens must be for (`aud`)", found, |text| match text {
        "" => Err("is empty: write what `aud` is in its tokens".to_owned()),
        text => Ok(Arc::from(text)),
    });
    let algorithms = list(&of("algorithms"), &file.algorithms, "what it signs by, as `RS256`", found, |name| {
        name.parse::<Algorithm>().map_err(|error| format!("`{name}`: {error}"))
    });
    let mut claim = |name: &'static str, given: &Option<String>| {
        if given.as_deref() == Some("") {
            found.wrong(&of(name), "is empty: name a claim, or leave it out");
        }
        given.as_deref().map(Arc::from)
    };
    let client_claim: Option<Arc<str>> = claim("client_claim", &file.client_claim);
    let practice_claim = claim("practice_claim", &file.practice_claim);
    let user_claim = claim("user_claim", &file.user_claim);
    let scope_claim = claim("scope_claim", &file.scope_claim);
    let told = ["client_claim", "practice_claim"].into_iter().any(|name| found.told(&of(name)));
    if client_claim.is_none() && practice_claim.is_none() && !told {
        let of_whom = if user_claim.is_some() { "of which practice the user is" } else { "who makes a request" };
        found.wrong(&here, format!("does not say {of_whom}: give `client_claim`, `practice_claim` or both"));
    }
    let seconds = |value: Option<u32>, default: u32| Duration::from_secs(value.unwrap_or(default).into());
    Some(Issuer {
        name: file.issuer.as_str().into(),
        keys: keys?,
        audiences: audiences?,
        algorithms: algorithms?,
        client_claim,
        practice_claim,
        user_claim,
        scope_claim: scope_claim.unwrap_or_else(|| "scope".into()),
        leeway: seconds(file.leeway_secs, 30),
        refresh: seconds(file.refresh_secs, 300),
    })
}

/// The one place that keys are said to be.
fn keys(here: &[Step<'_>; 2], file: &IssuerFile, base: &Path, networks: &Networks, found: &mut Found<'_>) -> Option<KeySource> {
    let of = |name| [here[0], here[1], Key(name)];
    let refresh_of_file = |found: &mut Found<'_>| {
        if file.refresh_secs.is_some() {
            found.wrong(&of("refresh_secs"), "is for `jwks_url`: a file is read when the route map is");
        }
    };
    match (&file.jwks_url, &file.jwks_file) {
        (Some(_), Some(_)) => {
            found.wrong(here, "has jwks_url and jwks_file: give exactly one of them");
            None
        }
        (Some(url), None) => {
            let url = jwks::check(url, networks).map(|()| KeySource::Url(url.as_str().into()));
            found.parsed(&of("jwks_url"), url)
        }
        (None, Some(path)) => {
            refresh_of_file(found);
            found.parsed(&of("jwks_file"), set(&base.join(path))).map(|set| KeySource::Set(Arc::new(set)))
        }
        // One that had the wrong type was told, and taken out.
        (None, None) if ["jwks_url", "jwks_file"].into_iter().any(|name| found.told(&of(name))) => None,
        (None, None) => {
            found.wrong(here, "does not say where its keys are: give `jwks_url` or `jwks_file`");
            None
        }
    }
}

/// The keys in a file: at least one that can be used.
fn set(path: &Path) -> Result<KeySet, String> {
    let text = std::fs::read(path).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))?;
    let (set, left_out) = KeySet::from_jwks(&text).map_err(|error| format!("`{}`: {error}", path.display()))?;
    match left_out.first() {
        Some(why) if set.is_empty() => Err(format!("`{}` has no key that can be used: {why}", path.display())),
        None if set.is_empty() => Err(format!("`{}` has no key", path.display())),
        _ => Ok(set),
    }
}

/// Each text of a list that has at least one.
fn list<T>(
    steps: &[Step<'_>; 3],
    texts: &[String],
    name: &str,
    found: &mut Found<'_>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Option<Vec<T>> {
    if texts.is_empty() {
        found.wrong(steps, format!("is empty: name at least one of {name}"));
        return None;
    }
    let mut all = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        all.extend(found.parsed(&[steps[0], steps[1], steps[2], Index(at)], parse(text)));
    }
    (all.len() == texts.len()).then_some(all)
}
