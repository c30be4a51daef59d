//! Downloads: in parallel, from where they stopped, each file believed once its digest is right.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use mlxctl_artifact::{Algorithm, Descriptor, Digest, Digester, LayerPath, media_type};
use mlxctl_content::{Observer, Outcome};
use reqwest::StatusCode;
use reqwest::header::CONTENT_RANGE;
use sha1::Digest as _;

use crate::api::is_commit;
use crate::cache::Cached;
use crate::error::plain;
use crate::{Error, Hub, HubFile};

/// A file that lies in the cache and was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// Its path within the repository.
    pub path: LayerPath,
    /// Its size in bytes.
    pub size: u64,
    /// Its digest, also where the hub lists none.
    pub sha256: Digest,
}

/// The hashes of a file as it comes: SHA-256, and git's own of a file that lies in git.
struct Hashes {
    sha256: Digester,
    git: sha1::Sha1,
    seen: u64,
}

impl Hashes {
    fn new(size: u64) -> Self {
        let mut git = sha1::Sha1::new();
        git.update(format!("blob {size}\0"));
        Self { sha256: Digester::new(Algorithm::Sha256), git, seen: 0 }
    }

    fn update(&mut self, bytes: &[u8], file: &HubFile) {
        self.sha256.update(bytes);
        if file.sha256.is_none() {
            self.git.update(bytes);
        }
        self.seen += bytes.len() as u64;
    }

    fn finish(self, file: &HubFile) -> Result<Digest, Error> {
        let damaged =
            |expected: String, found: String| Err(Error::Damaged { path: file.path.to_string(), expected, found });
        if self.seen != file.size {
            return damaged(format!("{} bytes", file.size), format!("{} bytes", self.seen));
        }
        let found = self.sha256.finish();
        match file.sha256 {
            Some(expected) if found != expected => damaged(expected.to_string(), found.to_string()),
            Some(_) => Ok(found),
            None => {
                use std::fmt::Write as _;
                let git = self.git.finalize().iter().fold(String::new(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                });
                if git == file.oid { Ok(found) } else { damaged(format!("git object {}", file.oid), git) }
            }
        }
    }
}

impl Hub {
    /// Brings these files of a commit into the cache and gives the folder in which they lie under their paths, and
    /// what they are. Files that are there already are hashed, not fetched. `jobs` are on their way at once.
    pub async fn fetch(
        &self,
        repository: &str,
        revision: Option<&str>,
        commit: &str,
        files: &[HubFile],
        jobs: usize,
        observer: &dyn Observer,
    ) -> Result<(PathBuf, Vec<Fetched>), Error> {
        if !is_commit(commit) {
            let what = format!("{}@{}", plain(repository), plain(commit));
            return Err(Error::Answer { what, reason: "the revision is no commit".to_owned() });
        }
        let cached = Arc::new(Cached::of(self, repository)?);
        let each = files.iter().map(|file| self.file(repository, commit, file, &cached, observer));
        let mut fetched: Vec<Fetched> = stream::iter(each).buffer_unordered(jobs.max(1)).try_collect().await?;
        fetched.sort_by(|one, other| one.path.cmp(&other.path));
        if let Some(revision) = revision.filter(|revision| !is_commit(revision)) {
            cached.remember(revision, commit)?;
        }
        Ok((cached.snapshot(commit), fetched))
    }

    /// The folder of a commit, where the cache holds all these files just as they were: nothing is sent.
    pub async fn held(&self, repository: &str, commit: &str, files: &[Fetched]) -> Result<Option<PathBuf>, Error> {
        if !is_commit(commit) {
            return Ok(None);
        }
        let folder = Cached::of(self, repository)?.snapshot(commit);
        for file in files {
            let path = folder.join(file.path.as_str());
            let wanted =
                HubFile { path: file.path.clone(), size: file.size, sha256: Some(file.sha256), oid: String::new() };
            if blocking(move || hash_if_present(&path, &wanted)).await?.is_none() {
                return Ok(None);
            }
        }
        Ok(Some(folder))
    }

    async fn file(
        &self,
        repository: &str,
        commit: &str,
        file: &HubFile,
        cached: &Arc<Cached>,
        observer: &dyn Observer,
    ) -> Result<Fetched, Error> {
        let shown =
            Descriptor::new(media_type::OCTET_STREAM, file.sha256.unwrap_or_else(|| Digest::sha256_of(b"")), file.size)
                .with_annotation(media_type::TITLE, file.path.as_str());
        // Files of git are small, and have no digest to be shown by.
        let observed = file.sha256.is_some();
        if observed {
            observer.started(&shown);
        }
        let (locked, wanted) = (cached.clone(), file.clone());
        let lock = blocking(move || locked.lock(&wanted)).await?;
        let (blob, wanted) = (cached.blob(file), file.clone());
        let known = blocking(move || hash_if_present(&blob, &wanted)).await?;
        let (sha256, outcome) = match known {
            Some(digest) => (digest, Outcome::Present),
            None => (self.download(repository, commit, file, cached, &shown, observer).await?, Outcome::Moved),
        };
        cached.link(commit, file)?;
        drop(lock);
        if observed {
            observer.finished(&shown, outcome);
        }
        Ok(Fetched { path: file.path.clone(), size: file.size, sha256 })
    }

    async fn download(
        &self,
        repository: &str,
        commit: &str,
        file: &HubFile,
        cached: &Cached,
        shown: &Descriptor,
        observer: &dyn Observer,
    ) -> Result<Digest, Error> {
        let path = cached.incomplete(file);
        let mut after = vec!["resolve", commit];
        after.extend(file.path.as_str().split('/'));
        let url = self.url(&[], repository, &after)?;
        let what = format!("{} of {}", file.path, plain(repository));
        let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut part = Part { file: opened.map_err(Error::io("open", &path))?, path, hashes: Hashes::new(file.size) };
        part.take_up(file)?;
        observer.moved(shown, part.hashes.seen as i64);
        let mut failures = 0;
        while part.hashes.seen < file.size || file.size == 0 {
            let before = part.hashes.seen;
            match self.continued(&what, &url, file, &mut part, shown, observer).await {
                Ok(()) => break,
                Err(error) if error.may_pass() => {
                    failures = if part.hashes.seen > before { 1 } else { failures + 1 };
                    let Some(pause) = self.pause(failures) else { return Err(error) };
                    observer.notice(&format!("{error}; trying again"));
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
        let Part { file: handle, path, hashes } = part;
        let digest = hashes.finish(file).inspect_err(|_| {
            // The next run starts anew rather than from damaged bytes.
            let _ = std::fs::remove_file(&path);
        })?;
        drop(handle);
        let blob = cached.blob(file);
        std::fs::rename(&path, &blob).map_err(Error::io("write", &blob))?;
        Ok(digest)
    }

    /// One request for what is missing.
    async fn continued(
        &self,
        what: &str,
        url: &reqwest::Url,
        file: &HubFile,
        part: &mut Part,
        shown: &Descriptor,
        observer: &dyn Observer,
    ) -> Result<(), Error> {
        let response = self.get(what, url, part.hashes.seen).await?;
        let starts_at = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
                range.and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok())
            }
            _ => None,
        };
        if part.hashes.seen > 0 && starts_at != Some(part.hashes.seen) {
            // Another range than asked for, none, or none that is left: from the beginning.
            observer.moved(shown, -(part.hashes.seen as i64));
            part.restart(file)?;
            if response.status() != StatusCode::OK {
                let reason = "the range that was asked for did not come".to_owned();
                return Err(Error::Connection { what: what.to_owned(), reason });
            }
        }
        let mut body = response.bytes_stream();
        while let Some(bytes) = body.next().await {
            let bytes = bytes.map_err(|error| Error::connection(what, error))?;
            if part.hashes.seen + bytes.len() as u64 > file.size {
                part.restart(file)?;
                let (expected, found) = (format!("{} bytes", file.size), "more".to_owned());
                return Err(Error::Damaged { path: file.path.to_string(), expected, found });
            }
            part.write(&bytes, file)?;
            observer.moved(shown, bytes.len() as i64);
        }
        if part.hashes.seen < file.size {
            let reason = format!("the answer ended after {} of {} bytes", part.hashes.seen, file.size);
            return Err(Error::Connection { what: what.to_owned(), reason });
        }
        Ok(())
    }
}

/// A file that is being downloaded, and the hashes of what is there.
struct Part {
    file: File,
    path: PathBuf,
    hashes: Hashes,
}

impl Part {
    /// Hashes what an earlier run left.
    fn take_up(&mut self, file: &HubFile) -> Result<(), Error> {
        let length = self.file.metadata().map_err(Error::io("read", &self.path))?.len();
        if length > file.size {
            return self.restart(file);
        }
        let mut buffer = vec![0; 1 << 20];
        loop {
            match self.file.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => self.hashes.update(&buffer[..count], file),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.path)(error)),
            }
        }
    }

    fn restart(&mut self, file: &HubFile) -> Result<(), Error> {
        self.hashes = Hashes::new(file.size);
        self.file.set_len(0).map_err(Error::io("write", &self.path))?;
        self.file.seek(SeekFrom::Start(0)).map(drop).map_err(Error::io("write", &self.path))
    }

    fn write(&mut self, bytes: &[u8], file: &HubFile) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.path))?;
        self.hashes.update(bytes, file);
        Ok(())
    }
}

/// The digest of a blob that is there and sound.
fn hash_if_present(path: &Path, file: &HubFile) -> Result<Option<Digest>, Error> {
    let Ok(meta) = std::fs::metadata(path) else { return Ok(None) };
    if !meta.is_file() || meta.len() != file.size {
        return Ok(None);
    }
    let mut part = Part {
        file: File::open(path).map_err(Error::io("open", path))?,
        path: path.to_owned(),
        hashes: Hashes::new(file.size),
    };
    part.take_up(file)?;
    Ok(part.hashes.finish(file).ok())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::Connection { what: "the download".to_owned(), reason: error.to_string() }))
}
