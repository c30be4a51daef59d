//! Leases: what a running process needs although no name points to it yet, or any more. A lease is a file that its
//! process keeps locked; when the process dies, of whatever cause, the lock goes and the collector removes the file.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use mlxctl_artifact::Digest;

use crate::layout::Layout;
use crate::{Error, file, lock};

/// A lease file holds lines `+digest` and `-digest`; 64 MiB are some 800,000 of them.
const MAX_LEASE_BYTES: u64 = 64 << 20;

/// Keeps content from the collector while it lives; what manifests refer to is kept with them.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    layout: Layout,
    read_only: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    file: Option<(File, PathBuf)>,
    held: BTreeSet<Digest>,
}

impl Lease {
    /// A lease of nothing: its file comes with the first digest.
    pub(crate) fn empty(layout: Layout, read_only: bool) -> Self {
        Self { inner: Arc::new(Inner { layout, read_only, state: Mutex::default() }) }
    }

    /// Adds content to the lease, whether it is here already or not. In a store that can only be read this does
    /// nothing: who may collect there is not ours to say.
    pub fn hold(&self, digests: &[Digest]) -> Result<(), Error> {
        if self.inner.read_only {
            return Ok(());
        }
        let layout = &self.inner.layout;
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = lines('+', digests.iter().filter(|new| !state.held.contains(new)));
        if lines.is_empty() {
            return Ok(());
        }
        let _collector_waits = lock::shared(&layout.lock())?;
        if state.file.is_none() {
            let path = layout.leases().join(file::random_name()?);
            let file = OpenOptions::new().append(true).create_new(true).open(&path);
            let file = file.map_err(Error::io("create", &path))?;
            file.lock().map_err(Error::io("lock", &path))?;
            state.file = Some((file, path));
        }
        if let Some((file, path)) = &mut state.file {
            file.write_all(lines.as_bytes()).map_err(Error::io("write", path))?;
        }
        state.held.extend(digests);
        Ok(())
    }

    /// Takes content out of the lease.
    pub fn release(&self, digests: &BTreeSet<Digest>) -> Result<(), Error> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = lines('-', state.held.intersection(digests));
        if let Some((file, path)) = &mut state.file
            && !lines.is_empty()
        {
            let _collector_waits = lock::shared(&self.inner.layout.lock())?;
            file.write_all(lines.as_bytes()).map_err(Error::io("write", path))?;
        }
        state.held.retain(|held| !digests.contains(held));
        Ok(())
    }
}

fn lines<'a>(sign: char, digests: impl Iterator<Item = &'a Digest>) -> String {
    let mut lines = String::new();
    for digest in digests {
        lines.push(sign);
        lines.push_str(&digest.to_string());
        lines.push('\n');
    }
    lines
}

impl Drop for Inner {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, path)) = &state.file {
            // One that stays is removed by the collector: nobody holds its lock any more.
            let _ = file::remove(path);
        }
    }
}

/// What the living leases hold; the files of dead ones are removed unless `dry_run`. The caller holds the store's
/// lock alone.
pub(crate) fn held(layout: &Layout, dry_run: bool) -> Result<BTreeSet<Digest>, Error> {
    let mut held = BTreeSet::new();
    for entry in file::entries(&layout.leases())? {
        let path = entry.path();
        let Some(opened) = file::open(&path)? else { continue };
        if lock::try_opened(opened, &path)?.is_some() {
            if !dry_run {
                file::remove(&path)?;
            }
            continue;
        }
        let content = file::read(&path, MAX_LEASE_BYTES)?.unwrap_or_default();
        for line in String::from_utf8_lossy(&content).lines() {
            let digest = |text: &str| text.parse::<Digest>().map_err(|error| Error::document(&path, error));
            match line.split_at_checked(1) {
                Some(("+", text)) => held.insert(digest(text)?),
                Some(("-", text)) => held.remove(&digest(text)?),
                _ => return Err(Error::document(&path, "a lease has lines '+digest' and '-digest'")),
            };
        }
    }
    Ok(held)
}
