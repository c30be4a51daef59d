//! A large blob taken over in several ranges at once: whole, after a break, after a kill.

use std::fs;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use mlxctl_artifact::Descriptor;
use mlxctl_content::{ByteStream, Error, Fetch, Observer, Push as _, Quiet};

use crate::{Home, files_below};

const SIZE: usize = 40_000_001;

fn content() -> &'static Bytes {
    static CONTENT: OnceLock<Bytes> = OnceLock::new();
    CONTENT.get_or_init(|| (0..SIZE as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect())
}

fn blob() -> Descriptor {
    static BLOB: OnceLock<Descriptor> = OnceLock::new();
    BLOB.get_or_init(|| Descriptor::of("a/b", content())).clone()
}

/// Serves the content; `limit` bytes in all until it breaks.
struct Source {
    lanes: AtomicUsize,
    /// What the number of lanes becomes with the first answer.
    learns: usize,
    limit: AtomicU64,
    given: AtomicU64,
    asked: Mutex<Vec<Range<u64>>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Source {
    fn new(lanes: usize, learns: usize, limit: u64) -> Arc<Self> {
        let [limit, given] = [limit, 0].map(AtomicU64::new);
        let [lanes, at_once, most_at_once] = [lanes, 0, 0].map(AtomicUsize::new);
        Arc::new(Self { lanes, learns, limit, given, asked: Mutex::default(), at_once, most_at_once })
    }

    fn asked(&self) -> Vec<Range<u64>> {
        self.asked.lock().unwrap().clone()
    }
}

/// Counts a stream as open while it lives.
struct Open(Arc<Source>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.at_once.fetch_sub(1, Ordering::SeqCst);
    }
}

struct Served(Arc<Source>);

#[async_trait]
impl Fetch for Served {
    async fn fetch(&self, _: &Descriptor, range: Range<u64>) -> Result<ByteStream, Error> {
        let source = Arc::clone(&self.0);
        source.asked.lock().unwrap().push(range.clone());
        source.lanes.store(source.learns, Ordering::SeqCst);
        source.most_at_once.fetch_max(source.at_once.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let open = Open(Arc::clone(&source));
        let pieces = stream::iter((range.start..range.end).step_by(300_000)).map(move |start| {
            let _ = &open;
            let end = (start + 300_000).min(range.end);
            if source.given.fetch_add(end - start, Ordering::SeqCst) >= source.limit.load(Ordering::SeqCst) {
                return Err(Error::Remote { message: "connection lost".to_owned(), status: None, hint: None });
            }
            Ok(content().slice(start as usize..end as usize))
        });
        // Each piece waits for its turn, so that lanes mix.
        Ok(Box::pin(pieces.then(|piece| async {
            tokio::task::yield_now().await;
            piece
        })))
    }

    fn lanes(&self) -> usize {
        self.0.lanes.load(Ordering::SeqCst)
    }
}

#[derive(Default)]
struct Counter(AtomicI64);

impl Observer for Counter {
    fn moved(&self, _: &Descriptor, bytes: i64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_large_blob_comes_in_several_ranges_at_once() {
    let home = Home::new();
    let target = home.open().repository("m").unwrap();
    let source = Source::new(3, 3, u64::MAX);
    let counter = Counter::default();
    target.push(&blob(), &Served(source.clone()), &counter).await.unwrap();
    assert_eq!(home.open().map(&blob()).unwrap(), content());
    assert_eq!(source.most_at_once.load(Ordering::SeqCst), 3);
    assert_eq!(source.given.load(Ordering::SeqCst), SIZE as u64, "no byte comes twice");
    assert_eq!(counter.0.load(Ordering::SeqCst), SIZE as i64);
    assert!(files_below(&home.path().join("ingest")).is_empty());
}

#[tokio::test]
async fn a_source_without_ranges_is_asked_for_the_whole() {
    let home = Home::new();
    let target = home.open().repository("m").unwrap();
    let source = Source::new(4, 1, u64::MAX);
    target.push(&blob(), &Served(source.clone()), &Quiet).await.unwrap();
    let asked = source.asked();
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[1], 0..SIZE as u64);
}

#[tokio::test]
async fn what_broken_lanes_brought_is_not_asked_for_again() {
    let home = Home::new();
    let counter = Counter::default();
    let mut asked_for = 0;
    for limit in [9_000_000, 5_000_000, 12_000_000] {
        let source = Source::new(3, 3, limit);
        let target = home.open().repository("m").unwrap();
        let broken = target.push(&blob(), &Served(source.clone()), &counter).await.unwrap_err();
        assert_eq!(broken.to_string(), "connection lost");
        assert_eq!(counter.0.load(Ordering::SeqCst), 0, "what a failed push told is taken back");
        asked_for += source.given.load(Ordering::SeqCst);
    }
    // The last one has a single lane and fills the gaps.
    let source = Source::new(1, 1, u64::MAX);
    home.open().repository("m").unwrap().push(&blob(), &Served(source.clone()), &counter).await.unwrap();
    asked_for += source.given.load(Ordering::SeqCst);
    assert_eq!(home.open().map(&blob()).unwrap(), content());
    assert_eq!(counter.0.load(Ordering::SeqCst), SIZE as i64);
    // Each broken lane lost the piece that broke, and those that waited in its queue when another one broke.
    assert!(asked_for < SIZE as u64 + 3 * 3 * 9 * 300_000, "{asked_for}");
    assert!(source.given.load(Ordering::SeqCst) < SIZE as u64 - 15_000_000);
}

/// The log of a broken push, when its lanes have written what they had.
async fn log_at_rest(home: &Home) -> std::path::PathBuf {
    let files = files_below(&home.path().join("ingest"));
    let file = |name: &str| files.iter().find(|path| path.ends_with(name)).unwrap().clone();
    let lock = fs::File::open(file("lock")).unwrap();
    while lock.try_lock().is_err() {
        tokio::task::yield_now().await;
    }
    file("ranges")
}

#[tokio::test]
async fn a_kill_loses_what_the_log_does_not_tell_alone() {
    let home = Home::new();
    let source = Source::new(3, 3, 20_000_000);
    let target = home.open().repository("m").unwrap();
    target.push(&blob(), &Served(source), &Quiet).await.unwrap_err();
    let log = log_at_rest(&home).await;
    // The kill came in the middle of a record.
    let kept = fs::read(&log).unwrap();
    fs::write(&log, &kept[..kept.len() - 5]).unwrap();
    let source = Source::new(3, 3, u64::MAX);
    home.open().repository("m").unwrap().push(&blob(), &Served(source.clone()), &Quiet).await.unwrap();
    assert_eq!(home.open().map(&blob()).unwrap(), content());
    assert!(source.given.load(Ordering::SeqCst) < SIZE as u64 - 10_000_000);
}

#[tokio::test]
async fn a_log_that_lies_ends_in_a_mismatch_and_a_clean_start() {
    let home = Home::new();
    let target = home.open().repository("m").unwrap();
    target.push(&blob(), &Served(Source::new(3, 3, 20_000_000)), &Quiet).await.unwrap_err();
    let log = log_at_rest(&home).await;
    let lie: Vec<u8> = [0, u64::MAX].iter().flat_map(|number: &u64| number.to_le_bytes()).collect();
    fs::write(&log, lie).unwrap();
    let refused = target.push(&blob(), &Served(Source::new(3, 3, u64::MAX)), &Quiet).await.unwrap_err();
    assert!(matches!(refused, Error::DigestMismatch { .. }), "{refused}");
    assert!(files_below(&home.path().join("ingest")).is_empty());
    target.push(&blob(), &Served(Source::new(3, 3, u64::MAX)), &Quiet).await.unwrap();
}
