//! The lock beside the database file.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use crate::storage::OpenError;

/// Held while a process uses a database file. The operating system lets go of it when the process ends, however it ends.
pub(in crate::storage) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Locks `<path>.lock`, or says that another process did.
    pub(in crate::storage) fn acquire(path: &Path) -> Result<Self, OpenError> {
        let mut lock_path = path.as_os_str().to_owned();
        lock_path.push(".lock");
        let lock_path = PathBuf::from(lock_path);
        let opened = private().create(true).write(true).truncate(false).open(&lock_path);
        let file = opened.map_err(|source| OpenError::File {
            path: lock_path.clone(),
            source,
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
            Err(TryLockError::Error(source)) => {
                return Err(OpenError::File {
                    path: lock_path,
                    source,
                });
            }
        }
        // SQLite gives the log the permissions of the file, so it is enough to create that for its owner alone.
        let created = private().create(true).write(true).truncate(false).open(path);
        created.map_err(|source| OpenError::File {
            path: path.to_owned(),
            source,
        })?;
        Ok(Self { _file: file })
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
