//! Blobs that are in the store: whether they can be trusted, their bytes, and how a new one takes its place.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use mlxctl_artifact::{Descriptor, Digest, Digester};

use crate::file::Stamp;
use crate::layout::Layout;
use crate::referrers::Known;
use crate::seal::{self, Sealer};
use crate::{Error, file, map};

/// When [`crate::Store::map_with`] hashes a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// Where the blob has no valid seal.
    #[default]
    Unsealed,
    /// In any case.
    Always,
}

/// The blobs of a store.
pub(crate) struct Blobs {
    pub(crate) layout: Layout,
    pub(crate) read_only: bool,
    sealer: Sealer,
    /// What this process hashed, by the stamp it had: it need not wait for the seal.
    verified: Mutex<HashMap<Digest, Stamp>>,
    pub(crate) known: Known,
}

/// A blob's file, opened.
pub(crate) struct Blob {
    pub(crate) file: File,
    pub(crate) path: PathBuf,
    pub(crate) stamp: Stamp,
}

impl Blobs {
    pub(crate) fn new(layout: Layout, read_only: bool) -> Self {
        Self {
            sealer: Sealer::new(layout.clone()),
            layout,
            read_only,
            verified: Mutex::default(),
            known: Known::default(),
        }
    }

    /// Opens a blob, whatever its bytes are; `None` where it is not here.
    pub(crate) fn find(&self, digest: &Digest) -> Result<Option<Blob>, Error> {
        let path = self.layout.blob(digest);
        let Some(file) = file::open(&path)? else { return Ok(None) };
        let stamp = Stamp::of(&file, &path)?;
        Ok(Some(Blob { file, path, stamp }))
    }

    /// Opens a blob of the size that its descriptor says, whatever its bytes are.
    pub(crate) fn get(&self, descriptor: &Descriptor) -> Result<Blob, Error> {
        let digest = descriptor.digest;
        let blob = self.find(&digest)?.ok_or_else(|| Error::Missing { digest, path: self.layout.blob(&digest) })?;
        let (expected, found) = (descriptor.size, blob.stamp.size);
        if found != expected {
            return Err(Error::WrongSize { digest, path: blob.path, expected, found });
        }
        Ok(blob)
    }

    /// Whether the blob is known to be what its name says, without reading it.
    fn is_trusted(&self, digest: &Digest, blob: &Blob) -> bool {
        let known = self.verified.lock().unwrap_or_else(PoisonError::into_inner).get(digest) == Some(&blob.stamp);
        known || seal::read(&self.layout, digest) == Some(blob.stamp)
    }

    /// Makes sure that the blob is what its name says, by its seal or else by its hash.
    pub(crate) fn check(&self, digest: &Digest, blob: &mut Blob, verify: Verify) -> Result<(), Error> {
        if verify == Verify::Unsealed && self.is_trusted(digest, blob) {
            return Ok(());
        }
        self.hash(digest, blob, |_| ())
    }

    /// Hashes a blob and seals it where it is sound; takes its seal away where it is not, so that the next pull
    /// replaces it. `each` hears how many bytes were read.
    pub(crate) fn hash(&self, digest: &Digest, blob: &mut Blob, each: impl FnMut(usize)) -> Result<(), Error> {
        blob.file.rewind().map_err(Error::io("read", &blob.path))?;
        let digester = Digester::new(digest.algorithm());
        let (found, bytes) = file::hash(&mut blob.file, &blob.path, digester, each)?;
        if found != *digest {
            self.verified.lock().unwrap_or_else(PoisonError::into_inner).remove(digest);
            if !self.read_only {
                seal::remove(&self.layout, digest)?;
            }
            return Err(Error::Damaged { digest: *digest, path: blob.path.clone(), bytes, found: Box::new(found) });
        }
        // A file that was written to while it was read has another stamp by now.
        if Stamp::of(&blob.file, &blob.path)? == blob.stamp {
            self.trust(*digest, blob.stamp);
        }
        Ok(())
    }

    fn trust(&self, digest: Digest, stamp: Stamp) {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, stamp);
        if !self.read_only && seal::read(&self.layout, &digest) != Some(stamp) {
            self.sealer.enqueue(digest, stamp);
        }
    }

    /// Whether the blob is here and sound. One that is damaged counts as absent, so that it is fetched anew.
    ///
    /// # Errors
    /// [`Error::WrongSize`] where the blob is sound, and the descriptor says another size.
    pub(crate) fn holds(&self, descriptor: &Descriptor) -> Result<bool, Error> {
        let Some(mut blob) = self.find(&descriptor.digest)? else { return Ok(false) };
        match self.check(&descriptor.digest, &mut blob, Verify::Unsealed) {
            Ok(()) => self.get(descriptor).map(|_| true),
            Err(Error::Damaged { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The whole of a small blob, hashed.
    pub(crate) fn read(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, Error> {
        let (digest, size) = (descriptor.digest, descriptor.size);
        if size > limit {
            return Err(Error::TooLarge { digest, size, limit });
        }
        let blob = self.get(descriptor)?;
        let mut content = Vec::with_capacity(size as usize);
        blob.file.take(size).read_to_end(&mut content).map_err(Error::io("read", &blob.path))?;
        let mut digester = Digester::new(digest.algorithm());
        digester.update(&content);
        let found = digester.finish();
        if found != digest {
            let (path, bytes) = (blob.path, content.len() as u64);
            return Err(Error::Damaged { digest, path, bytes, found: Box::new(found) });
        }
        Ok(content.into())
    }

    /// The blob's bytes, borrowed from the disk.
    pub(crate) fn map(&self, descriptor: &Descriptor, verify: Verify) -> Result<Bytes, Error> {
        let mut blob = match self.get(descriptor) {
            Ok(blob) => blob,
            // A truncated blob is damaged, and the hash tells so better than the sizes; a lying descriptor is not.
            Err(error @ Error::WrongSize { .. }) => {
                if let Some(mut blob) = self.find(&descriptor.digest)? {
                    self.check(&descriptor.digest, &mut blob, Verify::Unsealed)?;
                }
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        self.check(&descriptor.digest, &mut blob, verify)?;
        map::file(&blob.file, &blob.path, blob.stamp.size)
    }

    /// Gives a file that was hashed while it was written its place: read-only, under its digest, to be synced and
    /// sealed in the background. Replaces what lies there.
    pub(crate) fn accept(&self, file: &File, temporary: &Path, digest: Digest) -> Result<(), Error> {
        let meta = file.metadata().map_err(Error::io("read", temporary))?;
        let readable = Permissions::from_mode(meta.permissions().mode() & 0o444);
        file.set_permissions(readable).map_err(Error::io("change the mode of", temporary))?;
        let path = self.layout.blob(&digest);
        file::create_folder(&self.layout.blobs(digest.algorithm()))?;
        fs::rename(temporary, &path).map_err(|error| match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => Error::NotAFile { path: path.clone(), found: "a folder" },
            _ => Error::io("write", &path)(error),
        })?;
        // The rename changed the stamp, so it is taken now.
        self.trust(digest, Stamp::of(file, &path)?);
        Ok(())
    }

    pub(crate) fn settle(&self) {
        self.sealer.settle();
    }
}
