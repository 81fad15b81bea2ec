//! Which file is which, and the lock by which a gateway says that it serves this database.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::fault::unusable;
use crate::store::Error;

/// A file, whatever it is called: its device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    /// The file that is at `path` now.
    pub(super) fn at(path: &Path) -> std::io::Result<Self> {
        std::fs::metadata(path).map(|data| Self { device: data.dev(), inode: data.ino() })
    }

    fn of(file: &File) -> std::io::Result<Self> {
        file.metadata().map(|data| Self { device: data.dev(), inode: data.ino() })
    }
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.device, self.inode)
    }
}

/// A file that must stay the one it is while we rely on it.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    path: PathBuf,
    identity: Identity,
}

impl Watched {
    /// Watches the file that is at `path` now.
    pub(super) fn new(path: PathBuf) -> Result<Self, Error> {
        match Identity::at(&path) {
            Ok(identity) => Ok(Self { path, identity }),
            Err(error) => Err(unusable(format!("`{}` is gone ({error}): put it back and start again", path.display()))),
        }
    }

    /// Watches the two files that SQLite keeps beside a database that is open.
    pub(super) fn beside(database: &Path) -> Result<[Self; 2], Error> {
        Ok([Self::new(beside(database, "-wal")?)?, Self::new(beside(database, "-shm")?)?])
    }

    /// Whether it is still there, and the same.
    pub(super) fn check(&self) -> Result<(), Error> {
        let file = self.path.display();
        match Identity::at(&self.path) {
            Ok(now) if now == self.identity => Ok(()),
            Ok(_) => Err(unusable(format!("`{file}` was replaced by another file while in use: start again to use the new one"))),
            Err(error) => Err(unusable(format!("`{file}` was removed while in use ({error}): put it back and start again"))),
        }
    }
}

/// A file of SQLite's beside a database: it follows links before it names them.
pub(super) fn beside(database: &Path, suffix: &str) -> Result<PathBuf, Error> {
    let real = database.canonicalize().map_err(|error| unusable(format!("`{}` is gone: {error}", database.display())))?;
    let mut path = real.into_os_string();
    path.push(suffix);
    Ok(path.into())
}

/// The lock that the one gateway on this database holds for as long as its process lives. The system lets go of it when
/// the process ends, however it ends, so finding it free proves that nobody serves.
#[derive(Debug)]
pub(super) struct ServeLock {
    /// Never read: the lock lives as long as the handle.
    _file: File,
    identity: Identity,
}

impl ServeLock {
    /// Where the lock of this database is.
    pub(super) fn path(database: &Path) -> PathBuf {
        let mut path = database.as_os_str().to_owned();
        path.push(".serve-lock");
        path.into()
    }

    /// Takes the lock; `None` if it is held.
    pub(super) fn take(database: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(database);
        let failed = |error: std::io::Error| {
            unusable(format!("the lock file `{}` cannot be used ({error}): let this user write to its directory", path.display()))
        };
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let identity = Identity::of(&file).map_err(failed)?;
        // Somebody may have removed the file between opening and locking: a lock that nobody else can find is none.
        Ok((Identity::at(&path).ok() == Some(identity)).then_some(Self { _file: file, identity }))
    }

    /// Which file is locked.
    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// Which file is locked, by whomever. What cannot be tried counts as locked; it is never found free.
    pub(super) fn held(database: &Path) -> Option<String> {
        match File::open(Self::path(database)) {
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(_) => Some(String::new()),
            // Whoever takes it at this moment tries again if it finds it taken by this.
            Ok(file) => file.try_lock_shared().is_err().then(|| Identity::of(&file).map(|found| found.to_string()).unwrap_or_default()),
        }
    }

    /// Whether it is certain that whoever held the lock on the file `identity` holds it no longer. The lock is let go of
    /// at once; a gateway that starts at that very moment tries again.
    pub(super) fn is_free(database: &Path, identity: &str) -> bool {
        let Ok(file) = File::open(Self::path(database)) else { return false };
        Identity::of(&file).is_ok_and(|found| found.to_string() == identity) && file.try_lock_shared().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_unless_it_is_known_not_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("gateway.db");
        assert_eq!(ServeLock::held(&database), None, "there never was a gateway");
        let lock = ServeLock::take(&database).unwrap().unwrap();
        assert_eq!(ServeLock::held(&database), Some(lock.identity().to_string()));
        drop(lock);
        assert_eq!(ServeLock::held(&database), None);
        // A link to itself cannot be opened.
        let path = ServeLock::path(&database);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&path, &path).unwrap();
        let held = ServeLock::held(&database).unwrap();
        assert!(!ServeLock::is_free(&database, &held));
    }
}
