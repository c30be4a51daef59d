//! `verify`: hashes every blob that names need, whatever their seals say.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

use mlxctl_artifact::{Descriptor, Digest, MAX_MANIFEST_BYTES, Reference, media_type};
use mlxctl_content::{Observer, Outcome};

use crate::{Error, Store, graph};

/// Something that is wrong with the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The name through which it was reached; `None` where the name itself cannot be read.
    pub name: Option<Reference>,
    /// The blob, where it is about one.
    pub digest: Option<Digest>,
    /// Its file.
    pub path: PathBuf,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a blob or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// There is no such file.
    Missing {
        /// Bytes it should have.
        expected: u64,
    },
    /// The bytes are others: fewer, more, or changed.
    Damaged {
        /// Bytes it should have.
        expected: u64,
        /// Bytes it has.
        found: u64,
        /// Their digest.
        digest: Digest,
    },
    /// The bytes are right, and the manifest that points to them says another size.
    WrongSize {
        /// Bytes that the manifest says.
        expected: u64,
        /// Bytes it has.
        found: u64,
    },
    /// It cannot be read, or is no file, or no valid document.
    Unreadable {
        /// Why.
        reason: String,
    },
}

impl Finding {
    /// What the person can do about it.
    pub fn hint(&self) -> String {
        match (&self.name, &self.digest) {
            (Some(name), Some(_)) => {
                format!(
                    "pull {name} again (`mlxctl pull`), or build it again: damaged content is replaced, the rest kept"
                )
            }
            _ => format!("move {} away; the name is written again by the next pull or create", self.path.display()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        if let Some(digest) = &self.digest {
            write!(f, "blob {digest} ")?;
        }
        if let Some(name) = &self.name {
            write!(f, "of {name} ")?;
        }
        match &self.fault {
            Fault::Missing { expected } => write!(f, "is missing: expected {expected} bytes in {path}"),
            Fault::Damaged { expected, found, digest } => {
                write!(f, "is damaged: expected {expected} bytes in {path}, found {found} with the digest {digest}")
            }
            Fault::WrongSize { expected, found } => {
                write!(f, "has {found} bytes in {path}, its manifest says {expected}")
            }
            Fault::Unreadable { reason } => write!(f, "cannot be used: {path}: {reason}"),
        }
    }
}

impl Store {
    /// Hashes every blob that these names need, or that any name needs where none is given. The observer hears of
    /// each blob and of the bytes read. What was found sound is sealed; the seals of what was not are taken away, so
    /// that the next pull replaces it.
    ///
    /// # Errors
    /// Where a given name is not here, and where the names cannot be listed; everything else is a finding.
    pub fn verify(&self, names: &[Reference], observer: &dyn Observer) -> Result<Vec<Finding>, Error> {
        let mut findings = Vec::new();
        let mut roots = Vec::new();
        if names.is_empty() {
            let listing = self.list()?;
            roots = listing.names;
            findings.extend(listing.problems.iter().map(|problem| self.finding_of_name(problem)));
        }
        for name in names {
            match self.resolve(name) {
                Ok(descriptor) => roots.push((name.clone(), descriptor)),
                // The digest of a manifest that is damaged is known all the same.
                Err(Error::Damaged { digest, bytes, .. }) => {
                    roots.push((name.clone(), Descriptor::new(media_type::OCI_MANIFEST, digest, bytes)));
                }
                Err(error) => return Err(error),
            }
        }
        let mut seen = BTreeSet::new();
        for (name, root) in roots {
            let mut left = vec![root];
            while let Some(node) = left.pop() {
                // One blob under two sizes is looked at twice: one of the two descriptors lies.
                if !seen.insert((node.digest, node.size)) {
                    continue;
                }
                match self.verify_one(&node, observer) {
                    Ok(children) => left.extend(children.into_iter().rev()),
                    Err(error) => findings.push(self.finding(&name, &node, error)),
                }
            }
        }
        Ok(findings)
    }

    /// Hashes one blob; returns what it refers to.
    fn verify_one(&self, node: &Descriptor, observer: &dyn Observer) -> Result<Vec<Descriptor>, Error> {
        observer.started(node);
        let (digest, path) = (node.digest, self.layout().blob(&node.digest));
        let mut blob = self.blobs.find(&digest)?.ok_or(Error::Missing { digest, path })?;
        self.blobs.hash(&digest, &mut blob, |bytes| observer.moved(node, bytes as i64))?;
        self.blobs.get(node)?;
        observer.finished(node, Outcome::Present);
        if !media_type::is_manifest(&node.media_type) {
            return Ok(Vec::new());
        }
        let content = self.blobs.read(node, MAX_MANIFEST_BYTES)?;
        let links = graph::links(&node.media_type, &content).map_err(|error| Error::document(&blob.path, error))?;
        let mut children = links.children;
        for reference in links.references {
            if self.contains(&reference.digest)? {
                children.push(reference);
            }
        }
        Ok(children)
    }

    fn finding(&self, name: &Reference, node: &Descriptor, error: Error) -> Finding {
        let expected = node.size;
        let fault = match error {
            Error::Missing { .. } => Fault::Missing { expected },
            Error::Damaged { bytes, found, .. } => Fault::Damaged { expected, found: bytes, digest: *found },
            Error::WrongSize { found, .. } => Fault::WrongSize { expected, found },
            error => Fault::Unreadable { reason: reason(&error) },
        };
        Finding { name: Some(name.clone()), digest: Some(node.digest), path: self.layout().blob(&node.digest), fault }
    }

    fn finding_of_name(&self, problem: &Error) -> Finding {
        let path = match problem {
            Error::Io { path, .. } | Error::Document { path, .. } | Error::NotAFile { path, .. } => path.clone(),
            _ => self.layout().manifests(),
        };
        Finding { name: None, digest: None, path, fault: Fault::Unreadable { reason: reason(problem) } }
    }
}

/// The error without the path, which the finding has.
fn reason(error: &Error) -> String {
    match error {
        Error::Io { what, source, .. } => format!("cannot {what}: {source}"),
        Error::Document { reason, .. } => reason.clone(),
        Error::NotAFile { found, .. } => format!("it is {found}, expected a regular file"),
        other => other.to_string(),
    }
}
