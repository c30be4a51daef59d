//! Pushes blobs: opens an upload session and streams the source into one PUT, again where the way was rough.
//!
//! A later engine that sends in chunks, resumes at the registry's offset or mounts from a neighbour replaces
//! `attempt`; the loop around it stays.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use mlxctl_artifact::Descriptor;
use mlxctl_content::{self as content, ByteStream, Fetch, Observer};
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode, Url};

use crate::error::{Error, action};
use crate::manifests::check_digest;
use crate::repository::RemoteRepository;
use crate::retry::Attempts;
use crate::transport::Request;

/// How often a running upload is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Redirects and renewed authorizations that one upload goes through.
const MAX_DETOURS: u32 = 4;
/// The longest wait for a registry to hear that an upload is dropped.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends the blob that `descriptor` announces from `source`.
pub(crate) async fn upload(
    repository: &RemoteRepository,
    descriptor: &Descriptor,
    source: &dyn Fetch,
    observer: &dyn Observer,
) -> Result<(), content::Error> {
    let mut attempts = Attempts::new(repository.transport.retry, observer);
    let mut upload = Upload { repository, descriptor, source, observer, shown: 0, detours: 0 };
    loop {
        match upload.attempt().await {
            Ok(()) => return Ok(()),
            Err(Failed::Source(error)) => {
                upload.take_back();
                return Err(error);
            }
            Err(Failed::Remote(error)) => {
                upload.take_back();
                attempts.failed(error).await?;
                // The bytes may have arrived, and only the answer been lost.
                if repository.has_blob(descriptor, observer).await? {
                    observer.moved(descriptor, descriptor.size as i64);
                    return Ok(());
                }
            }
        }
    }
}

struct Upload<'a> {
    repository: &'a RemoteRepository,
    descriptor: &'a Descriptor,
    source: &'a dyn Fetch,
    observer: &'a dyn Observer,
    /// Bytes that the observer was told of.
    shown: u64,
    detours: u32,
}

enum Failed {
    Source(content::Error),
    Remote(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Remote(error)
    }
}

impl Upload<'_> {
    async fn attempt(&mut self) -> Result<(), Failed> {
        let transport = &self.repository.transport;
        let mut session = self.open().await?;
        let mut url = with_digest(&session, self.descriptor);
        loop {
            let request = Request::new(Method::PUT, url.clone(), self.repository.push_scope());
            let shown_action = action(&Method::PUT, &url);
            let sent = self.send(request.clone(), &shown_action).await;
            let (response, shown) = match sent {
                Ok(answer) => answer,
                Err(error) => {
                    self.cancel(&session).await;
                    return Err(error);
                }
            };
            match response.status() {
                StatusCode::CREATED => {
                    check_digest(&shown_action, response.headers(), &self.descriptor.digest)?;
                    self.show(self.descriptor.size);
                    return Ok(());
                }
                StatusCode::UNAUTHORIZED if self.detours < MAX_DETOURS && transport.host.is_origin_of(&url) => {
                    transport.renew(&request, shown_action, response, shown.as_ref(), self.observer).await?;
                    // Some registries end a session with its first refusal.
                    self.cancel(&session).await;
                    session = self.open().await?;
                    url = with_digest(&session, self.descriptor);
                }
                _ => match transport.redirected(&shown_action, &url, &response, false)? {
                    Some(next) if self.detours < MAX_DETOURS => url = next,
                    _ => {
                        let error = transport.refused(shown_action, response).await;
                        self.cancel(&session).await;
                        return Err(error.into());
                    }
                },
            }
            self.detours += 1;
            self.take_back();
        }
    }

    /// Opens a session: the address to send to.
    async fn open(&self) -> Result<Url, Error> {
        let transport = &self.repository.transport;
        let url = self.repository.url("blobs/uploads/");
        let request = Request::new(Method::POST, url.clone(), self.repository.push_scope())
            .with_header(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let response = transport.once(&request, self.observer, &[StatusCode::ACCEPTED]).await?;
        transport.location(&action(&Method::POST, &url), response.url(), response.headers())
    }

    /// One PUT of the whole blob.
    async fn send(&mut self, request: Request, action: &str) -> Result<(Response, Option<HeaderValue>), Failed> {
        let size = self.descriptor.size;
        let stream = self.source.fetch(self.descriptor, 0..size).await.map_err(Failed::Source)?;
        let progress = Arc::new(Progress::default());
        let body =
            if size == 0 { Body::from(Bytes::new()) } else { counted(stream, self.descriptor, Arc::clone(&progress)) };
        let request = request
            .with_header(CONTENT_LENGTH, HeaderValue::from(size))
            .with_header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let transport = &self.repository.transport;
        let (sending, shown) = transport.prepare(&request, &request.url, body, self.observer).await?;
        let mut exchange = Box::pin(transport.execute(action, sending));
        let mut tick = tokio::time::interval(TICK);
        let mut last = (0, Instant::now());
        loop {
            tokio::select! {
                answer = &mut exchange => {
                    // A source that failed breaks the connection; its error is the one to tell.
                    if let Some(error) = progress.failure() {
                        return Err(Failed::Source(error));
                    }
                    self.show(progress.sent());
                    return Ok((answer?, shown));
                }
                _ = tick.tick() => {
                    let sent = progress.sent();
                    self.show(sent);
                    if sent != last.0 || progress.waits_for_source() {
                        last = (sent, Instant::now());
                    }
                    let patience = if sent == size { transport.commit_timeout } else { transport.stall_timeout };
                    if last.1.elapsed() > patience {
                        return Err(Error::Stalled { action: action.to_owned(), after: patience }.into());
                    }
                }
            }
        }
    }

    /// Tells the observer that `sent` bytes are on their way or there.
    fn show(&mut self, sent: u64) {
        if sent != self.shown {
            self.observer.moved(self.descriptor, sent as i64 - self.shown as i64);
            self.shown = sent;
        }
    }

    fn take_back(&mut self) {
        self.show(0);
    }

    /// Tells the registry that nothing more comes. It drops sessions by itself in the end, so a failure is no matter.
    async fn cancel(&self, session: &Url) {
        let request = Request::new(Method::DELETE, session.clone(), self.repository.push_scope());
        let cancel = self.repository.transport.once(&request, self.observer, &[StatusCode::NO_CONTENT]);
        if let Ok(Err(error)) = tokio::time::timeout(CANCEL_TIMEOUT, cancel).await {
            tracing::debug!(%error, "the upload was not cancelled");
        }
    }
}

/// What the body of a running upload has done.
#[derive(Default)]
struct Progress {
    sent: AtomicU64,
    waits: AtomicBool,
    failure: Mutex<Option<content::Error>>,
}

impl Progress {
    fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    fn waits_for_source(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    fn failure(&self) -> Option<content::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: content::Error) -> std::io::Error {
        let shown = std::io::Error::other(error.to_string());
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        shown
    }
}

/// The source as a body of exactly the announced size.
fn counted(source: ByteStream, descriptor: &Descriptor, progress: Arc<Progress>) -> Body {
    let (digest, expected) = (descriptor.digest, descriptor.size);
    let mismatch = move |found| content::Error::SizeMismatch { digest, expected, found };
    Body::wrap_stream(stream::unfold(Some(source), move |source| {
        let progress = Arc::clone(&progress);
        async move {
            let mut source = source?;
            progress.waits.store(true, Ordering::Relaxed);
            let next = source.next().await;
            progress.waits.store(false, Ordering::Relaxed);
            let sent = progress.sent();
            match next {
                Some(Ok(bytes)) if bytes.len() as u64 <= expected - sent => {
                    progress.sent.store(sent + bytes.len() as u64, Ordering::Relaxed);
                    Some((Ok(bytes), Some(source)))
                }
                Some(Ok(bytes)) => Some((Err(progress.fail(mismatch(sent.saturating_add(bytes.len() as u64)))), None)),
                Some(Err(error)) => Some((Err(progress.fail(error)), None)),
                None if sent < expected => Some((Err(progress.fail(mismatch(sent))), None)),
                None => None,
            }
        }
    }))
}

/// The session's address with the digest by which it is closed; what its query holds already is kept as it is.
fn with_digest(session: &Url, descriptor: &Descriptor) -> Url {
    let mut url = session.clone();
    // A digest needs no escaping, and rewriting the registry's own query could break a signature in it.
    let query = match session.query() {
        Some(query) if !query.is_empty() => format!("{query}&digest={}", descriptor.digest),
        _ => format!("digest={}", descriptor.digest),
    };
    url.set_query(Some(&query));
    url
}
