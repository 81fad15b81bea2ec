//! Which changes of files are looked at.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Reloader;

/// How long a file must be left alone before it is read: an editor may write it in several steps.
const QUIET: Duration = Duration::from_millis(30);

/// Watches as long as it lives.
pub struct Watch {
    _watcher: Arc<Mutex<RecommendedWatcher>>,
}

/// Reloads on every change of the route file, of the files that it names, and of the files of certificates, for as long as
/// what is returned lives.
///
/// # Errors
/// When the operating system cannot watch a folder.
pub fn watch(reloader: &Arc<Reloader>) -> anyhow::Result<Watch> {
    let (sender, mut changes) = mpsc::channel::<()>(1);
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
    let mut watched = BTreeSet::new();
    for folder in folders(reloader) {
        watcher.watch(&folder, RecursiveMode::NonRecursive).with_context(|| format!("cannot watch `{}` for changes", folder.display()))?;
        watched.insert(folder);
    }
    let watcher = Arc::new(Mutex::new(watcher));
    let (watching, reloader) = (Arc::downgrade(&watcher), Arc::clone(reloader));
    tokio::spawn(async move {
        while changes.recv().await.is_some() {
            while tokio::time::timeout(QUIET, changes.recv()).await.is_ok_and(|change| change.is_some()) {}
            let reloading = Arc::clone(&reloader);
            let _ = tokio::task::spawn_blocking(move || reloading.reload_if_changed()).await;
            // A new route map may name files elsewhere. Folders of old ones are left watched: that does no harm.
            let Some(watcher) = watching.upgrade() else { return };
            for folder in folders(&reloader) {
                if watched.contains(&folder) {
                    continue;
                }
                match watcher.lock().watch(&folder, RecursiveMode::NonRecursive) {
                    Ok(()) => drop(watched.insert(folder)),
                    Err(error) => tracing::error!(folder = %folder.display(), %error, "a folder cannot be watched for changes"),
                }
            }
        }
    });
    Ok(Watch { _watcher: watcher })
}

/// The folders, not the files: editors write another file and rename it.
fn folders(reloader: &Reloader) -> BTreeSet<PathBuf> {
    let folder = |file: &Path| file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
    let beside = reloader.last.lock().beside.clone();
    let files = std::iter::once(&*reloader.routes).chain(reloader.certificates.files()).chain(beside.iter().map(PathBuf::as_path));
    files.map(folder).collect()
}
