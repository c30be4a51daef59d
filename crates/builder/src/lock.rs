//! `ModelSpec.lock`: what the floating names of a recipe stood for when it was built. Pure text in, text out; the caller
//! reads and writes the file beside the recipe.

use std::collections::BTreeMap;

use mlxctl_artifact::{Digest, LayerPath, Reference};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The longest lock file that is read, in bytes.
pub const MAX_LOCK_BYTES: u64 = 16 << 20;

const API_VERSION: &str = "mlxctl.dev/v1alpha1";
const KIND: &str = "ModelLock";

/// The pins of one recipe. Unknown keys are errors: a newer tool's pins must not be overlooked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    api_version: String,
    kind: String,
    /// Manifests by the recipe's references to artifacts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub artifacts: BTreeMap<Reference, Digest>,
    /// Commits and files by the recipe's references to the hub.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repositories: BTreeMap<String, LockedRepository>,
}

/// A hub repository at one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedRepository {
    /// 40 hex digits.
    pub commit: String,
    /// The files that the build takes, by their paths.
    pub files: BTreeMap<String, LockedFile>,
}

/// A file of a hub repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// Bytes.
    pub size: u64,
    /// Their digest.
    pub sha256: Digest,
}

impl Default for Lock {
    fn default() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            artifacts: BTreeMap::new(),
            repositories: BTreeMap::new(),
        }
    }
}

impl Lock {
    /// Reads a lock file; `name` is for messages.
    pub fn parse(text: &[u8], name: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Lock { path: name.to_owned(), reason };
        if text.len() as u64 > MAX_LOCK_BYTES {
            return Err(wrong(format!("it has {} bytes, more than the {MAX_LOCK_BYTES} allowed", text.len())));
        }
        let lock: Self = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        if lock.api_version != API_VERSION || lock.kind != KIND {
            return Err(wrong(format!("expected apiVersion {API_VERSION} and kind {KIND}")));
        }
        for (repository, locked) in &lock.repositories {
            let is_commit = locked.commit.len() == 40 && locked.commit.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_commit {
                return Err(wrong(format!("{repository}: the commit is not 40 hex digits")));
            }
            for path in locked.files.keys() {
                path.parse::<LayerPath>().map_err(|error| wrong(format!("{repository}: {error}")))?;
            }
        }
        Ok(lock)
    }

    /// The text to write: sorted, indented, the same for the same pins.
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a lock holds text and numbers") + "\n"
    }

    /// Whether there is nothing to pin.
    pub fn is_empty(&self) -> bool {
        self.artifacts.is_empty() && self.repositories.is_empty()
    }

    /// How `found`, what the same recipe stands for now, differs from this lock; `None` where it does not.
    pub fn drift(&self, found: &Self) -> Option<String> {
        for (reference, digest) in &found.artifacts {
            match self.artifacts.get(reference) {
                Some(pinned) if pinned == digest => {}
                Some(pinned) => return Some(format!("{reference} is {digest}, and {pinned} is pinned")),
                None => return Some(format!("{reference} is not pinned")),
            }
        }
        for (reference, now) in &found.repositories {
            let Some(pinned) = self.repositories.get(reference) else {
                return Some(format!("{reference} is not pinned"));
            };
            if pinned.commit != now.commit {
                return Some(format!("{reference} is commit {}, and {} is pinned", now.commit, pinned.commit));
            }
            for (path, file) in &now.files {
                match pinned.files.get(path) {
                    Some(locked) if locked == file => {}
                    Some(locked) => {
                        return Some(format!(
                            "{path} of {reference} is {} ({} bytes), and {} ({} bytes) is pinned",
                            file.sha256, file.size, locked.sha256, locked.size
                        ));
                    }
                    None => return Some(format!("{path} of {reference} is not pinned")),
                }
            }
            if let Some(gone) = pinned.files.keys().find(|path| !now.files.contains_key(*path)) {
                return Some(format!("{gone} of {reference} is pinned, and the recipe does not take it"));
            }
        }
        let stale = self.artifacts.keys().find(|reference| !found.artifacts.contains_key(*reference));
        let stale = stale.map(ToString::to_string);
        let gone = || self.repositories.keys().find(|reference| !found.repositories.contains_key(*reference)).cloned();
        stale.or_else(gone).map(|reference| format!("{reference} is pinned, and the recipe does not name it"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lock() -> Lock {
        let file = LockedFile { size: 2, sha256: Digest::sha256_of(b"{}") };
        let files = BTreeMap::from([("config.json".to_owned(), file)]);
        let repository = LockedRepository { commit: "c".repeat(40), files };
        Lock {
            artifacts: [("ghcr.io/org/draft:1".parse().unwrap(), Digest::sha256_of(b"draft"))].into(),
            repositories: [("org/tiny@main".to_owned(), repository)].into(),
            ..Lock::default()
        }
    }

    #[test]
    fn a_lock_reads_back_and_does_not_drift_from_itself() {
        let lock = lock();
        let read = Lock::parse(lock.to_text().as_bytes(), "ModelSpec.lock").unwrap();
        assert_eq!(read, lock);
        assert_eq!(lock.drift(&read), None);
    }

    #[test]
    fn every_way_to_drift_is_named() {
        let pinned = lock();
        let check = |change: &dyn Fn(&mut Lock), reason: &str| {
            let mut found = lock();
            change(&mut found);
            let drift = pinned.drift(&found).unwrap_or_default();
            assert!(drift.contains(reason), "expected {reason:?}: {drift:?}");
        };
        let repository = |found: &mut Lock, change: &dyn Fn(&mut LockedRepository)| {
            change(found.repositories.get_mut("org/tiny@main").unwrap());
        };
        check(&|found| found.artifacts.clear(), "draft:1 is pinned, and the recipe does not name it");
        check(&|found| found.repositories.clear(), "tiny@main is pinned, and the recipe");
        check(&|found| *found.artifacts.values_mut().next().unwrap() = Digest::sha256_of(b""), "is pinned");
        check(
            &|found| {
                found.artifacts.insert("b:1".parse().unwrap(), Digest::sha256_of(b""));
            },
            "b:1 is not pinned",
        );
        check(&|found| repository(found, &|it| it.commit = "d".repeat(40)), "is commit ddd");
        check(&|found| repository(found, &|it| it.files.clear()), "config.json of org/tiny@main is pinned, and");
        check(&|found| repository(found, &|it| it.files.get_mut("config.json").unwrap().size = 3), "(3 bytes), and");
        let other = LockedFile { size: 0, sha256: Digest::sha256_of(b"") };
        check(
            &|found| {
                repository(found, &|it| {
                    it.files.insert("a".to_owned(), other.clone());
                });
            },
            "a of org/tiny@main is not",
        );
    }

    #[test]
    fn what_is_no_lock_is_refused() {
        let good = lock().to_text();
        for (bad, reason) in [
            (String::new(), "EOF"),
            (good.replace("ModelLock", "ModelSpec"), "expected apiVersion"),
            (good.replace("config.json", "../x"), "leads out"),
            (good.replace(&"c".repeat(40), "main"), "40 hex digits"),
            (good.replace("\"size\"", "\"length\""), "unknown field"),
            (good.replace("\"kind\"", "\"later\": 1, \"kind\""), "unknown field"),
        ] {
            let error = Lock::parse(bad.as_bytes(), "ModelSpec.lock").unwrap_err().to_string();
            assert!(error.contains("ModelSpec.lock") && error.contains(reason), "{error}");
        }
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Lock::parse(&bytes, "x");
        }
    }
}
