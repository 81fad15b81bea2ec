//! Mails that become files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{Failure, Letter};

/// Writes a letter as `NAME.eml`, whole or not at all; again, in place of itself. Others may not read it: it is about
/// people.
pub(super) async fn write(folder: &Path, letter: &Letter) -> Result<(), Failure> {
    let (folder, name, content) = (folder.to_owned(), letter.name.clone(), letter.content.clone());
    let shown = folder.display().to_string();
    let written = tokio::task::spawn_blocking(move || put(&folder, &name, &content)).await;
    let why = match written {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Failure::Transport(format!("no file could be written in `{shown}`: {why}")))
}

fn put(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let unfinished: PathBuf = folder.join(format!(".{name}.{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&unfinished, folder.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written?;
    File::open(folder)?.sync_all()
}
