//! Locks between processes: the system releases them when their holder dies, whatever it dies of.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::Error;

fn open(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).open(path).map_err(Error::io("open", path))
}

/// Waits until nobody holds `path` alone. Released when the file is dropped.
pub(crate) fn shared(path: &Path) -> Result<File, Error> {
    let file = open(path)?;
    file.lock_shared().map_err(Error::io("lock", path))?;
    Ok(file)
}

/// Waits until nobody else holds `path`. Released when the file is dropped.
pub(crate) fn alone(path: &Path) -> Result<File, Error> {
    let file = open(path)?;
    file.lock().map_err(Error::io("lock", path))?;
    Ok(file)
}

/// Takes the lock of a file that its holder may remove: `None` where another holds it, or where it was removed while
/// it was being locked. Creates the file, but not its folder: `None` too where that is gone.
pub(crate) fn try_removable(path: &Path) -> Result<Option<File>, Error> {
    match open(path) {
        Ok(file) => try_opened(file, path),
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Locks a file that is open already; `None` where another holds it, or where `path` is another file by now.
pub(crate) fn try_opened(file: File, path: &Path) -> Result<Option<File>, Error> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(Error::io("lock", path)(error)),
    }
    let locked = file.metadata().map_err(Error::io("read", path))?.ino();
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.ino() == locked => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path)(error)),
    }
}
