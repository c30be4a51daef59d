//! Pushes into the store: one writer a digest across processes, and partial content that the next push goes on with.
//!
//! `ingest/<algorithm>-<hex>/` holds `data`, `journal.json` and `lock`. The journal says how `data` was written:
//! `appended` means that its length is what is held; otherwise `ranges` lists what is, and the file `ranges` what came
//! since. This file appends; `lanes.rs` fetches several ranges at once.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use mlxctl_artifact::{Descriptor, Digest};
use mlxctl_content::{Error as ContentError, Fetch, Observer, Verified};
use serde::{Deserialize, Serialize};

use crate::blob::Blobs;
use crate::ranges::Ranges;
use crate::repository::blocking;
use crate::{Error, LocalRepository, file, lanes, lock, sink};

pub(crate) const DATA: &str = "data";
const JOURNAL: &str = "journal.json";
const LOCK: &str = "lock";
/// Ranges that came since the journal was written: pairs of 64-bit little-endian numbers.
pub(crate) const LOG: &str = "ranges";
const MAX_LOG_BYTES: u64 = 64 << 20;
const MAX_JOURNAL_BYTES: u64 = 1 << 20;
/// How often a waiting push looks whether the other one is done.
const FIRST_WAIT: Duration = Duration::from_millis(5);
const LONGEST_WAIT: Duration = Duration::from_millis(250);

#[derive(Serialize, Deserialize)]
struct Journal {
    version: u32,
    digest: Digest,
    size: u64,
    appended: bool,
    ranges: Vec<(u64, u64)>,
}

impl Journal {
    fn of_ranges(descriptor: &Descriptor, ranges: &Ranges) -> Self {
        let ranges = ranges.iter().collect();
        Self { version: 1, digest: descriptor.digest, size: descriptor.size, appended: false, ranges }
    }

    /// What is held in a `data` of this length; `log` tells what came after the journal was written.
    fn held(&self, length: u64, log: &[u8]) -> Ranges {
        let mut held = Ranges::default();
        if self.appended {
            held.add(0, length.min(self.size));
            return held;
        }
        // The last record may be cut off: its bytes are fetched again.
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
        let logged = log.chunks_exact(16).map(|pair| (number(&pair[..8]), number(&pair[8..])));
        for (start, end) in self.ranges.iter().copied().chain(logged) {
            held.add(start, end.min(length).min(self.size));
        }
        held
    }
}

/// The journal of a partial and what it says is held, where it speaks of this content.
fn read_journal(folder: &Path, descriptor: &Descriptor) -> Result<Option<(Journal, Ranges)>, Error> {
    let journal = match file::read(&folder.join(JOURNAL), MAX_JOURNAL_BYTES) {
        Ok(content) => content.and_then(|content| serde_json::from_slice::<Journal>(&content).ok()),
        Err(Error::Document { .. }) => None,
        Err(error) => return Err(error),
    };
    let is_ours = |journal: &Journal| {
        journal.version == 1 && journal.digest == descriptor.digest && journal.size == descriptor.size
    };
    let Some(journal) = journal.filter(is_ours) else { return Ok(None) };
    let path = folder.join(DATA);
    let Some(data) = file::open(&path)? else { return Ok(None) };
    let length = data.metadata().map_err(Error::io("read", &path))?.len();
    if length > descriptor.size {
        return Ok(None);
    }
    let log = match file::read(&folder.join(LOG), MAX_LOG_BYTES) {
        Ok(log) => log.unwrap_or_default(),
        Err(Error::Document { .. }) => Vec::new(),
        Err(error) => return Err(error),
    };
    let held = journal.held(length, &log);
    Ok(Some((journal, held)))
}

fn write_journal(blobs: &Blobs, folder: &Path, journal: &Journal) -> Result<(), Error> {
    let path = folder.join(JOURNAL);
    let content = serde_json::to_vec(journal).map_err(|error| Error::document(&path, error))?;
    file::replace(&blobs.layout.scratch(), &path, &content, false)
}

/// Makes a partial one of ranges, of which `held` are here. A log beside a journal that appends is an old one.
pub(crate) fn begin_ranges(blobs: &Blobs, folder: &Path, descriptor: &Descriptor, held: &Ranges) -> Result<(), Error> {
    if read_journal(folder, descriptor)?.is_none_or(|(journal, _)| journal.appended) {
        file::remove(&folder.join(LOG))?;
    }
    if held.total() == 0 {
        file::remove(&folder.join(JOURNAL))?;
        file::remove(&folder.join(DATA))?;
    }
    write_journal(blobs, folder, &Journal::of_ranges(descriptor, held))?;
    file::remove(&folder.join(LOG)).map(drop)
}

/// Content on its way in, under lock.
struct Partial {
    folder: PathBuf,
    data: File,
    verified: Verified,
    _lock: File,
}

/// Takes `descriptor`'s content over from `source`: waits where another push of it is under way, goes on where one
/// was cut off. A push that fails takes back all that it told the observer, so that the next one can count anew.
pub(crate) async fn push(
    target: &LocalRepository,
    descriptor: &Descriptor,
    source: &dyn Fetch,
    observer: &dyn Observer,
) -> Result<(), ContentError> {
    let told = AtomicI64::new(0);
    let moved = |bytes: u64| {
        told.fetch_add(bytes as i64, Ordering::Relaxed);
        observer.moved(descriptor, bytes as i64);
    };
    let pushed = receive(target, descriptor, source, &moved).await;
    if pushed.is_err() {
        observer.moved(descriptor, -told.load(Ordering::Relaxed));
    }
    pushed
}

async fn receive(
    target: &LocalRepository,
    descriptor: &Descriptor,
    source: &dyn Fetch,
    moved: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), ContentError> {
    let digest = descriptor.digest;
    target.blocking(move |this| this.store.writable().and_then(|()| this.hold(digest))).await?;
    let lock = claim(target, digest).await?;
    let wanted = descriptor.clone();
    if target.blocking(move |this| this.store.blobs.holds(&wanted)).await? {
        target.blocking(move |this| discard(&this.store.layout().partial(&digest))).await?;
        drop(lock);
        moved(descriptor.size);
        return Ok(());
    }
    let wanted = descriptor.clone();
    let held = target
        .blocking(move |this| {
            let folder = this.store.layout().partial(&wanted.digest);
            Ok(read_journal(&folder, &wanted)?.map(|(_, held)| held).unwrap_or_default())
        })
        .await?;
    if let Some(start) = lanes::worth_it(descriptor, source, &held).await? {
        return lanes::receive(target, descriptor, source, (lock, held, start), moved).await;
    }
    let wanted = descriptor.clone();
    let mut partial = target.blocking(move |this| Partial::open(&this.store.blobs, &wanted, lock)).await?;
    let held = partial.verified.seen();
    moved(held);
    if held < descriptor.size {
        let stream = source.fetch(descriptor, held..descriptor.size).await?;
        let (rest, arrived) = sink::drain(stream, partial, Partial::append, moved).await?;
        partial = rest;
        if let Err(error) = arrived {
            // More bytes than announced cannot become the content; after anything else the next push goes on here.
            if matches!(error, ContentError::SizeMismatch { .. }) {
                blocking(move || discard(&partial.folder).map_err(ContentError::from)).await?;
            }
            return Err(error);
        }
        let found = partial.verified.seen();
        if found < descriptor.size {
            let message = format!("the source ended after {found} of {} bytes", descriptor.size);
            let source = io::Error::new(io::ErrorKind::UnexpectedEof, message);
            return Err(ContentError::Io { what: format!("receiving blob {digest}"), source });
        }
    }
    let target = target.clone();
    blocking(move || partial.finish(&target.store.blobs, digest)).await
}

/// The lock of the digest's folder. Waiting is done by asking again, so that a push that is given up lets go at once
/// and no thread is held while another process downloads for an hour.
async fn claim(target: &LocalRepository, digest: Digest) -> Result<File, ContentError> {
    let mut wait = FIRST_WAIT;
    loop {
        let lock = target
            .blocking(move |this| {
                let folder = this.store.layout().partial(&digest);
                file::create_folder(&folder)?;
                lock::try_removable(&folder.join(LOCK))
            })
            .await?;
        if let Some(lock) = lock {
            return Ok(lock);
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_WAIT);
    }
}

/// Removes a partial with its lock last: who waits for it sees that the file is gone and starts over.
pub(crate) fn discard(folder: &Path) -> Result<(), Error> {
    for name in [DATA, JOURNAL, LOG, LOCK] {
        file::remove(&folder.join(name))?;
    }
    match fs::remove_dir(folder) {
        // The next one has put its lock there already, or has removed the folder itself.
        Err(error) if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Ok(()),
        removed => removed.map_err(Error::io("remove", folder)),
    }
}

/// The lock of a partial that nobody works on; `None` where somebody does.
pub(crate) fn try_claim(folder: &Path) -> Result<Option<File>, Error> {
    lock::try_removable(&folder.join(LOCK))
}

impl Partial {
    /// Opens what is held of the content, hashed anew; starts from nothing where the journal tells of other content.
    fn open(blobs: &Blobs, descriptor: &Descriptor, lock: File) -> Result<Self, Error> {
        let folder = blobs.layout.partial(&descriptor.digest);
        let path = folder.join(DATA);
        let journal = read_journal(&folder, descriptor)?;
        let held = journal.as_ref().map_or(0, |(_, held)| held.frontier());
        if held == 0 {
            // In this order: a kill in between leaves no journal that speaks of old data.
            file::remove(&folder.join(JOURNAL))?;
            file::remove(&path)?;
        }
        let mut options = OpenOptions::new();
        let data = options.read(true).append(true).create(true).open(&path).map_err(Error::io("open", &path))?;
        data.set_len(held).map_err(Error::io("write", &path))?;
        if held == 0 || journal.is_none_or(|(journal, _)| !journal.appended) {
            let (digest, size) = (descriptor.digest, descriptor.size);
            let journal = Journal { version: 1, digest, size, appended: true, ranges: Vec::new() };
            write_journal(blobs, &folder, &journal)?;
        }
        file::remove(&folder.join(LOG))?;
        let mut partial = Self { folder, data, verified: Verified::new(descriptor), _lock: lock };
        partial.hash_held(&path, held)?;
        Ok(partial)
    }

    /// The hasher's state is not stored, so what is held is read once more.
    fn hash_held(&mut self, path: &Path, held: u64) -> Result<(), Error> {
        let mut buffer = vec![0; held.min(file::CHUNK_BYTES as u64) as usize];
        let mut left = held;
        while left > 0 {
            let piece = &mut buffer[..left.min(file::CHUNK_BYTES as u64) as usize];
            self.data.read_exact(piece).map_err(Error::io("read", path))?;
            let hashed = self.verified.update(piece);
            hashed.map_err(|error| Error::Refused { message: error.to_string() })?;
            left -= piece.len() as u64;
        }
        Ok(())
    }

    fn append(&mut self, piece: &[u8]) -> Result<(), ContentError> {
        self.verified.update(piece)?;
        let path = self.folder.join(DATA);
        Ok(self.data.write_all(piece).map_err(Error::io("write", &path))?)
    }

    /// Gives whole content its name; content that is not what its digest says is discarded, so that the next push
    /// starts clean.
    fn finish(self, blobs: &Blobs, digest: Digest) -> Result<(), ContentError> {
        if let Err(error) = self.verified.finish() {
            discard(&self.folder)?;
            return Err(error);
        }
        blobs.accept(&self.data, &self.folder.join(DATA), digest)?;
        Ok(discard(&self.folder)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_holds_its_ranges_and_those_of_the_log() {
        let check = |ranges: &[(u64, u64)], log: &[u64], length: u64, held: &[(u64, u64)]| {
            let digest = Digest::sha256_of(b"");
            let journal = Journal { version: 1, digest, size: 100, appended: false, ranges: ranges.to_vec() };
            let log: Vec<u8> = log.iter().flat_map(|number| number.to_le_bytes()).collect();
            let found: Vec<_> = journal.held(length, &log).iter().collect();
            assert_eq!(found, held, "{ranges:?} of {length}");
            let cut = &log[..log.len().saturating_sub(1)];
            assert!(journal.held(length, cut).total() <= journal.held(length, &log).total());
        };
        check(&[], &[], 50, &[]);
        check(&[(0, 10)], &[], 50, &[(0, 10)]);
        check(&[(20, 30), (0, 10)], &[10, 12], 50, &[(0, 12), (20, 30)]);
        check(&[(8, 30), (0, 10)], &[30, 60, 90, 95], 50, &[(0, 50)]);
        check(&[(0, u64::MAX)], &[], 500, &[(0, 100)]);
        check(&[(5, 1)], &[7, 7, 9, 3], 50, &[]);
    }
}
