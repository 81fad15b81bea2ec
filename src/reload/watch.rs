//! Which changes of files are looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use super::Reloader;

/// How long a file must be left alone before it is read: an editor may write it in several steps.
const QUIET: Duration = Duration::from_millis(30);

/// Reloads on every change of the route file, of key files beside it, and of the files of certificates, for as long as the
/// returned watcher lives.
///
/// # Errors
/// When the operating system cannot watch the folder.
pub fn watch(reloader: &Arc<Reloader>) -> anyhow::Result<RecommendedWatcher> {
    let (sender, mut changes) = mpsc::channel::<()>(1);
    // The folders, not the files: editors write another file and rename it.
    let folder = |file: &Path| file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let folders: BTreeSet<PathBuf> = std::iter::once(&*reloader.routes).chain(reloader.certificates.files()).map(folder).collect();
    let concerned = Arc::downgrade(reloader);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error may hide a change; a full channel has one to look at already.
        let concerns = event.map_or(true, |event| {
            let named = |path: &PathBuf| concerned.upgrade().is_some_and(|reloader| reloader.concerned_by(path.file_name()));
            !event.kind.is_access() && (event.need_rescan() || event.paths.iter().any(named))
        });
        if concerns {
            let _ = sender.try_send(());
        }
    })
    .context("cannot watch files for changes")?;
    for folder in folders {
        watcher.watch(&folder, RecursiveMode::NonRecursive).with_context(|| format!("cannot watch `{}` for changes", folder.display()))?;
    }
    let reloader = Arc::clone(reloader);
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            while tokio::time::timeout(QUIET, changes.recv()).await.is_ok_and(|change| change.is_some()) {}
            let reloader = Arc::clone(&reloader);
            let _ = tokio::task::spawn_blocking(move || reloader.reload_if_changed()).await;
        }
    });
    Ok(watcher)
}
