//! The collector: removes what no name, no lease and no living referrer needs. It marks and sweeps while it holds the
//! store's lock alone, so that nothing is added or named meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mlxctl_artifact::{Descriptor, Digest, MAX_MANIFEST_BYTES, media_type};

use crate::layout::ALGORITHMS;
use crate::{Error, Store, file, graph, lease, lock, partial, seal, uploads};

/// How the collector goes about it.
#[derive(Debug, Clone, Copy)]
pub struct GcOptions {
    /// Report what would be removed, and remove nothing.
    pub dry_run: bool,
    /// The present time, by which leftovers are old.
    pub now: SystemTime,
    /// Half-done pulls and uploads that nobody works on are kept this long: they save the next pull its start.
    pub keep_partials: Duration,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self { dry_run: false, now: SystemTime::now(), keep_partials: Duration::from_hours(24) }
    }
}

/// What the collector removed, or would remove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GcReport {
    /// Blobs and manifests that nothing needs.
    pub blobs: Vec<Digest>,
    /// Half-done pulls, uploads and temporary files whose writers are gone.
    pub leftovers: Vec<PathBuf>,
    /// Bytes of both.
    pub bytes: u64,
    /// Blobs and manifests that stay.
    pub kept: usize,
}

impl Store {
    /// Removes what nothing needs.
    ///
    /// # Errors
    /// [`Error::Document`] or [`Error::Damaged`] where a name or a named manifest cannot be read: what it needs is
    /// unknown then, so nothing is removed.
    pub fn gc(&self, dry_run: bool) -> Result<GcReport, Error> {
        self.gc_with(&GcOptions { dry_run, ..GcOptions::default() })
    }

    /// The same, with a say in what is old.
    pub fn gc_with(&self, options: &GcOptions) -> Result<GcReport, Error> {
        self.writable()?;
        let _alone = lock::alone(&self.layout().lock())?;
        let mut live = self.mark(options.dry_run)?;
        let mut report = GcReport::default();
        let candidates = self.unmarked(&mut live)?;
        report.kept = live.iter().filter(|digest| self.layout().blob(digest).is_file()).count();
        for (digest, bytes) in candidates {
            if !options.dry_run {
                self.sweep(&digest)?;
            }
            report.blobs.push(digest);
            report.bytes += bytes;
        }
        self.sweep_leftovers(options, &mut report)?;
        Ok(report)
    }

    /// Removes one blob if nothing needs it; whether it was removed.
    pub(crate) fn sweep_one(&self, digest: &Digest) -> Result<bool, Error> {
        self.writable()?;
        let _alone = lock::alone(&self.layout().lock())?;
        let mut live = self.mark(false)?;
        let doomed = self.unmarked(&mut live)?.into_iter().any(|(other, _)| other == *digest);
        if doomed {
            self.sweep(digest)?;
        }
        Ok(doomed)
    }

    fn sweep(&self, digest: &Digest) -> Result<(), Error> {
        seal::remove(self.layout(), digest)?;
        file::remove(&self.layout().blob(digest)).map(drop)
    }

    /// Everything that names and leases need.
    fn mark(&self, dry_run: bool) -> Result<BTreeSet<Digest>, Error> {
        let mut listing = self.list()?;
        if !listing.problems.is_empty() {
            return Err(listing.problems.swap_remove(0));
        }
        let mut live = BTreeSet::new();
        for (_, descriptor) in listing.names {
            self.mark_graph(descriptor, &mut live)?;
        }
        for digest in lease::held(self.layout(), dry_run)? {
            match graph::describe(&self.blobs, &digest) {
                Ok(Some((descriptor, _))) => self.mark_graph(descriptor, &mut live)?,
                // It may be on its way, or about to be replaced; either way nothing can be followed from it.
                Ok(None) | Err(Error::Damaged { .. } | Error::NotAFile { .. }) => drop(live.insert(digest)),
                Err(error) => return Err(error),
            }
        }
        Ok(live)
    }

    /// Marks `root` and all that it needs. What is missing needs nothing.
    fn mark_graph(&self, root: Descriptor, live: &mut BTreeSet<Digest>) -> Result<(), Error> {
        let mut left = vec![root];
        while let Some(node) = left.pop() {
            if !live.insert(node.digest) || !media_type::is_manifest(&node.media_type) {
                continue;
            }
            let content = match self.blobs.read(&node, MAX_MANIFEST_BYTES) {
                Err(Error::Missing { .. }) => continue,
                content => content?,
            };
            let links = graph::links(&node.media_type, &content);
            let links = links.map_err(|error| Error::document(&self.layout().blob(&node.digest), error))?;
            left.extend(links.children.into_iter().chain(links.references));
        }
        Ok(())
    }

    /// The blobs that nothing needs, with their sizes. A manifest about a living one (a signature, an SBOM) lives
    /// with it; such referrers are marked here, together with what they need.
    fn unmarked(&self, live: &mut BTreeSet<Digest>) -> Result<Vec<(Digest, u64)>, Error> {
        let mut rest = self.blobs_outside(live)?;
        loop {
            let before = live.len();
            for (digest, _) in &rest {
                let Ok(Some((node, content))) = graph::describe(&self.blobs, digest) else { continue };
                let subject = graph::links(&node.media_type, &content).ok().and_then(|links| links.subject);
                if subject.is_some_and(|subject| live.contains(&subject)) {
                    self.mark_graph(node, live)?;
                }
            }
            rest.retain(|(digest, _)| !live.contains(digest));
            if live.len() == before {
                return Ok(rest);
            }
        }
    }

    fn blobs_outside(&self, live: &BTreeSet<Digest>) -> Result<Vec<(Digest, u64)>, Error> {
        let mut outside = Vec::new();
        for algorithm in ALGORITHMS {
            for entry in file::entries(&self.layout().blobs(algorithm))? {
                let name = format!("{}:{}", algorithm.name(), entry.file_name().to_string_lossy());
                // What is no blob by its name or its kind is not ours to remove.
                let (Ok(digest), Ok(meta)) = (name.parse::<Digest>(), entry.metadata()) else { continue };
                if meta.is_file() && !live.contains(&digest) {
                    outside.push((digest, meta.len()));
                }
            }
        }
        Ok(outside)
    }

    fn sweep_leftovers(&self, options: &GcOptions, report: &mut GcReport) -> Result<(), Error> {
        let layout = self.layout();
        for entry in file::entries(&layout.ingest())? {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                let Some(_lock) = partial::try_claim(&path)? else { continue };
                let name = entry.file_name().to_string_lossy().replacen('-', ":", 1);
                let is_done =
                    name.parse().is_ok_and(|digest| self.blobs.find(&digest).is_ok_and(|blob| blob.is_some()));
                if is_done || is_old(&path, options) {
                    leave(&path, options, report, partial::discard)?;
                }
            } else if lock::try_removable(&path)?.is_some() {
                leave(&path, options, report, |path| file::remove(path).map(drop))?;
            }
        }
        for entry in file::entries(&layout.uploads())? {
            let path = entry.path();
            let lock = uploads::try_claim(&path)?;
            // One without data was cut off in its making.
            if is_old(&path, options) && (lock.is_some() || !path.join("data").exists()) {
                leave(&path, options, report, uploads::discard)?;
            }
        }
        // Whoever replaces a file holds the lock that is ours now, but for journals, which are written in an instant.
        for entry in file::entries(&layout.scratch())? {
            if is_old(&entry.path(), options) {
                leave(&entry.path(), options, report, |path| file::remove(path).map(drop))?;
            }
        }
        for algorithm in ALGORITHMS {
            for entry in file::entries(&layout.seals(algorithm))? {
                let is_orphan = !layout.blobs(algorithm).join(entry.file_name()).exists();
                if is_orphan && !options.dry_run {
                    file::remove(&entry.path())?;
                }
            }
        }
        Ok(())
    }
}

fn leave(
    path: &Path,
    options: &GcOptions,
    report: &mut GcReport,
    remove: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<(), Error> {
    report.bytes += bytes_below(path);
    report.leftovers.push(path.to_owned());
    if options.dry_run { Ok(()) } else { remove(path) }
}

fn bytes_below(path: &Path) -> u64 {
    let files = file::entries(path).unwrap_or_default();
    let lengths = files.iter().filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum::<u64>();
    lengths + fs::symlink_metadata(path).map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 })
}

/// Whether nothing at `path`, or in it, was changed for as long as leftovers are kept.
fn is_old(path: &Path, options: &GcOptions) -> bool {
    let inner = file::entries(path).unwrap_or_default().into_iter().map(|entry| entry.path());
    inner
        .chain([path.to_owned()])
        .filter_map(|path| fs::symlink_metadata(path).ok()?.modified().ok())
        .all(|changed| options.now.duration_since(changed).unwrap_or_default() >= options.keep_partials)
}
