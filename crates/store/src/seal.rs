//! Seals: the stamps of blobs that were hashed and have reached the disk. A blob whose stamp is that of its seal need
//! not be hashed again. One thread a store syncs and seals in the background, so that no transfer waits for the disk.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use mlxctl_artifact::Digest;
use serde::{Deserialize, Serialize};

use crate::file::Stamp;
use crate::layout::Layout;
use crate::{Error, file, lock};

/// File systems stamp with a clock that ticks every 1 to 10 ms: a change within the tick of the last one leaves no
/// trace. A seal is written only after the tick has passed.
const CLOCK_TICK: Duration = Duration::from_millis(20);
const MAX_SEAL_BYTES: u64 = 4096;

#[derive(Serialize, Deserialize)]
struct Seal {
    version: u32,
    stamp: Stamp,
}

/// The stamp that the blob had when it was hashed; `None` where it has no seal, or one that cannot be read: such a
/// blob is hashed again.
pub(crate) fn read(layout: &Layout, digest: &Digest) -> Option<Stamp> {
    let content = file::read(&layout.seal(digest), MAX_SEAL_BYTES).ok()??;
    let seal: Seal = serde_json::from_slice(&content).ok()?;
    (seal.version == 1).then_some(seal.stamp)
}

/// Takes the seal of a blob away.
pub(crate) fn remove(layout: &Layout, digest: &Digest) -> Result<(), Error> {
    file::remove(&layout.seal(digest)).map(drop)
}

/// Syncs a blob that was hashed when it had this stamp, and seals it if it still has.
fn seal(layout: &Layout, digest: &Digest, hashed: Stamp) -> Result<(), Error> {
    let path = layout.blob(digest);
    let Some(blob) = file::open(&path)? else { return Ok(()) };
    blob.sync_all().map_err(Error::io("sync", &path))?;
    file::sync_folder(&layout.blobs(digest.algorithm()))?;
    if let Some(wait) = CLOCK_TICK.checked_sub(hashed.age()) {
        thread::sleep(wait);
    }
    // The collector must not take the blob away between the look and the seal.
    let _collector_waits: File = lock::shared(&layout.lock())?;
    if Stamp::of(&blob, &path)? != hashed {
        return Ok(());
    }
    let content = serde_json::to_vec(&Seal { version: 1, stamp: hashed }).map_err(|e| Error::document(&path, e))?;
    file::create_folder(&layout.seals(digest.algorithm()))?;
    file::replace(&layout.scratch(), &layout.seal(digest), &content, false)
}

/// The background thread and what it still has to do.
pub(crate) struct Sealer {
    layout: Layout,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// The queue has no bound: its entries are small, and a bound would make transfers wait for the disk.
#[derive(Default)]
struct State {
    queue: VecDeque<(Digest, Stamp)>,
    busy: bool,
    closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sealer {
    pub(crate) fn new(layout: Layout) -> Self {
        Self { layout, shared: Arc::default(), thread: Mutex::default() }
    }

    /// Has the blob synced and sealed in the background. The thread starts with the first one.
    pub(crate) fn enqueue(&self, digest: Digest, hashed: Stamp) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let (layout, shared) = (self.layout.clone(), self.shared.clone());
            let spawned = thread::Builder::new().name("store-sealer".to_owned()).spawn(move || work(&layout, &shared));
            // Without a thread the blob stays unsealed, which costs a hash at its next use.
            let Ok(spawned) = spawned else { return };
            *thread = Some(spawned);
        }
        self.shared.state().queue.push_back((digest, hashed));
        self.shared.changed.notify_all();
    }

    /// Waits until everything queued is on disk and sealed.
    pub(crate) fn settle(&self) {
        let mut state = self.shared.state();
        while state.busy || !state.queue.is_empty() {
            state = self.shared.wait(state);
        }
    }
}

impl Drop for Sealer {
    fn drop(&mut self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

fn work(layout: &Layout, shared: &Shared) {
    let mut state = shared.state();
    loop {
        let Some((digest, stamp)) = state.queue.pop_front() else {
            if state.closed {
                return;
            }
            state = shared.wait(state);
            continue;
        };
        state.busy = true;
        drop(state);
        // A seal that cannot be written costs a hash at the blob's next use, and nothing else.
        let _ = seal(layout, &digest, stamp);
        state = shared.state();
        state.busy = false;
        shared.changed.notify_all();
    }
}
