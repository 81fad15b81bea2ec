//! What must hold for whatever bytes arrive, held against what the fuzz targets have collected.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "fuzz/properties.rs"]
mod properties;

use std::path::Path;

fn each(target: &str, property: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        let held = std::panic::catch_unwind(|| property(&data));
        assert!(held.is_ok(), "it does not hold for {}", path.display());
        count += 1;
    }
    assert!(count >= 10, "the corpus of {target} has {count} files");
}

#[test]
fn request_targets() {
    each("request_target", properties::request_target);
}

#[test]
fn route_tables() {
    each("route_table", properties::route_table);
}

#[test]
fn credentials() {
    each("credentials", properties::credentials);
}

#[test]
fn tokens() {
    each("tokens", properties::tokens);
}

#[test]
fn configurations() {
    each("configuration", properties::configuration);
}

#[test]
fn requests_of_http1() {
    each("http1", properties::http1);
}
