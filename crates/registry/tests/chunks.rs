//! Pushes in chunks: to a registry as the specification has it, and to those that differ.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, Method, Response, StatusCode};
use mlxctl_artifact::{Descriptor, Digest, Reference, media_type};
use mlxctl_content::{ByteStream, Error, Fetch, Memory, Observer, Push as _, Quiet};
use mlxctl_registry::{Registry, RegistryOptions, RemoteRepository, RetryPolicy, SessionFolder};

const CHUNK: u64 = 30_000;

/// How a registry differs from the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quirk {
    None,
    /// 201 to a chunk.
    Created,
    /// No `Location` in the answer to a chunk.
    NoLocation,
    /// 416 to every chunk.
    Range,
    /// 405 to every chunk.
    NotAllowed,
    /// The last chunk is all that is kept, and that is said.
    LastAlone,
    /// The last chunk is all that is kept, which shows at the end.
    LastAloneInSecret,
    /// Chunks above this many bytes are too large.
    Limit(usize),
    /// The answer to the second chunk is lost, although its bytes were kept.
    LostAnswer,
    /// Half of the second chunk is kept, then 500.
    Half,
    /// The session is gone after the second chunk.
    Forgets,
    /// The token's time is over after the second chunk.
    Expires,
    /// The registry is away for good after the second chunk.
    Dies,
}

#[derive(Default)]
struct State {
    session: Option<Vec<u8>>,
    opened: usize,
    chunks: usize,
    stored: Vec<Vec<u8>>,
    asked: Vec<String>,
    received: u64,
}

/// A registry of one repository with one quirk.
struct Peer {
    address: String,
    state: Arc<Mutex<State>>,
}

impl Peer {
    async fn start(quirk: Quirk) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        let router = Router::new().fallback(move |request: Request| {
            let shared = Arc::clone(&shared);
            async move {
                let (head, body) = request.into_parts();
                let body = to_bytes(body, 1 << 24).await.unwrap_or_default();
                let mut state = shared.lock().unwrap();
                state.received += body.len() as u64;
                let path = head.uri.path_and_query().unwrap().to_string();
                state.asked.push(format!("{} {path}", head.method));
                state.answer(quirk, &head.method, &path, &head.headers, &body)
            }
        });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, state }
    }

    fn repository(&self, options: RegistryOptions) -> RemoteRepository {
        let retry = RetryPolicy { tries: 3, base: Duration::from_millis(1), ..RetryPolicy::default() };
        let options = RegistryOptions { retry, chunk_bytes: CHUNK, ..options };
        let reference: Reference = format!("{}/org/m", self.address).parse().unwrap();
        Registry::new(&self.address, &options).unwrap().repository(&reference)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

fn plain(status: u16) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

impl State {
    fn progress(&self, status: u16, with_location: bool) -> Response<Body> {
        let held = self.session.as_ref().map_or(0, Vec::len);
        let mut answer = Response::builder().status(status).header("range", format!("0-{}", held.saturating_sub(1)));
        if with_location {
            answer = answer.header("location", format!("/up/{}?state={held}", self.opened));
        }
        answer.body(Body::empty()).unwrap()
    }

    fn answer(
        &mut self,
        quirk: Quirk,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Response<Body> {
        let dead = quirk == Quirk::Dies && self.chunks >= 2;
        match method.as_str() {
            _ if dead => plain(503),
            "HEAD" => plain(if self.stored.is_empty() { 404 } else { 200 }),
            "POST" => {
                (self.session, self.opened) = (Some(Vec::new()), self.opened + 1);
                self.progress(202, true)
            }
            "GET" if self.session.is_some() => self.progress(204, true),
            "DELETE" => {
                self.session = None;
                plain(204)
            }
            "PATCH" => self.chunk(quirk, headers, body),
            "PUT" => {
                let Some(mut session) = self.session.take() else { return plain(404) };
                session.extend_from_slice(body);
                if !path.contains(&format!("digest={}", Digest::sha256_of(&session))) {
                    return plain(400);
                }
                self.stored.push(session);
                plain(201)
            }
            _ => plain(404),
        }
    }

    fn chunk(&mut self, quirk: Quirk, headers: &HeaderMap, body: &[u8]) -> Response<Body> {
        let Some(held) = self.session.as_ref().map(Vec::len) else { return plain(404) };
        let range = headers["content-range"].to_str().unwrap();
        let (start, last) = range.split_once('-').unwrap();
        let (start, last): (usize, usize) = (start.parse().unwrap(), last.parse().unwrap());
        assert_eq!(last + 1 - start, body.len(), "the range says what the body has");
        match quirk {
            Quirk::Range => return plain(416),
            Quirk::NotAllowed => return plain(405),
            Quirk::Limit(limit) if body.len() > limit => return plain(413),
            _ => {}
        }
        if start != held && !matches!(quirk, Quirk::LastAlone | Quirk::LastAloneInSecret) {
            return self.progress(416, true);
        }
        self.chunks += 1;
        let second = self.chunks == 2;
        if quirk == Quirk::Expires && second {
            return Response::builder().status(401).header("www-authenticate", "Basic").body(Body::empty()).unwrap();
        }
        let kept = if quirk == Quirk::Half && second { &body[..body.len() / 2] } else { body };
        let session = self.session.as_mut().unwrap();
        if matches!(quirk, Quirk::LastAlone | Quirk::LastAloneInSecret) {
            session.clear();
        }
        session.extend_from_slice(kept);
        match quirk {
            Quirk::Half | Quirk::LostAnswer if second => plain(500),
            Quirk::Forgets if second => {
                self.session = None;
                plain(202)
            }
            Quirk::LastAloneInSecret => Response::builder().status(202).body(Body::empty()).unwrap(),
            Quirk::Created => self.progress(201, true),
            Quirk::NoLocation => self.progress(202, false),
            _ => self.progress(202, true),
        }
    }
}

fn content() -> Vec<u8> {
    (0..100_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn source() -> (Memory, Descriptor) {
    let source = Memory::default();
    let blob = source.insert(media_type::OCTET_STREAM, content());
    (source, blob)
}

#[derive(Default)]
struct Told {
    moved: AtomicI64,
    notices: Mutex<Vec<String>>,
}

impl Observer for Told {
    fn moved(&self, _: &Descriptor, bytes: i64) {
        self.moved.fetch_add(bytes, Ordering::SeqCst);
    }

    fn notice(&self, message: &str) {
        self.notices.lock().unwrap().push(message.to_owned());
    }
}

#[tokio::test]
async fn every_registry_gets_the_same_bytes() {
    // The bytes of the blob that may travel: those of the specification once, those of quirks that lose some more.
    for (quirk, most) in [
        (Quirk::None, 100_000),
        (Quirk::Created, 100_000),
        (Quirk::NoLocation, 100_000),
        (Quirk::Range, 130_000),
        (Quirk::NotAllowed, 130_000),
        (Quirk::LastAlone, 160_000),
        (Quirk::LastAloneInSecret, 200_000),
        (Quirk::Limit(8_000), 130_000),
        (Quirk::LostAnswer, 100_000),
        (Quirk::Half, 115_000),
        (Quirk::Forgets, 190_000),
        (Quirk::Expires, 130_000),
    ] {
        let peer = Peer::start(quirk).await;
        let credential = mlxctl_registry::Credential::Basic {
            user: "ada".to_owned(),
            password: mlxctl_registry::Secret::new("s3cret"),
        };
        let credentials = Arc::new(mlxctl_registry::Static { registry: peer.address.clone(), credential });
        let (source, blob) = source();
        let told = Told::default();
        let there = peer.repository(RegistryOptions { credentials, ..RegistryOptions::default() });
        let pushed = there.push(&blob, &source, &told).await;
        let state = peer.state();
        assert!(pushed.is_ok(), "{quirk:?}: {pushed:?} {:#?}", state.asked);
        assert_eq!(state.stored, [content()], "{quirk:?}");
        assert_eq!(told.moved.load(Ordering::SeqCst), 100_000, "{quirk:?}");
        assert!(state.received <= most, "{quirk:?}: {} bytes for {most}", state.received);
        if quirk == Quirk::None {
            assert_eq!(state.chunks, 4);
        }
    }
}

#[tokio::test]
async fn the_next_run_goes_on_where_the_last_one_died() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start(Quirk::Dies).await;
    let options = || RegistryOptions {
        sessions: Some(Arc::new(SessionFolder::new(folder.path()))),
        ..RegistryOptions::default()
    };
    let (source, blob) = source();
    let told = Told::default();
    let failed = peer.repository(options()).push(&blob, &source, &told).await.unwrap_err();
    assert!(failed.to_string().contains("503"), "{failed}");
    assert_eq!(told.moved.load(Ordering::SeqCst), 0, "what a failed push told is taken back");
    {
        let mut state = peer.state();
        (state.chunks, state.received) = (0, 0);
        state.asked.clear();
    }
    struct From(Memory, AtomicU64);
    #[async_trait::async_trait]
    impl Fetch for From {
        async fn fetch(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<ByteStream, Error> {
            self.1.fetch_min(range.start, Ordering::SeqCst);
            self.0.fetch(descriptor, range).await
        }
    }
    let source = From(source, AtomicU64::new(u64::MAX));
    // It lives for two chunks again: the two that are missing.
    let _ = peer.repository(options()).push(&blob, &source, &told).await;
    peer.state().chunks = 0;
    peer.repository(options()).push(&blob, &source, &told).await.unwrap();
    let state = peer.state();
    assert_eq!(state.stored, [content()]);
    assert_eq!((state.opened, state.received), (1, 40_000), "one session for all runs: {:#?}", state.asked);
    assert_eq!(source.1.load(Ordering::SeqCst), 60_000);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a session that is over is forgotten");
}

#[tokio::test]
async fn a_session_that_is_gone_starts_over_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let sessions = Arc::new(SessionFolder::new(folder.path()));
    let peer = Peer::start(Quirk::None).await;
    let (source, blob) = source();
    let name = format!("{}/org/m", peer.address);
    for address in [format!("http://{}/up/77", peer.address), "http://192.0.2.1/up".to_owned(), "nonsense".to_owned()] {
        mlxctl_registry::Sessions::keep(&*sessions, &name, &blob.digest, &address);
        let told = Told::default();
        let options = RegistryOptions { sessions: Some(sessions.clone()), ..RegistryOptions::default() };
        peer.repository(options).push(&blob, &source, &told).await.unwrap();
        assert_eq!(told.notices.lock().unwrap().len(), 0, "{address}");
    }
}

/// A server whose every answer a closure decides.
async fn serve(
    answer: impl Fn(&str, &str) -> Response<Body> + Send + Sync + 'static,
) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let (log, answer) = (Arc::clone(&asked), Arc::new(answer));
    let router = Router::new().fallback(move |request: Request| {
        let (log, answer) = (Arc::clone(&log), Arc::clone(&answer));
        async move {
            let (head, body) = request.into_parts();
            let _ = to_bytes(body, 1 << 24).await;
            let path = head.uri.path_and_query().unwrap().to_string();
            log.lock().unwrap().push(format!("{} {path}", head.method));
            answer(head.method.as_str(), &path)
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, asked)
}

#[tokio::test]
async fn a_blob_is_mounted_from_a_neighbour_or_sent_where_that_is_refused() {
    for (status, sent) in [(201, false), (202, true), (404, true)] {
        let (address, asked) = serve(move |method, path| match method {
            "POST" if path.contains("mount=") => {
                Response::builder().status(status).header("location", "/up").body(Body::empty()).unwrap()
            }
            "POST" => Response::builder().status(202).header("location", "/up").body(Body::empty()).unwrap(),
            "PUT" => plain(201),
            _ => plain(404),
        })
        .await;
        let (source, blob) = source();
        let reference: Reference = format!("{address}/org/m").parse().unwrap();
        let there = Registry::new(&address, &RegistryOptions::default()).unwrap().repository(&reference);
        let there = there.mounting(BTreeMap::from([(blob.digest, "org/base".to_owned())]));
        let told = Told::default();
        there.push(&blob, &source, &told).await.unwrap();
        assert_eq!(told.moved.load(Ordering::SeqCst), 100_000);
        let asked = asked.lock().unwrap();
        let digest = blob.digest.to_string().replace(':', "%3A");
        assert_eq!(asked[0], format!("POST /v2/org/m/blobs/uploads/?mount={digest}&from=org%2Fbase"));
        assert_eq!(asked.iter().any(|one| one.starts_with("PUT")), sent, "{status}: {asked:?}");
        assert_eq!(asked.iter().filter(|one| one.starts_with("POST")).count(), if status == 404 { 2 } else { 1 });
    }
}

#[tokio::test]
async fn a_warning_is_told_once() {
    let (address, _) = serve(|method, _| {
        let answer = Response::builder().header("warning", "299 - \"Pay \\\"soon\\\"\"");
        match method {
            "POST" => answer.status(202).header("location", "/up").body(Body::empty()).unwrap(),
            "PUT" => answer.status(201).body(Body::empty()).unwrap(),
            _ => plain(404),
        }
    })
    .await;
    let reference: Reference = format!("{address}/org/m").parse().unwrap();
    let there = Registry::new(&address, &RegistryOptions::default()).unwrap().repository(&reference);
    let (source, blob) = source();
    let told = Told::default();
    for _ in 0..2 {
        there.push(&blob, &source, &told).await.unwrap();
    }
    let told = told.notices.lock().unwrap();
    assert_eq!(*told, [format!("{address} says: Pay \"soon\"")]);
}

#[tokio::test]
async fn a_registry_names_its_smallest_chunk() {
    let sizes: Arc<Mutex<Vec<usize>>> = Arc::default();
    let log = Arc::clone(&sizes);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let router = Router::new().fallback(move |request: Request| {
        let log = Arc::clone(&log);
        async move {
            let (head, body) = request.into_parts();
            let length = to_bytes(body, 1 << 24).await.unwrap().len();
            let opened = Response::builder().header("location", "/up").header("oci-chunk-min-length", "45000");
            match head.method {
                Method::POST => opened.status(StatusCode::ACCEPTED).body(Body::empty()).unwrap(),
                Method::PATCH => {
                    log.lock().unwrap().push(length);
                    plain(202)
                }
                _ => plain(201),
            }
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let reference: Reference = format!("{address}/org/m").parse().unwrap();
    let options = RegistryOptions { chunk_bytes: CHUNK, ..RegistryOptions::default() };
    let (source, blob) = source();
    Registry::new(&address, &options).unwrap().repository(&reference).push(&blob, &source, &Quiet).await.unwrap();
    assert_eq!(*sizes.lock().unwrap(), [45_000, 45_000, 10_000]);
}
