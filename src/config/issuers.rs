//! Who else issues tokens that are believed, for access and for management, checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::document::Step::{self, Index, Key};
use super::file::{IssuerFile, ManagementIssuerFile};
use super::{Found, Gateway};
use crate::jwks::{self, Networks};
use crate::token::{Algorithm, Issuer, KeySet, KeySource, MANAGEMENT_ISSUER, ManagementIssuer, Trust};

/// Where the block of an issuer stands, and what every such block says.
struct Block<'f, 's> {
    here: Vec<Step<'s>>,
    issuer: &'f str,
    jwks_url: Option<&'f String>,
    jwks_file: Option<&'f PathBuf>,
    audiences: &'f [String],
    algorithms: &'f [String],
    leeway_secs: Option<u32>,
    refresh_secs: Option<u32>,
}

/// What they are checked with.
struct Around<'a> {
    base: &'a Path,
    networks: Networks,
    /// The gateway's own name.
    own: Option<&'a str>,
}

/// Whose access tokens are believed: checks what the schema could not, and fills in the defaults. Paths count from `base`.
pub(super) fn build(files: &[IssuerFile], base: &Path, gateway: &Gateway, found: &mut Found<'_>) -> Vec<Arc<Issuer>> {
    let own = gateway.oauth.as_ref().and_then(|oauth| oauth.issuer.as_deref());
    let around = Around { base, networks: Networks::new(&gateway.key_networks), own };
    named(files.iter().map(|file| file.issuer.as_str()), &[Key("issuers")], &around, found);
    let issuers: Vec<_> = files.iter().enumerate().filter_map(|(at, file)| access(at, file, &around, found)).collect();
    for issuer in &issuers {
        let same = gateway.management_issuers.iter().find(|managing| managing.trust.name == issuer.trust.name);
        let shared = same.and_then(|same| issuer.trust.audiences.iter().find(|audience| same.trust.audiences.contains(audience)));
        let at = files.iter().position(|file| *file.issuer == *issuer.trust.name);
        if let (Some(audience), Some(at)) = (shared, at) {
            let message = format!(
                "has `{audience}`, as its block in [[management.issuers]]: whoever has a token for the one could use it for the other; give each an audience of its own"
            );
            found.wrong(&[Key("issuers"), Index(at), Key("audiences")], message);
        }
    }
    issuers.into_iter().map(Arc::new).collect()
}

/// Whose management tokens are believed, likewise. `own` is the gateway's own name.
pub(super) fn build_management(
    files: &[ManagementIssuerFile],
    base: &Path,
    networks: &[IpNet],
    own: Option<&str>,
    found: &mut Found<'_>,
) -> Vec<ManagementIssuer> {
    let around = Around { base, networks: Networks::new(networks), own };
    named(files.iter().map(|file| file.issuer.as_str()), &[Key("management"), Key("issuers")], &around, found);
    files.iter().enumerate().filter_map(|(at, file)| management(at, file, &around, found)).collect()
}

/// The names of issuers: each once, and none of them ours.
fn named<'f>(names: impl Iterator<Item = &'f str>, list: &[Step<'_>], around: &Around<'_>, found: &mut Found<'_>) {
    let mut taken = BTreeMap::new();
    for (at, name) in names.enumerate() {
        let steps = [list, &[Index(at), Key("issuer")]].concat();
        if name.is_empty() {
            found.wrong(&steps, "is empty: write what `iss` is in its tokens");
        } else if around.own == Some(name) {
            found.wrong(&steps, "is this gateway itself (`oauth.issuer`), whose tokens are believed anyway: leave it out");
        } else if name == MANAGEMENT_ISSUER {
            found.wrong(&steps, "is what this gateway calls itself in management tokens, which are believed anyway: leave it out");
        } else if let Some(other) = taken.insert(name, at) {
            found.wrong(&steps, format!("is the same as that of issuers[{other}]: say everything about an issuer in one place"));
        }
    }
}

fn access(at: usize, file: &IssuerFile, around: &Around<'_>, found: &mut Found<'_>) -> Option<Issuer> {
    let block = Block {
        here: vec![Key("issuers"), Index(at)],
        issuer: &file.issuer,
        jwks_url: file.jwks_url.as_ref(),
        jwks_file: file.jwks_file.as_ref(),
        audiences: &file.audiences,
        algorithms: &file.algorithms,
        leeway_secs: file.leeway_secs,
        refresh_secs: file.refresh_secs,
    };
    let trust = block.trust(around, found);
    let client_claim = block.claim("client_claim", file.client_claim.as_deref(), found);
    let practice_claim = block.claim("practice_claim", file.practice_claim.as_deref(), found);
    let user_claim = block.claim("user_claim", file.user_claim.as_deref(), found);
    let scope_claim = block.claim("scope_claim", file.scope_claim.as_deref(), found);
    let told = ["client_claim", "practice_claim"].into_iter().any(|name| found.told(&block.of(name)));
    if client_claim.is_none() && practice_claim.is_none() && !told {
        let of_whom = if user_claim.is_some() { "of which practice the user is" } else { "who makes a request" };
        found.wrong(&block.here, format!("does not say {of_whom}: give `client_claim`, `practice_claim` or both"));
    }
    Some(Issuer { trust: trust?, client_claim, practice_claim, user_claim, scope_claim: scope_claim.unwrap_or_else(|| "scope".into()) })
}

fn management(at: usize, file: &ManagementIssuerFile, around: &Around<'_>, found: &mut Found<'_>) -> Option<ManagementIssuer> {
    let block = Block {
        here: vec![Key("management"), Key("issuers"), Index(at)],
        issuer: &file.issuer,
        jwks_url: file.jwks_url.as_ref(),
        jwks_file: file.jwks_file.as_ref(),
        audiences: &file.audiences,
        algorithms: &file.algorithms,
        leeway_secs: file.leeway_secs,
        refresh_secs: file.refresh_secs,
    };
    let trust = block.trust(around, found);
    let practice_claim = block.claim("practice_claim", file.practice_claim.as_deref(), found);
    let role_claim = block.claim("role_claim", file.role_claim.as_deref(), found);
    Some(ManagementIssuer {
        trust: trust?,
        practice_claim: practice_claim.unwrap_or_else(|| "practice_id".into()),
        role_claim: role_claim.unwrap_or_else(|| "role".into()),
        operators: file.operators,
    })
}

impl<'s> Block<'_, 's> {
    fn of(&self, name: &'s str) -> Vec<Step<'s>> {
        [self.here.as_slice(), &[Key(name)]].concat()
    }

    fn trust(&self, around: &Around<'_>, found: &mut Found<'_>) -> Option<Trust> {
        let keys = self.keys(around, found);
        let audiences = list(&self.of("audiences"), self.audiences, "whom its tokens must be for (`aud`)", found, |text| match text {
            "" => Err("is empty: write what `aud` is in its tokens".to_owned()),
            text => Ok(Arc::from(text)),
        });
        let algorithms = list(&self.of("algorithms"), self.algorithms, "what it signs by, as `RS256`", found, |name| {
            name.parse::<Algorithm>().map_err(|error| format!("`{name}`: {error}"))
        });
        let seconds = |value: Option<u32>, default: u32| Duration::from_secs(value.unwrap_or(default).into());
        Some(Trust {
            name: self.issuer.into(),
            keys: keys?,
            audiences: audiences?,
            algorithms: algorithms?,
            leeway: seconds(self.leeway_secs, 30),
            refresh: seconds(self.refresh_secs, 300),
        })
    }

    fn claim(&self, name: &'s str, given: Option<&str>, found: &mut Found<'_>) -> Option<Arc<str>> {
        if given == Some("") {
            found.wrong(&self.of(name), "is empty: name a claim, or leave it out");
        }
        given.map(Arc::from)
    }

    /// The one place that keys are said to be.
    fn keys(&self, around: &Around<'_>, found: &mut Found<'_>) -> Option<KeySource> {
        match (self.jwks_url, self.jwks_file) {
            (Some(_), Some(_)) => {
                found.wrong(&self.here, "has jwks_url and jwks_file: give exactly one of them");
                None
            }
            (Some(url), None) => {
                let url = jwks::check(url, &around.networks).map(|()| KeySource::Url(url.as_str().into()));
                found.parsed(&self.of("jwks_url"), url)
            }
            (None, Some(path)) => {
                if self.refresh_secs.is_some() {
                    found.wrong(&self.of("refresh_secs"), "is for `jwks_url`: a file is read with this one");
                }
                found.parsed(&self.of("jwks_file"), set(&around.base.join(path))).map(|set| KeySource::Set(Arc::new(set)))
            }
            // One that had the wrong type was told, and taken out.
            (None, None) if ["jwks_url", "jwks_file"].into_iter().any(|name| found.told(&self.of(name))) => None,
            (None, None) => {
                found.wrong(&self.here, "does not say where its keys are: give `jwks_url` or `jwks_file`");
                None
            }
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
    steps: &[Step<'_>],
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
        all.extend(found.parsed(&[steps, &[Index(at)]].concat(), parse(text)));
    }
    (all.len() == texts.len()).then_some(all)
}
