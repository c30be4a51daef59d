//! Taking a large blob over in several ranges at once: each lane writes its range where it belongs, one thread hashes
//! along the contiguous start, and a log says what has come, so that a kill loses next to nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use futures_util::{TryStreamExt as _, stream};
use mlxctl_artifact::Descriptor;
use mlxctl_content::{ByteStream, Error as ContentError, Fetch, Verified};

use crate::blob::Blobs;
use crate::partial::{self, DATA, LOG};
use crate::ranges::Ranges;
use crate::repository::{blocking, stopped};
use crate::{Error, LocalRepository, file, sink};

/// Bytes that one request asks for: long enough that its way costs little, short enough that lanes end together.
const SHORTEST_SEGMENT: u64 = 8 << 20;
const LONGEST_SEGMENT: u64 = 32 << 20;
/// Segments that a blob of middling size is cut into.
const SEGMENTS: u64 = 16;
/// A lane tells the log of its progress after this many bytes.
const RECORD: u64 = 1 << 20;

/// The first segment, opened: its answer tells whether the source can do ranges.
pub(crate) type Start = Option<((u64, u64), ByteStream)>;

/// What is missing, as the ranges to ask for.
fn segments(descriptor: &Descriptor, held: &Ranges) -> impl Iterator<Item = (u64, u64)> + Send + use<> {
    let missing = descriptor.size.saturating_sub(held.total());
    held.gaps(descriptor.size, (missing / SEGMENTS).clamp(SHORTEST_SEGMENT, LONGEST_SEGMENT))
}

/// Whether a blob is taken over in ranges: where the source offers it and enough is missing, or where islands are
/// held already. `None` where it is appended.
pub(crate) async fn worth_it(
    descriptor: &Descriptor,
    source: &dyn Fetch,
    held: &Ranges,
) -> Result<Option<Start>, ContentError> {
    let mut gaps = segments(descriptor, held);
    let Some(first) = gaps.next() else { return Ok(held.has_islands().then_some(None)) };
    if !held.has_islands() && (source.lanes() < 2 || gaps.next().is_none()) {
        return Ok(None);
    }
    let stream = source.fetch(descriptor, first.0..first.1).await?;
    Ok((source.lanes() > 1 || held.has_islands()).then_some(Some((first, stream))))
}

/// Takes the content over. `held` is what the journal says.
pub(crate) async fn receive(
    target: &LocalRepository,
    descriptor: &Descriptor,
    source: &dyn Fetch,
    (lock, held, start): (File, Ranges, Start),
    moved: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), ContentError> {
    let gaps = segments(descriptor, &held);
    moved(held.total());
    let wanted = descriptor.clone();
    let partial =
        target.blocking(move |this| Partial::open(&this.store.blobs, &wanted, lock, held).map(Arc::new)).await?;
    let hasher = Hasher::start(&partial, descriptor);
    let mut start = start;
    let segments = gaps.map(|gap| (gap, start.take_if(|(first, _)| *first == gap).map(|(_, stream)| stream))).map(Ok);
    stream::iter(segments)
        .try_for_each_concurrent(source.lanes().max(1), |(gap, stream)| {
            let partial = Arc::clone(&partial);
            async move { segment(descriptor, source, partial, gap, stream, moved).await }
        })
        .await?;
    let verified = hasher.finish().await?;
    let (blobs, digest) = (Arc::clone(&target.store.blobs), descriptor.digest);
    blocking(move || {
        let hashed = verified.finish();
        if let Err(error) = hashed {
            partial::discard(&partial.folder)?;
            return Err(error);
        }
        blobs.accept(&partial.data, &partial.folder.join(DATA), digest)?;
        Ok(partial::discard(&partial.folder)?)
    })
    .await
}

/// One lane's work on one range.
async fn segment(
    descriptor: &Descriptor,
    source: &dyn Fetch,
    partial: Arc<Partial>,
    (start, end): (u64, u64),
    stream: Option<ByteStream>,
    moved: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), ContentError> {
    let stream = match stream {
        Some(stream) => stream,
        None => source.fetch(descriptor, start..end).await?,
    };
    let lane = Lane { partial, at: start, end, recorded: start };
    let (lane, arrived) = sink::drain(stream, lane, Lane::write, moved).await?;
    arrived?;
    if lane.at < end {
        let message = format!("the source ended after {} of {} bytes", lane.at - start, end - start);
        let source = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, message);
        return Err(ContentError::Io { what: format!("receiving blob {}", descriptor.digest), source });
    }
    Ok(())
}

/// Content on its way in, under lock. The lock goes with the last lane that still writes.
struct Partial {
    folder: PathBuf,
    data: File,
    log: Mutex<Log>,
    arrived: Mutex<Arrived>,
    grown: Condvar,
    _lock: File,
}

/// Records lie side by side whatever became of the one before: a full disk may cut one off.
struct Log {
    file: File,
    length: u64,
}

struct Arrived {
    held: Ranges,
    /// Nothing more comes.
    ended: bool,
}

impl Partial {
    fn open(blobs: &Blobs, descriptor: &Descriptor, lock: File, held: Ranges) -> Result<Self, Error> {
        let folder = blobs.layout.partial(&descriptor.digest);
        // In this order: the data grows to its full length only when the journal no longer takes that for content.
        partial::begin_ranges(blobs, &folder, descriptor, &held)?;
        let path = folder.join(DATA);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let data = options.open(&path).map_err(Error::io("open", &path))?;
        data.set_len(descriptor.size).map_err(Error::io("write", &path))?;
        let path = folder.join(LOG);
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        let log = Log { file: file.map_err(Error::io("open", &path))?, length: 0 };
        let arrived = Mutex::new(Arrived { held, ended: false });
        Ok(Self { folder, data, log: Mutex::new(log), arrived, grown: Condvar::new(), _lock: lock })
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        self.arrived().ended = true;
        self.grown.notify_all();
    }
}

/// Writes one range from its start on.
struct Lane {
    partial: Arc<Partial>,
    at: u64,
    end: u64,
    recorded: u64,
}

impl Lane {
    fn write(&mut self, piece: &[u8]) -> Result<(), ContentError> {
        let length = piece.len() as u64;
        if length > self.end - self.at {
            let message = format!("the source gave more than the {} bytes asked for", self.end - self.at);
            return Err(ContentError::Refused { message });
        }
        let path = self.partial.folder.join(DATA);
        self.partial.data.write_all_at(piece, self.at).map_err(Error::io("write", &path))?;
        let mut arrived = self.partial.arrived();
        arrived.held.add(self.at, self.at + length);
        drop(arrived);
        self.partial.grown.notify_all();
        self.at += length;
        if self.at - self.recorded >= RECORD || self.at == self.end {
            self.record()?;
        }
        Ok(())
    }

    /// Tells the log what was written, after it was.
    fn record(&mut self) -> Result<(), Error> {
        if self.recorded == self.at {
            return Ok(());
        }
        let mut pair = [0; 16];
        pair[..8].copy_from_slice(&self.recorded.to_le_bytes());
        pair[8..].copy_from_slice(&self.at.to_le_bytes());
        let path = self.partial.folder.join(LOG);
        let mut log = self.partial.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.file.write_all_at(&pair, log.length).map_err(Error::io("write", &path))?;
        log.length += pair.len() as u64;
        self.recorded = self.at;
        Ok(())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // What cannot be recorded is fetched again.
        let _ = self.record();
    }
}

/// The thread that hashes along the contiguous start.
struct Hasher {
    partial: Arc<Partial>,
    thread: tokio::task::JoinHandle<Result<Verified, ContentError>>,
}

impl Hasher {
    fn start(partial: &Arc<Partial>, descriptor: &Descriptor) -> Self {
        let (reader, descriptor) = (Arc::clone(partial), descriptor.clone());
        let thread = tokio::task::spawn_blocking(move || hash(&reader, &descriptor));
        Self { partial: Arc::clone(partial), thread }
    }

    /// Waits until all that arrived is hashed.
    async fn finish(mut self) -> Result<Verified, ContentError> {
        self.partial.end();
        (&mut self.thread).await.map_err(|failed| stopped(&failed))?
    }
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.partial.end();
    }
}

fn hash(partial: &Partial, descriptor: &Descriptor) -> Result<Verified, ContentError> {
    let mut verified = Verified::new(descriptor);
    let mut buffer = vec![0; file::CHUNK_BYTES];
    let path = partial.folder.join(DATA);
    loop {
        let mut arrived = partial.arrived();
        while arrived.held.frontier() <= verified.seen() && !arrived.ended {
            arrived = partial.grown.wait(arrived).unwrap_or_else(PoisonError::into_inner);
        }
        let (frontier, ended) = (arrived.held.frontier(), arrived.ended);
        drop(arrived);
        let seen = verified.seen();
        // A given-up transfer is not hashed to its end.
        if frontier <= seen || (ended && frontier < descriptor.size) {
            return Ok(verified);
        }
        let length = (frontier - seen).min(file::CHUNK_BYTES as u64) as usize;
        partial.data.read_exact_at(&mut buffer[..length], seen).map_err(Error::io("read", &path))?;
        verified.update(&buffer[..length])?;
    }
}
