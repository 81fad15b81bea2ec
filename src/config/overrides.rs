//! Environment variables that override single settings: `SIGMAGATE__STORE__URL` stands for `url` in `[store]`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use serde_json::Value;

use super::conform::{branches, conform};
use super::document::{Kind, Mistake, Node, Place, parse_variable};

/// What every environment variable that overrides a setting begins with.
const PREFIX: &str = "SIGMAGATE__";

/// The environment as it is: names and values need not be UTF-8, and most are none of our business.
#[derive(Debug, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(variables: T) -> Self {
        Self(variables.into_iter().collect())
    }
}

impl Environment {
    /// The value of one variable.
    ///
    /// # Errors
    /// It is not set, or is not UTF-8; said without its value, which may be a secret.
    pub fn text(&self, name: &str) -> Result<&str, String> {
        let value = self.0.get(OsStr::new(name)).ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
        value.to_str().ok_or_else(|| format!("the environment variable `{name}` is not UTF-8"))
    }

    /// Puts the values of our variables into the document.
    pub fn apply(&self, root: &mut Node, schema: &Value, mistakes: &mut Vec<Mistake>) {
        // In this order a name comes before those that it begins: of `SIGMAGATE__STORE` and `SIGMAGATE__STORE__URL` the
        // longer one counts.
        for (name, value) in self.0.iter().filter(|(name, _)| name.as_bytes().starts_with(PREFIX.as_bytes())) {
            let (Some(name), Some(text)) = (name.to_str(), value.to_str()) else {
                let place = Place::Variable(name.to_string_lossy().into_owned());
                mistakes.push(Mistake { place, key: String::new(), message: "is not UTF-8: only text can override a setting".into() });
                continue;
            };
            let path: Vec<String> = name[PREFIX.len()..].to_ascii_lowercase().split("__").map(str::to_owned).collect();
            put(root, schema, name, &path, value_of(name, text, schema_at(schema, &path)));
        }
    }
}

/// The text as TOML where that fits the setting, else as a string: a pepper of digits is no number.
fn value_of(name: &str, text: &str, schema: Option<&Value>) -> Node {
    let parsed = parse_variable(name, text);
    let string = Node { place: parsed.place.clone(), kind: Kind::String(text.to_owned()) };
    let fits = |node: &Node| schema.is_some_and(|schema| conform(&mut node.clone(), schema).is_empty());
    if !fits(&parsed) && fits(&string) { string } else { parsed }
}

/// Puts a value where the path leads; what is in the way gives way.
fn put(root: &mut Node, schema: &Value, name: &str, path: &[String], value: Node) {
    for end in 1..path.len() {
        let forms = schema_at(schema, &path[..end]).is_some_and(|schema| branches(schema).iter().any(|form| form["type"] == "string"));
        // A secret has several forms. `…__SECRET_PEPPER__FILE` names one of them, and the one in the file gives way as a
        // whole; but `…__SECRET_PEPPER__ENV` beside it is a mistake, which stays to be told.
        let of_this = &name[..name.len() - path[end..].iter().map(|key| key.len() + "__".len()).sum::<usize>() + "__".len()];
        let beside = |place: &Place| matches!(place, Place::Variable(other) if other.starts_with(of_this));
        if forms && let Some(node) = root.at(&path[..end]).filter(|node| !beside(&node.place)) {
            *node = Node { place: value.place.clone(), kind: Kind::Table(Vec::new()) };
        }
    }
    root.set(path, value);
}

/// The schema of the value that a path leads to.
fn schema_at<'a>(root: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(root, |schema, key| branches(schema).into_iter().find_map(|form| form["properties"].get(key)))
}
