//! The content traits: pushes that wait, resume and refuse; uploads; deletes.

use std::fs;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use mlxctl_artifact::{Descriptor, Digest, media_type};
use mlxctl_content::{
    ByteStream, CopyOptions, Delete as _, Error, Fetch, List as _, Observer, Push as _, Quiet, Repository,
    Resolve as _, Tag as _, Uploads as _, copy, read_all,
};

use crate::{Home, files_below, ingest_model, name};

/// Serves `content` in pieces, breaks off at a byte, and remembers from where it was asked.
struct Source {
    content: Vec<u8>,
    breaks_at: AtomicU64,
    asked_from: AtomicU64,
    fetches: AtomicU64,
}

impl Source {
    fn new(content: &[u8]) -> Self {
        let [breaks_at, asked_from, fetches] = [u64::MAX, 0, 0].map(AtomicU64::new);
        Self { content: content.to_vec(), breaks_at, asked_from, fetches }
    }
}

#[async_trait]
impl Fetch for Source {
    async fn fetch(&self, _: &Descriptor, range: Range<u64>) -> Result<ByteStream, Error> {
        self.asked_from.store(range.start, Ordering::SeqCst);
        self.fetches.fetch_add(1, Ordering::SeqCst);
        let end = range.end.min(self.breaks_at.load(Ordering::SeqCst)).min(self.content.len() as u64);
        let mut pieces: Vec<Result<Bytes, Error>> = self.content[range.start.min(end) as usize..end as usize]
            .chunks(1000)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        if end < range.end && self.breaks_at.load(Ordering::SeqCst) != u64::MAX {
            pieces.push(Err(Error::Remote { message: "connection lost".to_owned(), status: None, hint: None }));
        }
        Ok(Box::pin(stream::iter(pieces)))
    }
}

#[derive(Default)]
struct Counter(AtomicI64);

impl Observer for Counter {
    fn moved(&self, _: &Descriptor, bytes: i64) {
        self.0.fetch_add(bytes, Ordering::SeqCst);
    }
}

fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

fn is_repository(_: &impl Repository) {}

#[tokio::test]
async fn a_graph_travels_between_two_stores() {
    let (here, there) = (Home::new(), Home::new());
    let (source, target) = (here.open(), there.open());
    let model = ingest_model(&source, &[("a", &noise(3_000_000)), ("b", b"B"), ("c", b"")]);
    let (from, to) = (source.repository("m").unwrap(), target.repository("ghcr.io/m").unwrap());
    is_repository(&from);
    let counter = Counter::default();
    let copied = copy(&from, &to, &model[0], CopyOptions::default(), &counter).await.unwrap();
    assert_eq!((copied.moved, copied.present), (5, 0));
    assert_eq!(counter.0.load(Ordering::SeqCst) as u64, copied.moved_bytes);
    to.tag(&model[0], "V1").await.unwrap();
    assert_eq!(target.resolve(&name("ghcr.io/m:V1")).unwrap(), model[0]);
    assert_eq!(target.map(&model[1]).unwrap(), noise(3_000_000));
    let again = copy(&from, &to, &model[0], CopyOptions::default(), &Quiet).await.unwrap();
    assert_eq!((again.moved, again.present), (0, 5));
    assert!(files_below(&target.root().join("ingest")).is_empty());
}

#[tokio::test]
async fn a_push_goes_on_where_the_source_broke() {
    let home = Home::new();
    let target = home.open().repository("m").unwrap();
    let content = noise(100_000);
    let source = Source::new(&content);
    let blob = Descriptor::of("a/b", &content);
    let counter = Counter::default();
    for (breaks_at, asked_from) in [(30_500, 0), (30_500, 30_500), (80_000, 30_500)] {
        source.breaks_at.store(breaks_at, Ordering::SeqCst);
        let broken = target.push(&blob, &source, &counter).await.unwrap_err();
        assert_eq!(broken.to_string(), "connection lost");
        assert_eq!(source.asked_from.load(Ordering::SeqCst), asked_from);
        assert!(!target.exists(&blob).await.unwrap());
        assert_eq!(counter.0.load(Ordering::SeqCst), 0, "what a failed push told is taken back");
    }
    source.breaks_at.store(u64::MAX, Ordering::SeqCst);
    // Another process would open the store anew.
    let later = home.open().repository("m").unwrap();
    later.push(&blob, &source, &counter).await.unwrap();
    assert_eq!(source.asked_from.load(Ordering::SeqCst), 80_000);
    assert_eq!(counter.0.load(Ordering::SeqCst), 100_000, "kept bytes count");
    assert!(later.exists(&blob).await.unwrap());
    assert_eq!(read_all(&later, &blob, u64::MAX).await.unwrap(), content);
}

#[tokio::test]
async fn a_partial_that_does_not_lead_to_the_digest_is_discarded() {
    let home = Home::new();
    let target = home.open().repository("m").unwrap();
    let content = noise(50_000);
    let (source, blob) = (Source::new(&content), Descriptor::of("a/b", &content));
    source.breaks_at.store(20_000, Ordering::SeqCst);
    target.push(&blob, &source, &Quiet).await.unwrap_err();
    let data = files_below(&home.path().join("ingest")).into_iter().find(|path| path.ends_with("data")).unwrap();
    let mut kept = fs::read(&data).unwrap();
    kept[10_000] ^= 1;
    fs::write(&data, kept).unwrap();
    source.breaks_at.store(u64::MAX, Ordering::SeqCst);
    let mismatch = target.push(&blob, &source, &Quiet).await.unwrap_err();
    assert!(matches!(mismatch, Error::DigestMismatch { .. }), "{mismatch}");
    assert!(files_below(&home.path().join("ingest")).is_empty());
    target.push(&blob, &source, &Quiet).await.unwrap();
    assert_eq!(source.asked_from.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn garbage_in_the_ingest_folder_is_started_over() {
    let content = noise(5_000);
    let blob = Descriptor::of("a/b", &content);
    let other = Digest::sha256_of(b"");
    let size = blob.size;
    for journal in [
        String::new(),
        "{".to_owned(),
        format!(r#"{{"version":2,"digest":"{}","size":{size},"appended":true,"ranges":[]}}"#, blob.digest),
        format!(r#"{{"version":1,"digest":"{other}","size":{size},"appended":true,"ranges":[]}}"#),
        format!(r#"{{"version":1,"digest":"{}","size":1,"appended":true,"ranges":[]}}"#, blob.digest),
        format!(r#"{{"version":1,"digest":"{}","size":{size},"appended":false,"ranges":[]}}"#, blob.digest),
    ] {
        let home = Home::new();
        let target = home.open().repository("m").unwrap();
        let folder = home.path().join(format!("ingest/sha256-{}", blob.digest.hex()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("journal.json"), &journal).unwrap();
        fs::write(folder.join("data"), vec![7; 9_000]).unwrap();
        let source = Source::new(&content);
        target.push(&blob, &source, &Quiet).await.unwrap();
        assert_eq!(source.asked_from.load(Ordering::SeqCst), 0, "{journal}");
    }
    // Ranges in any order: what lies between them is asked for.
    let home = Home::new();
    let target = home.open().repository("m").unwrap();
    let folder = home.path().join(format!("ingest/sha256-{}", blob.digest.hex()));
    fs::create_dir(&folder).unwrap();
    let ranges = format!(
        r#"{{"version":1,"digest":"{}","size":{size},"appended":false,"ranges":[[3000,4000],[0,1000]]}}"#,
        blob.digest
    );
    fs::write(folder.join("journal.json"), ranges).unwrap();
    fs::write(folder.join("data"), &content[..4000]).unwrap();
    let source = Source::new(&content);
    target.push(&blob, &source, &Quiet).await.unwrap();
    assert_eq!((source.fetches.load(Ordering::SeqCst), source.asked_from.load(Ordering::SeqCst)), (2, 4000));
}

#[tokio::test]
async fn lies_of_the_source_leave_nothing_visible() {
    let home = Home::new();
    let target = home.open().repository("m").unwrap();
    let content = noise(10_000);
    let mut flipped = content.clone();
    flipped[9_999] ^= 1;
    let blob = Descriptor::of("a/b", &content);
    let check = |error: &Error, expected: &str| assert!(error.to_string().contains(expected), "{error}");
    check(&target.push(&blob, &Source::new(&flipped), &Quiet).await.unwrap_err(), "digest mismatch");
    let mut small = blob.clone();
    small.size = 5_000;
    struct Endless;
    #[async_trait]
    impl Fetch for Endless {
        async fn fetch(&self, _: &Descriptor, _: Range<u64>) -> Result<ByteStream, Error> {
            Ok(Box::pin(stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096])))))
        }
    }
    check(&target.push(&small, &Endless, &Quiet).await.unwrap_err(), "size mismatch");
    assert!(files_below(&home.path().join("ingest")).is_empty());
    let mut huge = blob.clone();
    huge.size = 1 << 60;
    check(&target.push(&huge, &Source::new(&content), &Quiet).await.unwrap_err(), "ended after 10000 of 11529215");
    assert!(files_below(&home.path().join("blobs")).is_empty());
}

#[tokio::test]
async fn pushes_of_one_digest_at_once_fetch_it_once() {
    let home = Home::new();
    let store = home.open();
    let content = noise(300_000);
    let source = Arc::new(Source::new(&content));
    let blob = Descriptor::of("a/b", &content);
    let pushes = (0..8).map(|at| {
        let target = store.repository(&format!("m{at}")).unwrap();
        let (source, blob) = (source.clone(), blob.clone());
        tokio::spawn(async move { target.push(&blob, &source, &Quiet).await })
    });
    for push in pushes.collect::<Vec<_>>() {
        push.await.unwrap().unwrap();
    }
    assert_eq!(source.fetches.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_push_that_is_given_up_lets_go_and_is_resumed() {
    struct Stalls(Vec<u8>);
    #[async_trait]
    impl Fetch for Stalls {
        async fn fetch(&self, _: &Descriptor, _: Range<u64>) -> Result<ByteStream, Error> {
            use futures_util::StreamExt as _;
            let start = Bytes::copy_from_slice(&self.0[..4000]);
            Ok(Box::pin(stream::iter([Ok(start)]).chain(stream::pending())))
        }
    }
    let home = Home::new();
    let target = home.open().repository("m").unwrap();
    let content = noise(10_000);
    let blob = Descriptor::of("a/b", &content);
    let data = home.path().join(format!("ingest/sha256-{}/data", blob.digest.hex()));
    let stalled = Stalls(content.clone());
    tokio::select! {
        _ = target.push(&blob, &stalled, &Quiet) => unreachable!("it stalls"),
        () = async {
            while fs::metadata(&data).map_or(0, |meta| meta.len()) < 4000 {
                tokio::task::yield_now().await;
            }
        } => {}
    }
    let source = Source::new(&content);
    target.push(&blob, &source, &Quiet).await.unwrap();
    assert_eq!(source.asked_from.load(Ordering::SeqCst), 4000);
}

#[tokio::test]
async fn ranges_are_served_and_bounded() {
    let home = Home::new();
    let store = home.open();
    let content = noise(2_500_000);
    let blob = store.ingest_bytes("a/b", &content).unwrap();
    let repository = store.repository("m").unwrap();
    for range in [0..0, 5..9, 2_499_999..2_500_000, 0..2_500_000, 2_500_000..2_500_000] {
        use futures_util::TryStreamExt as _;
        let pieces: Vec<Bytes> = repository.fetch(&blob, range.clone()).await.unwrap().try_collect().await.unwrap();
        assert_eq!(pieces.concat(), content[range.start as usize..range.end as usize]);
    }
    #[allow(clippy::reversed_empty_ranges)]
    for range in [0..2_500_001, 9..5, u64::MAX - 1..u64::MAX] {
        assert!(matches!(repository.fetch(&blob, range).await, Err(Error::SizeMismatch { .. })));
    }
    let absent = Descriptor::of("", b"absent");
    assert!(matches!(repository.fetch(&absent, 0..1).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_repository_resolves_lists_and_deletes() {
    let home = Home::new();
    let store = home.open();
    let model = ingest_model(&store, &[("a", b"A")]);
    let (repository, below) = (store.repository("a/m").unwrap(), store.repository("a/m/below").unwrap());
    assert!(matches!(repository.tags().await, Err(Error::NotFound { .. })));
    for tag in ["b", "A", "a"] {
        repository.tag(&model[0], tag).await.unwrap();
    }
    below.tag(&model[0], "other").await.unwrap();
    assert_eq!(repository.tags().await.unwrap(), ["A", "a", "b"]);
    assert_eq!(repository.resolve("A").await.unwrap(), model[0]);
    assert_eq!(repository.resolve(&model[0].digest.to_string()).await.unwrap(), model[0]);
    let layer = repository.resolve(&model[1].digest.to_string()).await.unwrap();
    assert_eq!((layer.media_type.as_str(), layer.size), (media_type::OCTET_STREAM, 1));
    for bad in ["", "c", "../b", "a b", "sha256:1"] {
        assert!(repository.resolve(bad).await.is_err(), "{bad}");
    }
    repository.untag("a").await.unwrap();
    assert!(matches!(repository.untag("a").await, Err(Error::NotFound { .. })));
    // A blob that a manifest needs stays; a manifest that another repository names loses its names here alone.
    assert!(matches!(repository.delete(&model[1].digest).await, Err(Error::Refused { .. })));
    repository.delete(&model[0].digest).await.unwrap();
    assert!(matches!(repository.tags().await, Err(Error::NotFound { .. })));
    assert_eq!(below.resolve("other").await.unwrap(), model[0]);
    below.delete(&model[0].digest).await.unwrap();
    assert!(matches!(below.resolve(&model[0].digest.to_string()).await, Err(Error::NotFound { .. })));
    assert!(matches!(below.delete(&model[0].digest).await, Err(Error::NotFound { .. })));
    below.delete(&model[1].digest).await.unwrap();
    for bad in ["M", "m:1", "../m", "", "a//b", "/m"] {
        assert!(store.repository(bad).is_err(), "{bad}");
    }
}

fn bytes(content: &[u8]) -> ByteStream {
    Box::pin(stream::iter([Ok(Bytes::copy_from_slice(content))]))
}

#[tokio::test]
async fn uploads_take_pieces_in_order_and_check_the_digest() {
    let home = Home::new();
    let store = home.open();
    let repository = store.repository("m").unwrap();
    let id = repository.begin().await.unwrap();
    assert_eq!(repository.offset(&id).await.unwrap(), 0);
    assert_eq!(repository.append(&id, 0, bytes(b"hello ")).await.unwrap(), 6);
    let refused = repository.append(&id, 3, bytes(b"x")).await.unwrap_err();
    assert!(refused.to_string().contains("at byte 6, not at 3"), "{refused}");
    let broken: ByteStream = Box::pin(stream::iter([
        Ok(Bytes::from_static(b"wor")),
        Err(Error::Remote { message: "gone".to_owned(), status: None, hint: None }),
    ]));
    repository.append(&id, 6, broken).await.unwrap_err();
    assert_eq!(repository.offset(&id).await.unwrap(), 9, "what came is kept");
    assert_eq!(repository.append(&id, 9, bytes(b"ld")).await.unwrap(), 11);
    let digest = Digest::sha256_of(b"hello world");
    let committed = repository.commit(&id, &digest).await.unwrap();
    assert_eq!((committed.digest, committed.size), (digest, 11));
    assert_eq!(store.map(&committed).unwrap(), "hello world");
    assert!(matches!(repository.offset(&id).await, Err(Error::NotFound { .. })));

    let wrong = repository.begin().await.unwrap();
    repository.append(&wrong, 0, bytes(b"other")).await.unwrap();
    assert!(matches!(repository.commit(&wrong, &digest).await, Err(Error::DigestMismatch { .. })));
    let cancelled = repository.begin().await.unwrap();
    repository.cancel(&cancelled).await.unwrap();
    assert!(matches!(repository.append(&cancelled, 0, bytes(b"x")).await, Err(Error::NotFound { .. })));
    assert!(files_below(&home.path().join("uploads")).is_empty());

    let sha512 = {
        let mut digester = mlxctl_artifact::Digester::new(mlxctl_artifact::Algorithm::Sha512);
        digester.update(b"long");
        digester.finish()
    };
    let long = repository.begin().await.unwrap();
    repository.append(&long, 0, bytes(b"long")).await.unwrap();
    let long = repository.commit(&long, &sha512).await.unwrap();
    assert_eq!(store.map(&long).unwrap(), "long");
}

#[tokio::test]
async fn foreign_session_names_find_nothing() {
    let home = Home::new();
    let store = home.open();
    let (mine, other) = (store.repository("m").unwrap(), store.repository("other").unwrap());
    let id = mine.begin().await.unwrap();
    assert_eq!(id.len(), 32);
    assert!(matches!(other.offset(&id).await, Err(Error::NotFound { .. })));
    let upper = id.to_uppercase();
    for bad in ["", ".", "..", "../uploads", "/etc", "a\0b", upper.as_str(), &id[1..], &format!("../{id}")] {
        if bad != id {
            assert!(matches!(mine.offset(bad).await, Err(Error::NotFound { .. })), "{bad}");
            assert!(mine.cancel(bad).await.is_err());
        }
    }
    // One writer at a time.
    use futures_util::StreamExt as _;
    let stalled: ByteStream = Box::pin(bytes(b"x").chain(stream::pending()));
    let second = async {
        while mine.offset(&id).await.unwrap() < 1 {
            tokio::task::yield_now().await;
        }
        mine.append(&id, 1, bytes(b"y")).await
    };
    tokio::select! {
        _ = mine.append(&id, 0, stalled) => unreachable!("it stalls"),
        second = second => {
            let refused = second.unwrap_err();
            assert!(refused.to_string().contains("another request"), "{refused}");
        }
    }
}
