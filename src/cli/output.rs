//! What the verbs print, and the exit code that scripts go by.

use std::io::Write;

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use serde_json::Value;

use crate::manage::Refused;
use crate::store::Receipt;
use crate::{lifecycle, store};

/// The command's arguments mean nothing together; the text says what would.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// Something could not be done; the text says what.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failed(pub String);

/// The exit code for a failure: 1 failure, 2 usage, 3 not found, 4 conflict. (0 is success; clap itself exits with 2.)
#[must_use]
pub fn exit_code(error: &anyhow::Error) -> u8 {
    for cause in error.chain() {
        if cause.is::<Usage>() {
            return 2;
        }
        if let Some(refused) = cause.downcast_ref::<Refused>() {
            return refused.exit_code();
        }
        let store_error = match cause.downcast_ref::<lifecycle::Error>() {
            Some(lifecycle::Error::Invalid(_)) => return 2,
            // Its cause says why the nodes could not be waited for, not how the command went.
            Some(lifecycle::Error::Unconfirmed { .. }) => return 1,
            Some(lifecycle::Error::Store(error)) => Some(error),
            None => cause.downcast_ref::<store::Error>(),
        };
        match store_error {
            Some(store::Error::NotFound { .. }) => return 3,
            Some(store::Error::Conflict(_) | store::Error::Changed { .. }) => return 4,
            Some(store::Error::Unusable { .. } | store::Error::Deposed(_) | store::Error::Database(_) | store::Error::Row { .. }) => {
                return 1;
            }
            None => {}
        }
    }
    1
}

/// A table without frames, as wide as the terminal.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_header(header);
    table
}

/// Prints the table, or, if nothing is in it, a sentence that says so.
pub(super) fn print_table(out: &mut dyn Write, table: &Table, if_empty: &str) -> anyhow::Result<()> {
    if table.is_empty() {
        writeln!(out, "{if_empty}")?;
    }
    for line in table.lines().filter(|_| !table.is_empty()) {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Prints a value as one JSON document.
pub(super) fn print_json(out: &mut dyn Write, value: &impl Serialize) -> anyhow::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)?;
    Ok(())
}

/// Prints what was done, and how it came into force.
pub(super) fn print_changed(out: &mut dyn Write, json: bool, done: &str, changed: &Value) -> anyhow::Result<()> {
    if json {
        return print_json(out, changed);
    }
    writeln!(out, "{done}")?;
    if changed["receipt"].is_null() {
        writeln!(out, "It was so already.")?;
    } else {
        writeln!(out, "{}", in_force(&changed["receipt"]))?;
    }
    Ok(())
}

/// Prints what was done to the store itself, and how it came into force.
pub(super) fn print_receipt(out: &mut dyn Write, json: bool, done: &str, receipt: &Receipt) -> anyhow::Result<()> {
    if json {
        return print_json(out, receipt);
    }
    writeln!(out, "{done}")?;
    writeln!(out, "{}", in_force(&serde_json::to_value(receipt)?))?;
    Ok(())
}

/// One sentence for people about a receipt.
pub(super) fn in_force(receipt: &Value) -> String {
    let count = |name: &str| receipt[name].as_u64().unwrap_or(0);
    let (waited, revision) = (count("waited_ms"), count("revision"));
    match (count("applied"), count("expired")) {
        (0, 0) => format!("In force: no gateway is running (revision {revision})."),
        (applied, 0) => format!("In force on {} after {waited} ms (revision {revision}).", gateways(applied)),
        (applied, expired) => format!(
            "In force on {} after {waited} ms; {} had not applied it and can no longer answer (revision {revision}).",
            gateways(applied),
            gateways(expired)
        ),
    }
}

/// A value as a table shows it.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => join(&items.iter().map(text).collect::<Vec<_>>()),
        other => other.to_string(),
    }
}

/// With blanks between them.
pub(super) fn join(items: &[String]) -> String {
    items.join(" ")
}

fn gateways(count: u64) -> String {
    if count == 1 { "1 gateway".to_owned() } else { format!("{count} gateways") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_failure_has_its_exit_code() {
        let not_found = || store::Error::NotFound { what: "client", id: "x".into() };
        for (error, want) in [
            (anyhow::Error::new(not_found()), 3),
            (anyhow::Error::new(lifecycle::Error::Store(not_found())).context("while revoking"), 3),
            (anyhow::Error::new(lifecycle::Error::Store(store::Error::Conflict("c".into()))), 4),
            (anyhow::Error::new(lifecycle::Error::Invalid("i".into())), 2),
            (anyhow::Error::new(Usage("u".into())), 2),
            (anyhow::Error::new(store::Error::Unusable { message: "m".into(), source: None }), 1),
            (anyhow::anyhow!("anything"), 1),
        ] {
            assert_eq!(exit_code(&error), want, "{error:#}");
        }
    }
}
