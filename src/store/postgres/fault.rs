//! What a failure of the database means, in words that say what to do.

use crate::store::Error;

/// The error for a database that cannot be used.
pub(super) fn unusable(message: String) -> Error {
    Error::Unusable { message, source: None }
}

/// Says what a database error means; leaves every other error as it is.
pub(super) fn explain(place: &str, error: Error) -> Error {
    let Error::Database(source) = error else { return error };
    let (code, text) = match source.as_database_error() {
        Some(error) => (error.code().unwrap_or_default().into_owned(), error.message().to_owned()),
        None => (String::new(), String::new()),
    };
    let message = match (&*code, &source) {
        // One of our own texts, which says what is final.
        ("23000", _) => return Error::Conflict(text),
        ("23505", _) if source.as_database_error().and_then(|error| error.constraint()) == Some("clients_pkey") => {
            return Error::Conflict("a client cannot be replaced: its id is taken for good".to_owned());
        }
        ("23505", _) => return Error::Conflict("somebody made the same at the same moment: look, and try again".to_owned()),
        ("28P01" | "28000", _) => format!("{place} refuses the user or the password ({text}): correct `store.url`"),
        ("3D000", _) => format!("{place} has no such database ({text}): create it (`createdb`), or correct `store.url`"),
        ("42501", _) => {
            format!("{text} at {place}: grant the role the group `gateway_node` or `gateway_management`, whichever its work is")
        }
        ("25006", _) => format!("{place} is a standby or read-only ({text}): name the primary in `store.url`"),
        ("55000", _) if text.contains("recovery") => {
            format!("{place} is a standby, which can prove nothing: name the primary in `store.url`")
        }
        ("53300", _) => format!("{place} takes no more connections ({text}): raise `max_connections`"),
        ("3F000" | "42P01" | "42883", _) => {
            format!("{place} lacks what the gateway needs ({text}): run `sigmagate migrate`")
        }
        // One that says by itself what to do.
        ("P0001", _) => format!("{place}: {text}"),
        // Nothing was changed: the transaction was undone.
        ("40001" | "40P01", _) => format!("{place} gave up this transaction in favour of another ({text}): do it again"),
        ("57014" | "55P03", _) => format!("{place} took too long ({text}): another transaction holds what this one needs"),
        ("57P01" | "57P02" | "57P03", _) => format!("{place} is shutting down or starting ({text}): try again in a moment"),
        // What TLS finds wrong in what it reads comes as this, too.
        (_, sqlx::Error::Io(error)) if error.kind() == std::io::ErrorKind::InvalidData => no_tls(place, error),
        (_, sqlx::Error::Io(error)) => format!("{place} cannot be reached ({error}): is it running, and is `store.url` right?"),
        (_, sqlx::Error::Tls(error)) => no_tls(place, error),
        (_, sqlx::Error::PoolTimedOut) => format!("{place} gives no connection in time: is it overloaded?"),
        _ => return Error::Database(source),
    };
    Error::Unusable { message, source: Some(source) }
}

fn no_tls(place: &str, error: &dyn std::fmt::Display) -> String {
    format!("no TLS with {place} ({error}): look at `sslmode` and `sslrootcert` in `store.url`")
}
