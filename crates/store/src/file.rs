//! Files of the store: opening without following links, bounded reads, atomic replacement, and the stamp by which a
//! file is known to be the one that was hashed. Every room of the store goes through here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use mlxctl_artifact::{Digest, Digester};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::Error;

/// How much is read at once while hashing and streaming.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;

/// What the file system says of a file. A file whose stamp has not changed has not been written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    inode: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(file: &File, path: &Path) -> Result<Self, Error> {
        let meta = file.metadata().map_err(Error::io("read", path))?;
        Ok(Self {
            size: meta.len(),
            inode: meta.ino(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// How long ago the file was last changed; zero where the clock was set back since.
    pub(crate) fn age(&self) -> Duration {
        let (seconds, nanoseconds) = (self.ctime.0.max(0) as u64, self.ctime.1.clamp(0, 999_999_999) as u32);
        let changed = SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds);
        SystemTime::now().duration_since(changed).unwrap_or_default()
    }
}

/// Opens a regular file for reading; `None` where nothing lies there. Links are not followed, and nothing but a
/// regular file is accepted.
pub(crate) fn open(path: &Path) -> Result<Option<File>, Error> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink()) => {
            let _ = error;
            return Err(Error::NotAFile { path: path.to_owned(), found: "a symbolic link" });
        }
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let kind = file.metadata().map_err(Error::io("read", path))?.file_type();
    if kind.is_file() {
        return Ok(Some(file));
    }
    let found = if kind.is_dir() { "a folder" } else { "a device or a pipe" };
    Err(Error::NotAFile { path: path.to_owned(), found })
}

/// The whole of a small file; `None` where nothing lies there.
pub(crate) fn read(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    let Some(file) = open(path)? else { return Ok(None) };
    let mut content = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut content).map_err(Error::io("read", path))?;
    if content.len() as u64 > limit {
        return Err(Error::document(path, format!("it has more than the {limit} bytes allowed")));
    }
    Ok(Some(content))
}

/// Hashes `file` from where it stands to its end; returns the digest and the bytes seen. `each` hears of every piece.
pub(crate) fn hash(
    file: &mut File,
    path: &Path,
    mut digester: Digester,
    mut each: impl FnMut(usize),
) -> Result<(Digest, u64), Error> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut seen = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok((digester.finish(), seen)),
            Ok(length) => {
                digester.update(&buffer[..length]);
                seen += length as u64;
                each(length);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path)(error)),
        }
    }
}

/// Replaces `target` by `content` in one step: at any instant the old or the new file is there, whole. `scratch` is a
/// folder of the same file system.
pub(crate) fn replace(scratch: &Path, target: &Path, content: &[u8], durable: bool) -> Result<(), Error> {
    let temporary = scratch.join(random_name()?);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&temporary)
            .map_err(Error::io("create", &temporary))?;
        file.write_all(content).map_err(Error::io("write", &temporary))?;
        if durable {
            file.sync_all().map_err(Error::io("sync", &temporary))?;
        }
        fs::rename(&temporary, target).map_err(Error::io("write", target))
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
        return written;
    }
    match target.parent() {
        Some(folder) if durable => sync_folder(folder),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io("sync", folder))
}

/// Creates a folder and its parents.
pub(crate) fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// Removes a file; whether there was one.
pub(crate) fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path)(error)),
    }
}

/// The entries of a folder, sorted; none where there is no folder.
pub(crate) fn entries(path: &Path) -> Result<Vec<fs::DirEntry>, Error> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", path)(error)),
    };
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(Error::io("list", path))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    Ok(entries)
}

/// 32 hex digits from the system's generator: a name that nobody guesses.
pub(crate) fn random_name() -> Result<String, Error> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::Refused { message: format!("the system gives no random bytes: {error}") })?;
    Ok(format!("{:032x}", u128::from_le_bytes(bytes)))
}
