//! Where everything lies in the store's folder, and how that folder comes to be.
//!
//! ```text
//! oci-layout  index.json  blobs/<algorithm>/<hex>      the OCI image layout that any tool reads
//! seals/<algorithm>/<hex>                              stamps of blobs that were hashed and are on disk
//! manifests/<registry or _local>/<repository>/_tags    one file a tag (`_digests`: one a pin without a tag)
//! ingest/                                              blobs on their way in
//! uploads/                                             sessions of the embedded registry
//! leases/                                              what running processes need, one locked file each
//! scratch/                                             files about to replace others
//! lock  index.lock  index.stale
//! ```

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use mlxctl_artifact::{Algorithm, Digest};

use crate::{Error, file};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// The most of `index.json` that is looked at: about 100,000 tags.
const MAX_INDEX_BYTES: u64 = 64 << 20;
pub(crate) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

/// The paths of one store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Result<Self, Error> {
        Ok(Self { root: std::path::absolute(root).map_err(Error::io("find", root))? })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("blobs").join(algorithm.name())
    }

    pub(crate) fn blob(&self, digest: &Digest) -> PathBuf {
        self.blobs(digest.algorithm()).join(digest.hex())
    }

    pub(crate) fn seals(&self, algorithm: Algorithm) -> PathBuf {
        self.root.join("seals").join(algorithm.name())
    }

    pub(crate) fn seal(&self, digest: &Digest) -> PathBuf {
        self.seals(digest.algorithm()).join(digest.hex())
    }

    pub(crate) fn manifests(&self) -> PathBuf {
        self.root.join("manifests")
    }

    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }

    pub(crate) fn partial(&self, digest: &Digest) -> PathBuf {
        self.ingest().join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    pub(crate) fn uploads(&self) -> PathBuf {
        self.root.join("uploads")
    }

    pub(crate) fn leases(&self) -> PathBuf {
        self.root.join("leases")
    }

    pub(crate) fn scratch(&self) -> PathBuf {
        self.root.join("scratch")
    }

    /// Held shared by whoever adds content or names, alone by the collector.
    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Held alone by whoever writes tags and `index.json`; always taken after [`Layout::lock`].
    pub(crate) fn index_lock(&self) -> PathBuf {
        self.root.join("index.lock")
    }

    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index.json")
    }

    /// Lies there while `index.json` may differ from the tags.
    pub(crate) fn index_stale(&self) -> PathBuf {
        self.root.join("index.stale")
    }

    /// Creates what is absent, and makes sure that the folder is a store and can be written to.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        file::create_folder(&self.root)?;
        if !self.is_layout()? {
            match self.refuse_strangers() {
                // Another process may have made the store in the meantime; its oci-layout comes first.
                Err(refused) if !self.is_layout()? => return Err(refused),
                _ => {}
            }
            file::create_folder(&self.scratch())?;
            file::replace(&self.scratch(), &self.root.join("oci-layout"), LAYOUT.as_bytes(), true)?;
        }
        self.refuse_foreign_layout()?;
        for folder in [self.manifests(), self.ingest(), self.uploads(), self.leases(), self.scratch()] {
            file::create_folder(&folder)?;
        }
        // The folders of sha512 appear with its first blob.
        file::create_folder(&self.blobs(Algorithm::Sha256))?;
        for lock in [self.lock(), self.index_lock()] {
            let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&lock);
            opened.map_err(Error::io("open", &lock))?;
        }
        Ok(())
    }

    /// Whether the folder says that it is an image layout of a version we know.
    pub(crate) fn is_layout(&self) -> Result<bool, Error> {
        let path = self.root.join("oci-layout");
        let Some(content) = file::read(&path, 4096)? else { return Ok(false) };
        let version = serde_json::from_slice::<serde_json::Value>(&content)
            .ok()
            .and_then(|value| Some(value.get("imageLayoutVersion")?.as_str()?.to_owned()));
        if version.as_deref().is_some_and(|version| version.starts_with("1.")) {
            return Ok(true);
        }
        let reason = "oci-layout should hold imageLayoutVersion 1.0.0".to_owned();
        Err(Error::NotAStore { path: self.root.clone(), reason })
    }

    /// Whether `index.json` is there and is JSON.
    pub(crate) fn index_is_sound(&self) -> Result<bool, Error> {
        let content = match file::read(&self.index(), MAX_INDEX_BYTES) {
            Ok(Some(content)) => content,
            Ok(None) | Err(Error::Document { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        Ok(serde_json::from_slice::<serde::de::IgnoredAny>(&content).is_ok())
    }

    /// A folder that holds other things is somebody else's; a store that was killed while it was made holds our
    /// scratch folder alone.
    fn refuse_strangers(&self) -> Result<(), Error> {
        let stranger = file::entries(&self.root)?.into_iter().find(|entry| entry.file_name() != "scratch");
        stranger.map_or(Ok(()), |stranger| {
            let reason = format!("it has no oci-layout, but holds {}", stranger.file_name().display());
            Err(Error::NotAStore { path: self.root.clone(), reason })
        })
    }

    /// Our `index.json` is made from our tags; where another tool wrote one, making it would destroy theirs.
    fn refuse_foreign_layout(&self) -> Result<(), Error> {
        if fs::symlink_metadata(self.manifests()).is_ok() {
            return Ok(());
        }
        match fs::symlink_metadata(self.index()) {
            Ok(_) => {
                let reason = "it is an image layout that another tool wrote".to_owned();
                Err(Error::NotAStore { path: self.root.clone(), reason })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("read", &self.index())(error)),
        }
    }
}
