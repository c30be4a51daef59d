//! Upload sessions that outlive a run: where a push that was cut off goes on.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlxctl_artifact::Digest;

/// Keeps the addresses of open upload sessions. An address may let whoever knows it write to the session, so it is
/// kept like a secret.
pub trait Sessions: Send + Sync {
    /// The address kept for a blob on its way to `repository`, a `host[:port]/name`.
    fn load(&self, repository: &str, digest: &Digest) -> Option<String>;

    /// Keeps an address in place of an earlier one. What cannot be kept costs the next run time, nothing else.
    fn keep(&self, repository: &str, digest: &Digest, address: &str);

    /// Forgets a session that is over.
    fn forget(&self, repository: &str, digest: &Digest);
}

/// Registries drop sessions by themselves, most of them within a week; ours does within a day.
const LIFE: Duration = Duration::from_hours(24 * 6);
/// The longest address that is kept.
const MAX_ADDRESS: u64 = 16 << 10;

/// Sessions in a folder that its owner alone can read, one file each. Those that are too old are removed when it is
/// opened.
#[derive(Debug, Clone)]
pub struct SessionFolder {
    path: PathBuf,
}

impl SessionFolder {
    /// The folder at `path`, made when it is needed.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let this = Self { path: path.into() };
        let now = SystemTime::now();
        for entry in fs::read_dir(&this.path).into_iter().flatten().flatten() {
            if is_old(&entry.path(), now) {
                // Another process may have been faster.
                let _ = fs::remove_file(entry.path());
            }
        }
        this
    }

    fn file(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.path.join(Digest::sha256_of(format!("{repository}@{digest}").as_bytes()).hex())
    }

    fn write(&self, file: &Path, address: &str) -> std::io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let fresh = file.with_extension(format!("{}", std::process::id()));
        let mut options = OpenOptions::new();
        let mut out = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        out.write_all(address.as_bytes())?;
        fs::rename(fresh, file)
    }
}

fn is_old(path: &Path, now: SystemTime) -> bool {
    let changed = fs::symlink_metadata(path).and_then(|meta| meta.modified());
    changed.is_ok_and(|changed| now.duration_since(changed).unwrap_or_default() > LIFE)
}

impl Sessions for SessionFolder {
    fn load(&self, repository: &str, digest: &Digest) -> Option<String> {
        let path = self.file(repository, digest);
        if is_old(&path, SystemTime::now()) {
            return None;
        }
        let mut address = String::new();
        fs::File::open(path).ok()?.take(MAX_ADDRESS).read_to_string(&mut address).ok()?;
        Some(address)
    }

    fn keep(&self, repository: &str, digest: &Digest, address: &str) {
        if address.len() as u64 >= MAX_ADDRESS {
            return;
        }
        if let Err(error) = self.write(&self.file(repository, digest), address) {
            tracing::debug!(%error, folder = %self.path.display(), "an upload session was not kept");
        }
    }

    fn forget(&self, repository: &str, digest: &Digest) {
        // Most sessions were never kept.
        let _ = fs::remove_file(self.file(repository, digest));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_session_is_kept_for_its_owner_until_it_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/sessions");
        let (sessions, digest) = (SessionFolder::new(&path), Digest::sha256_of(b"x"));
        assert_eq!(sessions.load("r/a", &digest), None);
        sessions.keep("r/a", &digest, "http://r/1");
        sessions.keep("r/a", &digest, "http://r/2");
        assert_eq!(SessionFolder::new(&path).load("r/a", &digest).as_deref(), Some("http://r/2"));
        assert_eq!(sessions.load("r/b", &digest), None);
        let files: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 1);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&files[0])), (0o700, 0o600));
        let file = fs::File::options().append(true).open(&files[0]).unwrap();
        file.set_modified(SystemTime::now() - LIFE - Duration::from_secs(9)).unwrap();
        assert_eq!(sessions.load("r/a", &digest), None);
        SessionFolder::new(&path);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        sessions.keep("r/a", &digest, "http://r/3");
        sessions.forget("r/a", &digest);
        assert_eq!(sessions.load("r/a", &digest), None);
    }
}
