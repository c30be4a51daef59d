//! Mapping a blob into memory: the one place of the store with unsafe code. `Store::map` calls it.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;

use crate::Error;

/// The `size` bytes of an open blob, borrowed from the page cache and page-aligned. They live as long as the result
/// and its slices.
pub(crate) fn file(file: &File, path: &Path, size: u64) -> Result<Bytes, Error> {
    if size == 0 {
        return Ok(Bytes::new());
    }
    let length = usize::try_from(size).map_err(|_| Error::Refused {
        message: format!("{} is too large for this machine's memory", path.display()),
    })?;
    // SAFETY: the bytes behind the map must not change while it lives. Blobs are written before they get their name,
    // are read-only from then on, and are replaced or removed by name alone, which leaves the mapped file as it is.
    // Somebody who overwrites or truncates a blob in place, against its mode, breaks this; a truncation raises SIGBUS.
    #[allow(unsafe_code)]
    let map = unsafe { memmap2::MmapOptions::new().len(length).map(file) }.map_err(Error::io("map", path))?;
    Ok(Bytes::from_owner(map))
}

/// The bytes of a file of the user's, mapped: what the builder reads weights from.
///
/// # Errors
/// Where the file cannot be read, or is none. Whoever changes it while it is mapped breaks what is read from it.
pub fn map_file(path: &Path) -> Result<Bytes, Error> {
    let open = File::open(path).map_err(Error::io("open", path))?;
    let size = open.metadata().map_err(Error::io("read", path))?.len();
    file(&open, path, size)
}
