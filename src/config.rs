//! Configuration: what the files and the environment may say -> what the program may assume.

pub mod check;
mod conform;
mod document;
mod file;
mod gateway;
mod issuers;
mod mail;
mod oauth;
mod overrides;
mod routes;
mod upstreams;

pub use document::{Mistake, Place};
pub use file::{LogFormat, SmtpTls};
pub use gateway::{Gateway, Limits, Listener, StoreSettings, Telemetry};
pub use mail::{Mail, MailTransport, Mailbox, Smtp, SmtpLogin};
pub use oauth::{OAUTH_PATHS, OAuth, ResourceServer};
pub use routes::RouteMap;
pub use upstreams::Upstreams;

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::generate::SchemaSettings;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::scope::ScopeRegistry;
use conform::{conform, join, nearest};
use document::{Kind, Node, Step};
use file::{GatewayFile, RoutesFile};
use overrides::Environment;

/// The variable that overrides `store.url`.
pub const DATABASE_VARIABLE: &str = "SIGMAGATE__STORE__URL";

/// What the settings are loaded for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To run the gateway, or to prove that it would.
    Serving,
    /// For anything else.
    Telling,
}

/// Where the configuration is.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The settings; `None`: the defaults.
    pub gateway: Option<PathBuf>,
    /// The route map.
    pub routes: PathBuf,
}

/// Everything that the configuration says.
#[derive(Debug)]
pub struct Config {
    /// The settings.
    pub gateway: Gateway,
    /// The route map.
    pub routes: RouteMap,
}

/// Everything that is wrong, each thing on a line of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistakes(pub Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {}", if self.0.len() == 1 { "a mistake".into() } else { format!("{} mistakes", self.0.len()) })?;
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for Mistakes {}

/// Loads both files, and proves the certificates that they name. Resolves host names of upstreams, so it may block for as
/// long as DNS takes.
///
/// # Errors
/// Every mistake of both files and of the environment at once.
pub fn load(sources: &Sources, env: impl IntoIterator<Item = (OsString, OsString)>, registry: &ScopeRegistry) -> Result<Config, Mistakes> {
    load_for(Purpose::Serving, sources, env, registry)
}

/// Loads both files, to tell of them: as [`load`], but whoever asks need be able neither to read the private keys nor to
/// resolve the names of upstreams, which then have no servers.
///
/// # Errors
/// As of [`load`].
pub fn load_to_tell(
    sources: &Sources,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    registry: &ScopeRegistry,
) -> Result<Config, Mistakes> {
    load_for(Purpose::Telling, sources, env, registry)
}

fn load_for(
    purpose: Purpose,
    sources: &Sources,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    registry: &ScopeRegistry,
) -> Result<Config, Mistakes> {
    let mut mistakes = Vec::new();
    let gateway = gateway_of(purpose, sources.gateway.as_deref(), env, &mut mistakes);
    let routes = routes_of(purpose, &sources.routes, &gateway, registry, &Upstreams::new(), &mut mistakes);
    match routes {
        Some(routes) if mistakes.is_empty() => Ok(Config { gateway, routes }),
        _ => Err(Mistakes(mistakes)),
    }
}

/// Loads the settings alone, to manage what is in the store. Whoever does need not be able to read the private keys.
///
/// # Errors
/// Every mistake at once.
pub fn load_gateway(path: Option<&Path>, env: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Gateway, Mistakes> {
    let mut mistakes = Vec::new();
    let gateway = gateway_of(Purpose::Telling, path, env, &mut mistakes);
    if mistakes.is_empty() { Ok(gateway) } else { Err(Mistakes(mistakes)) }
}

/// Loads the route map alone, for a gateway with these settings. Upstreams of which it says the same as of those of `before`
/// are those, with all that is known of them.
///
/// # Errors
/// Every mistake at once.
pub fn load_routes(path: &Path, gateway: &Gateway, registry: &ScopeRegistry, before: &Upstreams) -> Result<RouteMap, Mistakes> {
    let mut mistakes = Vec::new();
    match routes_of(Purpose::Serving, path, gateway, registry, before, &mut mistakes) {
        Some(routes) if mistakes.is_empty() => Ok(routes),
        _ => Err(Mistakes(mistakes)),
    }
}

/// The JSON Schema of `gateway.toml`.
#[must_use]
pub fn gateway_schema() -> Value {
    schema::<GatewayFile>()
}

/// The JSON Schema of `routes.toml`.
#[must_use]
pub fn routes_schema() -> Value {
    schema::<RoutesFile>()
}

fn schema<T: schemars::JsonSchema>() -> Value {
    // Inlined, so that whoever reads it follows no references.
    let settings = SchemaSettings::draft2020_12().for_deserialize().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<T>().to_value()
}

fn gateway_of(
    purpose: Purpose,
    path: Option<&Path>,
    env: impl IntoIterator<Item = (OsString, OsString)>,
    mistakes: &mut Vec<Mistake>,
) -> Gateway {
    // Of a file whose syntax is wrong nothing else is told: what could be read of it may not be what was meant.
    let mut node = path.and_then(|path| read(path, mistakes)).unwrap_or_else(empty);
    let schema = gateway_schema();
    let env = Environment::from_iter(env);
    env.apply(&mut node, &schema, mistakes);
    let file: GatewayFile = typed(&mut node, &schema, mistakes);
    let mut found = Found { node: &node, mistakes };
    let base = path.and_then(Path::parent).unwrap_or(Path::new("")).to_owned();
    if purpose == Purpose::Serving {
        gateway::certificates(&file, &base, &mut found);
    }
    gateway::build(&file, &base, &env, &mut found)
}

fn routes_of(
    purpose: Purpose,
    path: &Path,
    gateway: &Gateway,
    registry: &ScopeRegistry,
    before: &Upstreams,
    mistakes: &mut Vec<Mistake>,
) -> Option<RouteMap> {
    let mut node = read(path, mistakes)?;
    let file: RoutesFile = typed(&mut node, &routes_schema(), mistakes);
    let base = path.parent().unwrap_or(Path::new(""));
    routes::build(&file, base, purpose, gateway, registry, before, &mut Found { node: &node, mistakes })
}

fn empty() -> Node {
    Node { place: Place::File { path: PathBuf::new(), line: 0, column: 0 }, kind: Kind::Table(Vec::new()) }
}

/// The file, or what keeps it from being read.
fn read(path: &Path, mistakes: &mut Vec<Mistake>) -> Option<Node> {
    let message = match std::fs::read(path).map(String::from_utf8) {
        Ok(Ok(text)) => {
            let (node, wrong) = document::parse(path, &text);
            let whole = wrong.is_empty();
            mistakes.extend(wrong);
            return whole.then_some(node);
        }
        Ok(Err(_)) => "is not UTF-8: save it as UTF-8".to_owned(),
        Err(error) => format!("cannot be read ({error}): make the file, or name another with --config or --routes"),
    };
    mistakes.push(Mistake { place: Place::File { path: path.to_owned(), line: 0, column: 0 }, key: String::new(), message });
    None
}

/// The document as its type, once everything that does not conform has been taken out and told.
fn typed<T: DeserializeOwned + Default>(node: &mut Node, schema: &Value, mistakes: &mut Vec<Mistake>) -> T {
    mistakes.extend(conform(node, schema));
    serde_json::from_value(node.to_json()).unwrap_or_else(|error| {
        mistakes.push(Mistake { place: node.place.clone(), key: String::new(), message: error.to_string() });
        T::default()
    })
}

/// Tells what is wrong with a value, and where it stands.
struct Found<'a> {
    node: &'a Node,
    mistakes: &'a mut Vec<Mistake>,
}

impl Found<'_> {
    fn wrong(&mut self, steps: &[Step<'_>], message: impl Into<String>) {
        // A missing key was told when the document was held against its schema: what stands in its place is empty.
        if let [parent @ .., Step::Key(name)] = steps
            && !self.has(parent, name)
            && self
                .mistakes
                .iter()
                .any(|mistake| mistake.message == conform::missing(name) && mistake.place == self.node.nearest(parent).place)
        {
            return;
        }
        // So was what had the wrong type.
        if !self.told(steps) {
            self.mistakes.push(Mistake { place: self.node.nearest(steps).place.clone(), key: spelled(steps), message: message.into() });
        }
    }

    /// Whether something is wrong with the value already.
    fn told(&self, steps: &[Step<'_>]) -> bool {
        let key = spelled(steps);
        self.mistakes.iter().any(|mistake| mistake.key == key)
    }

    /// Whether the key is there.
    fn has(&self, steps: &[Step<'_>], name: &str) -> bool {
        matches!(&self.node.nearest(steps).kind, Kind::Table(entries) if entries.iter().any(|entry| entry.name == name))
    }

    /// The value at `steps` parsed, or its mistake told.
    fn parsed<T>(&mut self, steps: &[Step<'_>], result: Result<T, impl fmt::Display>) -> Option<T> {
        result.map_err(|error| self.wrong(steps, error.to_string())).ok()
    }
}

/// The steps as a mistake writes them: `routes[3].upstream`.
fn spelled(steps: &[Step<'_>]) -> String {
    steps.iter().fold(String::new(), |key, step| match step {
        Step::Key(name) => join(&key, name),
        Step::Index(at) => format!("{key}[{at}]"),
    })
}

/// `did you mean` with the nearest of the known names, or all of them.
fn did_you_mean(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "none is declared".to_owned(),
        None => format!("declared are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;
