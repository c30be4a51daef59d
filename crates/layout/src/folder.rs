//! A layout in a folder, as target of copies.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use futures_util::StreamExt as _;
use mlxctl_artifact::{Descriptor, Index, MAX_MANIFEST_BYTES, Reference, media_type};
use mlxctl_content::{Error as ContentError, Fetch, Observer, Push, Verified};

use crate::Error;
use crate::documents::{self, Entry, INDEX_FILE, LAYOUT, LAYOUT_FILE, MAX_LAYOUT_BYTES};

/// A layout that is written.
pub struct LayoutFolder {
    path: PathBuf,
    index: Vec<Descriptor>,
}

impl LayoutFolder {
    /// Opens a folder that is absent, empty, or a layout already, which is added to.
    ///
    /// # Errors
    /// [`Error::NotALayout`] where the folder holds something else, a store of ours among it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let not = |reason: &str| Error::NotALayout { path: path.to_owned(), reason: reason.to_owned() };
        fs::create_dir_all(path).map_err(Error::io("create", path))?;
        let mut index = Vec::new();
        if fs::read_dir(path).map_err(Error::io("read", path))?.next().is_some() {
            if path.join("manifests").exists() {
                return Err(not("it is a store of mlxctl; name another folder"));
            }
            let read = |name: &str, limit: u64| {
                let file = path.join(name);
                match fs::metadata(&file) {
                    Ok(meta) if meta.is_file() && meta.len() <= limit => {
                        fs::read(&file).map_err(Error::io("read", &file))
                    }
                    _ => Err(not(&format!("it holds other files, and no {name}"))),
                }
            };
            documents::check_layout(&read(LAYOUT_FILE, MAX_LAYOUT_BYTES)?, path)?;
            index = Index::parse(&read(INDEX_FILE, MAX_MANIFEST_BYTES)?)?.manifests;
        }
        Ok(Self { path: path.to_owned(), index })
    }

    fn blob(&self, descriptor: &Descriptor) -> PathBuf {
        let digest = descriptor.digest;
        self.path.join("blobs").join(digest.algorithm().name()).join(digest.hex())
    }

    /// Lists a manifest that was pushed, in the place of another one with the same tag, and writes the documents.
    pub fn finish(mut self, manifest: &Descriptor, name: &Reference) -> Result<(), Error> {
        let listed = Entry::listed(manifest, name);
        let tag = listed.annotations.get(media_type::REF_NAME).cloned();
        self.index.retain(|other| match &tag {
            Some(tag) => other.annotations.get(media_type::REF_NAME) != Some(tag),
            None => other.digest != listed.digest,
        });
        self.index.push(listed);
        self.replace(INDEX_FILE, &Index::of(self.index.clone()).to_bytes())?;
        // Last, so that a folder that was cut off in the middle is no layout.
        self.replace(LAYOUT_FILE, LAYOUT)
    }

    fn replace(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        let mut temporary = temporary(&self.path)?;
        temporary.write_all(content).map_err(Error::io("write", &path))?;
        persist(temporary, &path)
    }
}

/// A file in `folder` that goes away unless it is persisted.
pub(crate) fn temporary(folder: &Path) -> Result<tempfile::NamedTempFile, Error> {
    tempfile::Builder::new().prefix(".mlxctl-").tempfile_in(folder).map_err(Error::io("write to", folder))
}

/// Gives a file its place, readable as other files are.
pub(crate) fn persist(temporary: tempfile::NamedTempFile, path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let readable = fs::Permissions::from_mode(0o644);
    temporary.as_file().set_permissions(readable).map_err(Error::io("change the mode of", path))?;
    temporary.persist(path).map(drop).map_err(|error| Error::io("write", path)(error.error))
}

#[async_trait]
impl Push for LayoutFolder {
    /// What lies there is hashed: another tool, or a run that was cut off, may have written it.
    async fn exists(&self, descriptor: &Descriptor) -> Result<bool, ContentError> {
        let (path, wanted) = (self.blob(descriptor), descriptor.clone());
        let work = move || -> Result<bool, ContentError> {
            let Ok(meta) = fs::metadata(&path) else { return Ok(false) };
            if !meta.is_file() || meta.len() != wanted.size {
                return Ok(false);
            }
            let mut file = fs::File::open(&path).map_err(Error::io("open", &path))?;
            let mut verified = Verified::new(&wanted);
            let mut buffer = vec![0; 1 << 20];
            loop {
                match std::io::Read::read(&mut file, &mut buffer) {
                    Ok(0) => return Ok(verified.finish().is_ok()),
                    Ok(count) => verified.update(&buffer[..count])?,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(Error::io("read", &path)(error).into()),
                }
            }
        };
        let done = tokio::task::spawn_blocking(work).await;
        done.unwrap_or_else(|error| Err(ContentError::Refused { message: format!("hashing was cut off: {error}") }))
    }

    async fn push(
        &self,
        descriptor: &Descriptor,
        source: &dyn Fetch,
        observer: &dyn Observer,
    ) -> Result<(), ContentError> {
        let path = self.blob(descriptor);
        let folder = path.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let mut temporary = temporary(folder)?;
        let mut verified = Verified::new(descriptor);
        let mut stream = source.fetch(descriptor, 0..descriptor.size).await?;
        while let Some(bytes) = stream.next().await {
            let bytes = bytes?;
            verified.update(&bytes)?;
            let length = bytes.len() as i64;
            // Writes go to the page cache; a thread of their own keeps a slow disk from holding up the others.
            let written = tokio::task::spawn_blocking(move || temporary.write_all(&bytes).map(|()| temporary)).await;
            let written =
                written.map_err(|error| ContentError::Refused { message: format!("writing was cut off: {error}") })?;
            temporary = written.map_err(Error::io("write", &path))?;
            observer.moved(descriptor, length);
        }
        verified.finish()?;
        persist(temporary, &path).map_err(ContentError::from)
    }
}
