//! Holds a document against the schema of its type: unknown keys, wrong types, missing keys, numbers out of bounds.
//!
//! What does not conform is taken out, so that the rest can be looked at too and every mistake is told at once.

use serde_json::Value;

use super::document::{Entry, Kind, Mistake, Node};

/// Takes out of `node` whatever the schema does not allow, and says what that was.
pub fn conform(node: &mut Node, schema: &Value) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    walk(node, schema, "", &mut mistakes);
    mistakes
}

/// Whether the value may stay.
fn walk(node: &mut Node, schema: &Value, key: &str, mistakes: &mut Vec<Mistake>) -> bool {
    if let Kind::String(text) = &node.kind {
        let words = words(schema);
        if !words.is_empty() && !words.contains(&text.as_str()) {
            let expected = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
            mistakes.push(mistake(node, key, format!("`{text}` is none of {expected}")));
            return false;
        }
    }
    let forms = schema;
    let Some(schema) = choose(forms, &node.kind) else {
        mistakes.push(mistake(node, key, format!("expected {}, found {}", expected(schema), node.kind.noun())));
        return false;
    };
    match &mut node.kind {
        Kind::Table(entries) => {
            let before = mistakes.len();
            table(entries, schema, &properties(forms), key, mistakes);
            // One of several forms that is not whole is none of them, and that it is not has been told.
            if mistakes.len() > before && !std::ptr::eq(forms, schema) {
                return false;
            }
            let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            for name in required {
                // A key that was taken out has been told already.
                let present = matches!(&node.kind, Kind::Table(entries) if entries.iter().any(|entry| entry.name == name));
                let told = mistakes.iter().any(|mistake| mistake.key == join(key, name));
                if !present && !told {
                    mistakes.push(mistake(node, key, missing(name)));
                }
            }
        }
        Kind::Array(items) => {
            let mut at = 0;
            items.retain_mut(|item| {
                let kept = walk(item, &schema["items"], &format!("{key}[{at}]"), mistakes);
                at += 1;
                // Places in the array are told by number: what is wrong is left out only at the end of a check.
                kept
            });
        }
        Kind::Integer(number) => {
            let (low, high) = (bound(schema, "minimum"), bound(schema, "maximum"));
            if low.is_some_and(|low| *number < low) || high.is_some_and(|high| *number > high) {
                let range = match (low, high) {
                    (Some(low), Some(high)) => format!("from {low} to {high}"),
                    (Some(low), None) => format!("of at least {low}"),
                    _ => format!("of at most {}", high.unwrap_or(i64::MAX)),
                };
                let message = format!("{number} is out of bounds: expected an integer {range}");
                mistakes.push(mistake(node, key, message));
                return false;
            }
        }
        Kind::String(_) | Kind::Boolean(_) | Kind::Other(_) => {}
    }
    true
}

/// What is said of a key that is not there.
pub fn missing(name: &str) -> String {
    format!("the key `{name}` is missing")
}

/// Looks at each entry; `known` are the keys that a table may have here, in one form or another.
fn table(entries: &mut Vec<Entry>, schema: &Value, known: &[&str], key: &str, mistakes: &mut Vec<Mistake>) {
    let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    entries.retain_mut(|entry| {
        let path = join(key, &entry.name);
        let of_key =
            schema["properties"].get(&entry.name).or_else(|| Some(&schema["additionalProperties"]).filter(|other| other.is_object()));
        let Some(of_key) = of_key else {
            let message = if known.contains(&entry.name.as_str()) {
                let other = names.iter().find(|name| schema["properties"].get(name).is_some()).map_or("the other", String::as_str);
                format!("cannot stand beside `{other}`: keep one of them")
            } else {
                let hint = nearest(&entry.name, known)
                    .map_or_else(|| format!("known are {}", known.join(", ")), |name| format!("did you mean `{name}`?"));
                format!("unknown key; {hint}")
            };
            mistakes.push(Mistake { place: entry.place.clone(), key: path, message });
            return false;
        };
        walk(&mut entry.value, of_key, &path, mistakes)
    });
}

/// The keys of a table, or of all forms of table that may stand here.
fn properties(schema: &Value) -> Vec<&str> {
    branches(schema).into_iter().filter_map(|form| form["properties"].as_object()).flatten().map(|(name, _)| name.as_str()).collect()
}

/// The forms that a value may have.
pub fn branches(schema: &Value) -> Vec<&Value> {
    match schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
        Some(forms) => forms.iter().flat_map(branches).collect(),
        None => vec![schema],
    }
}

/// The schema, or the branch of it, that is about values of this kind.
fn choose<'a>(schema: &'a Value, kind: &Kind) -> Option<&'a Value> {
    let branches = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
    if let Some(branches) = branches {
        let fitting = || branches.iter().filter_map(|branch| choose(branch, kind));
        // Of several kinds of table, the one that knows a key of this one.
        let knows = |branch: &&Value| match kind {
            Kind::Table(entries) => entries.iter().any(|entry| branch["properties"].get(&entry.name).is_some()),
            _ => true,
        };
        return fitting().find(knows).or_else(|| fitting().next());
    }
    let name = match kind {
        Kind::String(_) => "string",
        Kind::Integer(_) => "integer",
        Kind::Boolean(_) => "boolean",
        Kind::Array(_) => "array",
        Kind::Table(_) => "object",
        Kind::Other(_) => return None,
    };
    let fits = match &schema["type"] {
        Value::String(word) => word == name,
        Value::Array(words) => words.iter().any(|word| word == name),
        _ => true,
    };
    fits.then_some(schema)
}

/// The words of an enumeration; none where any text will do.
fn words(schema: &Value) -> Vec<&str> {
    let branches = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
    let here = schema["const"].as_str().into_iter().chain(schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str));
    here.chain(branches.into_iter().flatten().flat_map(words)).collect()
}

fn expected(schema: &Value) -> String {
    let mut nouns = Vec::new();
    collect_nouns(schema, &mut nouns);
    nouns.join(" or ")
}

fn collect_nouns(schema: &Value, nouns: &mut Vec<&'static str>) {
    let types = schema["type"].as_array().map_or_else(|| std::slice::from_ref(&schema["type"]), Vec::as_slice);
    for name in types.iter().filter_map(Value::as_str) {
        let noun = match name {
            "string" => "a string",
            "integer" => "an integer",
            "boolean" => "a boolean",
            "array" => "an array",
            "object" => "a table",
            // `null` stands for a key that is left out.
            _ => continue,
        };
        if !nouns.contains(&noun) {
            nouns.push(noun);
        }
    }
    let branches = schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array());
    branches.into_iter().flatten().for_each(|branch| collect_nouns(branch, nouns));
}

fn bound(schema: &Value, name: &str) -> Option<i64> {
    let value = &schema[name];
    // Schemars writes bounds as integers or, from some types, as decimals without a fraction.
    value.as_i64().or_else(|| format!("{:.0}", value.as_f64()?).parse().ok())
}

/// The key of an entry, as TOML would have it: what is no bare key is quoted, and does nothing to a terminal.
pub fn join(key: &str, name: &str) -> String {
    let bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let name = if bare { name.to_owned() } else { format!("{name:?}") };
    if key.is_empty() { name } else { format!("{key}.{name}") }
}

fn mistake(node: &Node, key: &str, message: String) -> Mistake {
    Mistake { place: node.place.clone(), key: key.to_owned(), message }
}

/// The known name that `name` was probably meant to be.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let best = known.iter().map(|known| (strsim::osa_distance(name, known), *known)).min()?;
    (best.0 <= 1 + name.len() / 4).then_some(best.1)
}
