//! The cache that the hub's own tools use: `models--<owner>--<name>/` with `blobs/<etag>`, `refs/<revision>` and
//! `snapshots/<commit>/<path>`, links into the blobs. What one tool downloaded the other finds.

use std::fs::{self, File, OpenOptions};
use std::path::{Component, Path, PathBuf};

use mlxctl_artifact::LayerPath;

use crate::{Error, Hub, HubFile};

/// One repository in the cache.
pub(crate) struct Cached {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cached {
    /// The folder of a repository. Its name was checked where the recipe was read; here it cannot leave the cache.
    pub(crate) fn of(hub: &Hub, repository: &str) -> Result<Self, Error> {
        let repository: LayerPath = repository.parse()?;
        let name = format!("models--{}", repository.as_str().replace('/', "--"));
        Ok(Self { folder: hub.options.cache.join(&name), locks: hub.options.cache.join(".locks").join(name) })
    }

    pub(crate) fn blob(&self, file: &HubFile) -> PathBuf {
        self.folder.join("blobs").join(file.etag())
    }

    pub(crate) fn incomplete(&self, file: &HubFile) -> PathBuf {
        self.folder.join("blobs").join(format!("{}.incomplete", file.etag()))
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Waits until no other process downloads this file, and keeps others waiting while the lock lives. Blocks.
    pub(crate) fn lock(&self, file: &HubFile) -> Result<File, Error> {
        let path = self.locks.join(format!("{}.lock", file.etag()));
        create_folder(&self.locks)?;
        create_folder(&self.folder.join("blobs"))?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(Error::io("open", &path))?;
        lock.lock().map_err(Error::io("lock", &path))?;
        Ok(lock)
    }

    /// Lists a downloaded file in the snapshot of a commit.
    pub(crate) fn link(&self, commit: &str, file: &HubFile) -> Result<(), Error> {
        let place = self.snapshot(commit).join(file.path.as_str());
        let folder = place.parent().unwrap_or(&self.folder);
        create_folder(folder)?;
        let up = Path::new(file.path.as_str()).components().filter(|part| matches!(part, Component::Normal(_))).count();
        let target = format!("{}blobs/{}", "../".repeat(up + 1), file.etag());
        if fs::read_link(&place).is_ok_and(|found| found == Path::new(&target)) {
            return Ok(());
        }
        // Made beside and renamed, so that another process never finds it missing.
        let scratch = tempfile::tempdir_in(folder).map_err(Error::io("write to", folder))?;
        let link = scratch.path().join("link");
        std::os::unix::fs::symlink(&target, &link).map_err(Error::io("create", &link))?;
        fs::rename(&link, &place).map_err(Error::io("write", &place))
    }

    /// Remembers what commit a branch or a tag was.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<(), Error> {
        let revision: LayerPath = revision.parse()?;
        let path = self.folder.join("refs").join(revision.as_str());
        let folder = path.parent().unwrap_or(&self.folder);
        create_folder(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(Error::io("write to", folder))?;
        std::io::Write::write_all(&mut file, commit.as_bytes()).map_err(Error::io("write", &path))?;
        file.persist(&path).map(drop).map_err(|error| Error::io("write", &path)(error.error))
    }
}

fn create_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}
