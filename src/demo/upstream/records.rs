//! Made-up records: no such person, practice or claim exists.

use std::sync::LazyLock;

use serde_json::{Map, Value};

/// Collections by path below the prefix, as `billing/invoices`.
static RECORDS: LazyLock<Map<String, Value>> =
    LazyLock::new(|| serde_json::from_str(include_str!("records.json")).expect("a test reads the same file"));

/// What a path leads to.
pub enum Found {
    /// An area with collections, such as `billing`; their names.
    Area(Vec<&'static str>),
    /// All records of a collection.
    Collection(&'static [Value]),
    /// One record.
    Record(&'static Value),
    /// Nothing.
    Nothing,
}

/// What lies at a path below the prefix.
pub fn find(path: &str) -> Found {
    if let Some(items) = collection(path) {
        return Found::Collection(items);
    }
    if let Some((parent, id)) = path.rsplit_once('/')
        && let Some(record) = collection(parent).and_then(|items| items.iter().find(|item| item["id"] == id))
    {
        return Found::Record(record);
    }
    let inside: Vec<_> = RECORDS.keys().filter_map(|name| name.strip_prefix(path)?.strip_prefix('/')).collect();
    if inside.is_empty() { Found::Nothing } else { Found::Area(inside) }
}

fn collection(path: &str) -> Option<&'static [Value]> {
    RECORDS.get(path)?.as_array().map(Vec::as_slice)
}

#[cfg(test)]
pub fn collections() -> impl Iterator<Item = (&'static str, &'static [Value])> {
    RECORDS.iter().map(|(name, items)| (name.as_str(), items.as_array().expect("collections are arrays").as_slice()))
}
