//! A TOML document that knows where each of its values stands, with the environment's overrides in it.

use std::fmt::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// One thing that is wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where it stands: a file, with line and column, or an environment variable.
    pub place: Place,
    /// The key, as `routes[3].upstream`; empty when it is about the whole file.
    pub key: String,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file; line and column count from 1, and are 0 when it is about the whole file.
    File {
        /// The file.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// An environment variable.
    Variable(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", Printable(&self.key))?;
        }
        Printable(&self.message).fmt(f)
    }
}

/// A text that may quote a file, with its control characters escaped: none of them reaches a terminal or a log.
pub struct Printable<'a>(pub &'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| if c.is_control() { write!(f, "{}", c.escape_default()) } else { f.write_char(c) })
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    pub place: Place,
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Kind {
    String(String),
    Integer(i64),
    Boolean(bool),
    Other(&'static str),
    Array(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub place: Place,
    pub value: Node,
}

impl Kind {
    /// What to call it in a message.
    pub const fn noun(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Boolean(_) => "a boolean",
            Self::Other(noun) => noun,
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }
}

/// One step from a table or an array to a value in it.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    Key(&'a str),
    Index(usize),
}

impl Node {
    /// The value that the steps lead to, or the last one on the way that is there.
    pub fn nearest(&self, steps: &[Step<'_>]) -> &Self {
        let mut node = self;
        for step in steps {
            let next = match (step, &node.kind) {
                (Step::Key(name), Kind::Table(entries)) => entries.iter().find(|entry| entry.name == *name).map(|entry| &entry.value),
                (Step::Index(at), Kind::Array(items)) => items.get(*at),
                _ => None,
            };
            let Some(next) = next else { break };
            node = next;
        }
        node
    }

    /// The value that the keys lead to.
    pub fn at(&mut self, path: &[String]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, name| match &mut node.kind {
            Kind::Table(entries) => entries.iter_mut().find(|entry| entry.name == *name).map(|entry| &mut entry.value),
            _ => None,
        })
    }

    /// The same as JSON, for serde.
    pub fn to_json(&self) -> Value {
        match &self.kind {
            Kind::String(text) => Value::String(text.clone()),
            Kind::Integer(number) => Value::from(*number),
            Kind::Boolean(yes) => Value::Bool(*yes),
            Kind::Other(_) => Value::Null,
            Kind::Array(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Kind::Table(entries) => Value::Object(entries.iter().map(|e| (e.name.clone(), e.value.to_json())).collect::<Map<_, _>>()),
        }
    }

    /// Puts a value where an environment variable says.
    pub fn set(&mut self, path: &[String], value: Self) {
        let [first, rest @ ..] = path else {
            *self = value;
            return;
        };
        if !matches!(self.kind, Kind::Table(_)) {
            self.kind = Kind::Table(Vec::new());
        }
        let Kind::Table(entries) = &mut self.kind else { return };
        let at = entries.iter().position(|entry| entry.name == *first).unwrap_or_else(|| {
            let place = value.place.clone();
            entries.push(Entry { name: first.clone(), place: place.clone(), value: Self { place, kind: Kind::Table(Vec::new()) } });
            entries.len() - 1
        });
        if rest.is_empty() {
            entries[at].place = value.place.clone();
        }
        entries[at].value.set(rest, value);
    }
}

/// Parses a file. Every mistake of its syntax is told; if there is any, the document is not to be relied on.
pub fn parse(path: &Path, text: &str) -> (Node, Vec<Mistake>) {
    let source =
        Source { path: path.into(), starts: std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect(), text };
    let (table, errors) = DeTable::parse_recoverable(text);
    let mistakes = errors.iter().map(|error| Mistake {
        place: error.span().map_or_else(|| source.whole(), |span| source.place(&span)),
        key: String::new(),
        message: error.message().to_owned(),
    });
    let node = Node { place: source.whole(), kind: source.table(table.get_ref()) };
    (node, mistakes.collect())
}

/// The value that an environment variable gives: TOML if it is, else a string.
pub fn parse_variable(name: &str, text: &str) -> Node {
    let place = Place::Variable(name.to_owned());
    let source = Source { path: Arc::from(Path::new("")), starts: vec![0], text };
    let kind = DeValue::parse(text).map_or_else(|_| Kind::String(text.to_owned()), |value| source.kind(value.get_ref()));
    let mut node = Node { place: place.clone(), kind };
    node.replace_places(&place);
    node
}

impl Node {
    fn replace_places(&mut self, place: &Place) {
        self.place = place.clone();
        match &mut self.kind {
            Kind::Array(items) => items.iter_mut().for_each(|item| item.replace_places(place)),
            Kind::Table(entries) => entries.iter_mut().for_each(|entry| {
                entry.place = place.clone();
                entry.value.replace_places(place);
            }),
            _ => {}
        }
    }
}

struct Source<'a> {
    path: Arc<Path>,
    starts: Vec<usize>,
    text: &'a str,
}

impl Source<'_> {
    fn whole(&self) -> Place {
        Place::File { path: self.path.to_path_buf(), line: 0, column: 0 }
    }

    fn place(&self, span: &Range<usize>) -> Place {
        let line = self.starts.partition_point(|start| *start <= span.start);
        let start = self.starts[line - 1];
        let column = self.text.get(start..span.start).map_or(0, |before| before.chars().count()) + 1;
        Place::File { path: self.path.to_path_buf(), line, column }
    }

    fn node(&self, value: &Spanned<DeValue<'_>>) -> Node {
        Node { place: self.place(&value.span()), kind: self.kind(value.get_ref()) }
    }

    fn kind(&self, value: &DeValue<'_>) -> Kind {
        match value {
            DeValue::String(text) => Kind::String(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Kind::Integer(number),
                Err(_) => Kind::Other("an integer of more than 64 bits"),
            },
            DeValue::Boolean(yes) => Kind::Boolean(*yes),
            DeValue::Float(_) => Kind::Other("a floating-point number"),
            DeValue::Datetime(_) => Kind::Other("a date or time"),
            DeValue::Array(items) => Kind::Array(items.iter().map(|item| self.node(item)).collect()),
            DeValue::Table(table) => self.table(table),
        }
    }

    fn table(&self, table: &DeTable<'_>) -> Kind {
        let entry = |(name, value): (&Spanned<std::borrow::Cow<'_, str>>, &Spanned<DeValue<'_>>)| Entry {
            name: name.get_ref().to_string(),
            place: self.place(&name.span()),
            value: self.node(value),
        };
        Kind::Table(table.iter().map(entry).collect())
    }
}
