//! The structure of the source, checked: which module may use which, how long files are, what must not be left behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the bottom up. A module uses those of the rows above its own, and those of its row that stand in it
/// only as `allowed` says.
const LAYERS: &[&[&str]] = &[
    &["id", "clock", "tls", "scope", "digest"],
    &["entity", "credential", "token", "upstream"],
    &["route", "access"],
    &["record", "store", "limit", "jwks"],
    &["cache", "authn", "config"],
    &["bearer"],
    &["feed", "gate", "lifecycle", "metrics", "tally"],
    &["telemetry", "canary", "oauth", "mail"],
    &["proxy", "admin", "reload"],
    &["server", "manage"],
    &["demo"],
    &["cli"],
];

/// Neighbours that may know each other: entities hold digests, and digests are compared with what entities hold; a key says
/// what it signs by, and a certificate when it ends.
const NEIGHBOURS: &[(&str, &str)] = &[("tls", "clock"), ("entity", "credential"), ("entity", "token"), ("access", "route")];

/// Where each outside crate is at home.
const HOMES: &[(&str, &[&str])] = &[
    ("pingora", &["proxy"]),
    ("rustls", &["proxy", "tls"]),
    ("axum", &["admin", "demo"]),
    ("sqlx", &["store"]),
    ("dashmap", &["cache", "proxy", "limit"]),
    ("governor", &["limit"]),
    ("moka", &["bearer"]),
    ("lettre", &["mail"]),
    ("askama", &["mail"]),
    ("jsonwebtoken", &["token"]),
    ("aws_lc_rs", &["token", "digest"]),
    ("reqwest", &["jwks", "manage"]),
    ("prometheus", &["metrics"]),
    ("toml", &["config"]),
    ("clap", &["cli", "demo"]),
    ("notify", &["reload", "server", "store"]),
    ("rustix", &["clock", "metrics", "demo", "server"]),
];

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn all() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let module =
        |path: &Path| path.strip_prefix(&root).unwrap().iter().next().unwrap().to_string_lossy().trim_end_matches(".rs").to_owned();
    files.into_iter().map(|path| (module(&path), path.clone(), fs::read_to_string(&path).unwrap())).collect()
}

/// The source without its tests and comments.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end].lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests")) || path.ends_with("suite.rs")
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&module))
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let mut wrong = BTreeSet::new();
    for (module, path, text) in all().into_iter().filter(|(module, path, _)| !is_test(path) && module != "lib" && module != "main") {
        let own = layer(&module).unwrap_or_else(|| panic!("`{module}` has no layer"));
        for (at, _) in code(&text).match_indices("crate::") {
            let used: String = code(&text)[at + 7..].chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
            let Some(other) = layer(&used) else { continue };
            let neighbours = NEIGHBOURS.iter().any(|(a, b)| (module == *a && used == *b) || (module == *b && used == *a));
            if used != module && other >= own && !neighbours {
                wrong.insert(format!("{} uses `{used}`", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn each_outside_crate_has_its_home() {
    let mut wrong = BTreeSet::new();
    for (module, path, text) in all().into_iter().filter(|(module, path, _)| !is_test(path) && module != "main") {
        for (krate, homes) in HOMES {
            let used = code(&text).lines().any(|line| {
                let line = line.trim_start();
                line.starts_with(&format!("use {krate}::"))
                    || line.contains(&format!(" {krate}::"))
                    || line.contains(&format!("({krate}::"))
            });
            if used && !homes.contains(&module.as_str()) {
                wrong.insert(format!("{} uses {krate}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn no_file_is_too_long_to_read_and_nothing_is_left_behind() {
    for (_, path, text) in all() {
        assert!(text.lines().count() <= 600, "{} has more than 600 lines: look for a seam", path.display());
        for mark in [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["todo", "!("].concat(), ["unimplemented", "!("].concat()] {
            assert!(!text.contains(&mark), "{} has a {mark}", path.display());
        }
    }
}

#[test]
fn only_one_place_reads_the_clock() {
    for (module, path, text) in all().into_iter().filter(|(module, path, _)| module != "clock" && !is_test(path)) {
        // tokio's own timers count by tokio's clock; nothing that is decided does.
        for clock in ["SystemTime::now", "std::time::Instant"] {
            assert!(!code(&text).contains(clock), "{} ({module}) reads {clock}", path.display());
        }
    }
}
