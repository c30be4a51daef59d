//! Seals: the stamps of blobs that were hashed. A blob whose stamp is that of its seal need not be hashed again.
//!
//! A seal comes in two steps, so that no transfer and no program's end waits for the disk. At once it is written for
//! the running system alone: what was hashed is in the system's cache, and only a crash of the system could lose it,
//! so the seal names the system's boot and is not believed after the next one. When nothing has come for a while, one
//! thread a store syncs the blob and writes the seal that lasts.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
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
/// Blobs are synced when none has come for this long: most programs have ended by then, and the system writes what
/// they left in its own time.
const QUIET: Duration = Duration::from_secs(2);

#[derive(Serialize, Deserialize)]
struct Seal {
    /// 1 where the blob was synced, 2 where the seal holds until the system's next boot.
    version: u32,
    stamp: Stamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
}

/// The identity of the system's boot, where the system tells.
fn boot() -> Option<&'static str> {
    static BOOT: OnceLock<Option<String>> = OnceLock::new();
    let read = || {
        let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(text.trim().to_owned()).filter(|id| !id.is_empty())
    };
    BOOT.get_or_init(read).as_deref()
}

/// The stamp that the blob had when it was hashed; `None` where it has no seal, or one that cannot be read: such a
/// blob is hashed again.
pub(crate) fn read(layout: &Layout, digest: &Digest) -> Option<Stamp> {
    let content = file::read(&layout.seal(digest), MAX_SEAL_BYTES).ok()??;
    let seal: Seal = serde_json::from_slice(&content).ok()?;
    let holds = match seal.version {
        1 => true,
        2 => seal.boot.is_some() && seal.boot.as_deref() == boot(),
        _ => false,
    };
    holds.then_some(seal.stamp)
}

/// Takes the seal of a blob away.
pub(crate) fn remove(layout: &Layout, digest: &Digest) -> Result<(), Error> {
    file::remove(&layout.seal(digest)).map(drop)
}

/// How long a seal lasts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lasts {
    /// The blob was not synced.
    UntilBoot,
    /// It was.
    ForGood,
}

/// Seals a blob that was hashed when it had this stamp, if it still has; whether a seal stands now.
fn seal(layout: &Layout, digest: &Digest, hashed: Stamp, lasts: Lasts) -> Result<bool, Error> {
    let boot = match lasts {
        Lasts::ForGood => None,
        Lasts::UntilBoot => match boot() {
            Some(boot) => Some(boot.to_owned()),
            None => return Ok(false),
        },
    };
    let path = layout.blob(digest);
    let Some(blob) = file::open(&path)? else { return Ok(true) };
    if lasts == Lasts::ForGood {
        blob.sync_all().map_err(Error::io("sync", &path))?;
        file::sync_folder(&layout.blobs(digest.algorithm()))?;
    }
    if let Some(wait) = CLOCK_TICK.checked_sub(hashed.age()) {
        thread::sleep(wait);
    }
    // The collector must not take the blob away between the look and the seal.
    let _collector_waits: File = lock::shared(&layout.lock())?;
    if Stamp::of(&blob, &path)? != hashed {
        return Ok(true);
    }
    let version = if boot.is_some() { 2 } else { 1 };
    let content = serde_json::to_vec(&Seal { version, stamp: hashed, boot }).map_err(|e| Error::document(&path, e))?;
    file::create_folder(&layout.seals(digest.algorithm()))?;
    file::replace(&layout.scratch(), &layout.seal(digest), &content, false)?;
    Ok(true)
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
    /// Blobs to sync.
    unsynced: VecDeque<Unsynced>,
    busy: bool,
    closed: bool,
    /// Somebody waits until all is on disk.
    hurried: bool,
}

#[derive(Clone, Copy)]
struct Unsynced {
    digest: Digest,
    stamp: Stamp,
    /// It has a seal until the next boot: a program that ends leaves it at that.
    is_sealed: bool,
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
        while state.busy || !state.queue.is_empty() || !state.unsynced.is_empty() {
            state.hurried = true;
            self.shared.changed.notify_all();
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
        if let Some((digest, stamp)) = state.queue.pop_front() {
            state.busy = true;
            drop(state);
            // A seal that cannot be written costs a hash at the blob's next use, and nothing else.
            let is_sealed = seal(layout, &digest, stamp, Lasts::UntilBoot).unwrap_or(false);
            state = shared.state();
            state.unsynced.push_back(Unsynced { digest, stamp, is_sealed });
            state.busy = false;
            shared.changed.notify_all();
            continue;
        }
        if state.closed {
            state.unsynced.retain(|blob| !blob.is_sealed);
        }
        if state.unsynced.is_empty() {
            state.hurried = false;
            if state.closed {
                return;
            }
            state = shared.wait(state);
            continue;
        }
        if !state.closed && !state.hurried {
            let (waited, quiet) = shared.changed.wait_timeout(state, QUIET).unwrap_or_else(PoisonError::into_inner);
            state = waited;
            if !quiet.timed_out() {
                continue;
            }
        }
        let Some(blob) = state.unsynced.pop_front() else { continue };
        state.busy = true;
        drop(state);
        let _ = seal(layout, &blob.digest, blob.stamp, Lasts::ForGood);
        state = shared.state();
        state.busy = false;
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_without_a_sync_is_believed_until_the_next_boot() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::new(&folder.path().join("store")).unwrap();
        layout.prepare().unwrap();
        let digest = Digest::sha256_of(b"x");
        let path = layout.blob(&digest);
        std::fs::write(&path, b"x").unwrap();
        let stamp = Stamp::of(&File::open(&path).unwrap(), &path).unwrap();
        if seal(&layout, &digest, stamp, Lasts::UntilBoot).unwrap() {
            assert_eq!(read(&layout, &digest), Some(stamp));
            let kept = std::fs::read_to_string(layout.seal(&digest)).unwrap();
            std::fs::write(layout.seal(&digest), kept.replace(boot().unwrap(), "another")).unwrap();
        }
        assert_eq!(read(&layout, &digest), None);
        seal(&layout, &digest, stamp, Lasts::ForGood).unwrap();
        assert_eq!(read(&layout, &digest), Some(stamp));
        assert!(!std::fs::read_to_string(layout.seal(&digest)).unwrap().contains("boot"));
    }
}
