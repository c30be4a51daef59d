//! Pushes blobs: mounts what a neighbour has, sends the rest whole or in chunks, and goes on at the registry's own
//! offset where the way was rough, in this run or the next.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mlxctl_artifact::Descriptor;
use mlxctl_content::{self as content, Fetch, Observer};
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Method, Response, StatusCode, Url};

use crate::error::{Error, action};
use crate::manifests::check_digest;
use crate::outgoing::{Progress, counted};
use crate::repository::RemoteRepository;
use crate::retry::Attempts;
use crate::transport::{Request, Transport};

/// How often a running upload is looked at.
const TICK: Duration = Duration::from_millis(100);
/// Redirects and renewed authorizations that one upload goes through without a byte's progress.
const MAX_DETOURS: u32 = 4;
/// Sessions of one blob that a registry may lose before that is its answer.
const MAX_LOST: u32 = 4;
/// The longest wait for a registry to hear that an upload is dropped.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);
/// The smallest chunk that the registry takes, in bytes.
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// Sends the blob that `descriptor` announces from `source`.
pub(crate) async fn upload(
    repository: &RemoteRepository,
    descriptor: &Descriptor,
    source: &dyn Fetch,
    observer: &dyn Observer,
) -> Result<(), content::Error> {
    let mut upload = Upload::new(repository, descriptor, source, observer);
    upload.take_up();
    let result = upload.run().await;
    if result.is_err() {
        upload.show(0);
    }
    result
}

/// An open session.
struct Session {
    /// Where the next request goes.
    url: Url,
    /// The smallest chunk it takes.
    chunk_min: u64,
    /// It was opened by an earlier run.
    is_old: bool,
}

struct Upload<'a> {
    repository: &'a RemoteRepository,
    descriptor: &'a Descriptor,
    source: &'a dyn Fetch,
    observer: &'a dyn Observer,
    session: Option<Session>,
    /// Bytes that the session holds.
    offset: u64,
    /// Something failed since the registry last said what it holds.
    unsure: bool,
    /// Chunks were sent in this session.
    in_chunks: bool,
    lost: u32,
    detours: u32,
    /// Bytes that the observer was told of.
    shown: u64,
}

enum Failed {
    Source(content::Error),
    Remote(Error),
    /// The registry has no such session any more.
    Lost(Error),
    /// The registry does badly with chunks.
    Chunks(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Remote(error)
    }
}

impl<'a> Upload<'a> {
    fn new(
        repository: &'a RemoteRepository,
        descriptor: &'a Descriptor,
        source: &'a dyn Fetch,
        observer: &'a dyn Observer,
    ) -> Self {
        let (session, offset, unsure, in_chunks) = (None, 0, false, false);
        let (lost, detours, shown) = (0, 0, 0);
        Self { repository, descriptor, source, observer, session, offset, unsure, in_chunks, lost, detours, shown }
    }

    fn transport(&self) -> &'a Arc<Transport> {
        &self.repository.transport
    }

    async fn run(&mut self) -> Result<(), content::Error> {
        let mut attempts = Attempts::new(self.transport().retry, self.observer);
        let mut best = 0;
        loop {
            let error = match self.advance().await {
                Ok(()) => {
                    self.forget();
                    self.show(self.descriptor.size);
                    return Ok(());
                }
                Err(Failed::Source(error)) => {
                    self.leave().await;
                    return Err(error);
                }
                Err(Failed::Chunks(error)) => {
                    self.drop_session().await;
                    if self.transport().uploads.learn_whole() {
                        tracing::debug!(%error, "blobs go whole to this registry from now on");
                        continue;
                    }
                    // Another blob may have taught it meanwhile; what is refused whole is refused.
                    if self.in_chunks {
                        self.in_chunks = false;
                        continue;
                    }
                    return Err(error.into());
                }
                Err(Failed::Lost(error)) => {
                    self.forget();
                    let was_old = self.session.take().is_some_and(|session| session.is_old);
                    (self.offset, self.unsure) = (0, false);
                    self.show(0);
                    self.lost += u32::from(!was_old);
                    if self.lost > MAX_LOST {
                        return Err(error.into());
                    }
                    continue;
                }
                Err(Failed::Remote(error)) => error,
            };
            if self.offset > best {
                best = self.offset;
                attempts = Attempts::new(self.transport().retry, self.observer);
            }
            self.unsure = true;
            let may_pass = error.may_pass();
            if let Err(error) = attempts.failed(error).await {
                // What may pass later is gone on with by the next run.
                if may_pass {
                    self.leave().await;
                } else {
                    self.drop_session().await;
                }
                return Err(error.into());
            }
            // The bytes may have arrived, and only the answer been lost.
            if self.repository.has_blob(self.descriptor, self.observer).await? {
                self.forget();
                self.show(self.descriptor.size);
                return Ok(());
            }
        }
    }

    /// Goes as far as it can.
    async fn advance(&mut self) -> Result<(), Failed> {
        if self.unsure {
            self.unsure = false;
            if !self.in_chunks && self.offset == 0 && !self.session.as_ref().is_some_and(|session| session.is_old) {
                // Whole or not at all.
                self.drop_session().await;
            } else if self.session.is_some() {
                self.offset = self.ask().await.inspect_err(|_| self.unsure = true)?;
                self.show(self.offset);
            }
        }
        if self.session.is_none() && self.open().await? {
            return Ok(());
        }
        let size = self.descriptor.size;
        let asked = self.session.as_ref().map_or(0, |session| session.chunk_min);
        if self.offset == 0 && self.transport().uploads.chunk(size, asked).is_none() {
            self.in_chunks = false;
            return self.whole().await;
        }
        self.in_chunks = true;
        while self.offset < size {
            let chunk = self.transport().uploads.chunk(size, asked).unwrap_or(size);
            self.chunk(self.offset.saturating_add(chunk).min(size)).await?;
        }
        self.close().await
    }

    /// Opens a session, or finds the blob mounted: then true.
    async fn open(&mut self) -> Result<bool, Failed> {
        self.offset = 0;
        let plain = self.repository.url("blobs/uploads/");
        let opened = |url: Url, scope| {
            Request::new(Method::POST, url, scope).with_header(CONTENT_LENGTH, HeaderValue::from_static("0"))
        };
        let mut answer = None;
        if let Some(from) = self.repository.mounts.get(&self.descriptor.digest) {
            let mut url = plain.clone();
            url.query_pairs_mut().append_pair("mount", &self.descriptor.digest.to_string()).append_pair("from", from);
            let request = opened(url, self.repository.push_scope().and_pull(from));
            // A mount is a favour: where it is refused, the bytes are sent.
            let accept = [StatusCode::CREATED, StatusCode::ACCEPTED];
            answer = self.transport().once(&request, self.observer, &accept).await.ok();
        }
        let response = if let Some(response) = answer {
            response
        } else {
            let request = opened(plain.clone(), self.repository.push_scope());
            self.transport().once(&request, self.observer, &[StatusCode::ACCEPTED]).await?
        };
        let action = action(&Method::POST, &plain);
        if response.status() == StatusCode::CREATED {
            check_digest(&action, response.headers(), &self.descriptor.digest)?;
            return Ok(true);
        }
        let url = self.transport().location(&action, response.url(), response.headers())?;
        let chunk_min = number(response.headers(), &CHUNK_MIN_LENGTH).unwrap_or(0);
        self.session = Some(Session { url, chunk_min, is_old: false });
        Ok(false)
    }

    /// The session's address.
    fn url(&self) -> Result<Url, Failed> {
        let gone = || Failed::Lost(self.odd("the upload has no session"));
        self.session.as_ref().map(|session| session.url.clone()).ok_or_else(gone)
    }

    fn odd(&self, reason: impl Into<String>) -> Error {
        Error::Protocol {
            action: format!("upload of {} to {}", self.descriptor.digest, self.repository.name()),
            reason: reason.into(),
        }
    }

    /// Sends the whole blob in one request.
    async fn whole(&mut self) -> Result<(), Failed> {
        let mut url = with_digest(&self.url()?, self.descriptor);
        loop {
            let request = Request::new(Method::PUT, url.clone(), self.repository.push_scope());
            let (response, shown) = self.send(request.clone(), 0, self.descriptor.size).await?;
            let named = action(&Method::PUT, &url);
            match response.status() {
                StatusCode::CREATED => return Ok(check_digest(&named, response.headers(), &self.descriptor.digest)?),
                StatusCode::UNAUTHORIZED if self.may_renew(&url) => {
                    self.transport().renew(&request, named, response, shown.as_ref(), self.observer).await?;
                    // Some registries end a session with its first refusal.
                    self.drop_session().await;
                    if self.open().await? {
                        return Ok(());
                    }
                    url = with_digest(&self.url()?, self.descriptor);
                }
                StatusCode::PAYLOAD_TOO_LARGE if self.transport().uploads.learn_smaller(self.descriptor.size) => {
                    self.drop_session().await;
                    return Err(Failed::Lost(self.transport().refused(named, response).await));
                }
                _ => match self.transport().redirected(&named, &url, &response, false)? {
                    Some(next) if self.detours < MAX_DETOURS => {
                        self.detours += 1;
                        url = next;
                    }
                    _ => return Err(self.transport().refused(named, response).await.into()),
                },
            }
            self.show(0);
        }
    }

    /// Sends the bytes up to `end`, or finds out how many of them the registry holds.
    async fn chunk(&mut self, end: u64) -> Result<(), Failed> {
        let start = self.offset;
        let mut url = self.url()?;
        self.keep(&url);
        let says = HeaderValue::from_str(&format!("{start}-{}", end - 1)).expect("digits are header text");
        let (request, response, shown) = loop {
            let request = Request::new(Method::PATCH, url.clone(), self.repository.push_scope())
                .with_header(CONTENT_RANGE, says.clone());
            let (response, shown) = self.send(request.clone(), start, end).await?;
            match self.transport().redirected(&action(&Method::PATCH, &url), &url, &response, false)? {
                Some(next) if self.detours < MAX_DETOURS => {
                    self.detours += 1;
                    url = next;
                }
                _ => break (request, response, shown),
            }
        };
        let named = action(&Method::PATCH, &url);
        let is_fresh = start == 0 && self.session.as_ref().is_some_and(|session| !session.is_old);
        match response.status().as_u16() {
            // Amazon's answers 201.
            200 | 201 | 202 | 204 => self.accepted(&named, &response, end).await,
            401 if self.may_renew(&url) => {
                self.transport().renew(&request, named, response, shown.as_ref(), self.observer).await?;
                self.offset = self.ask().await?;
                Ok(())
            }
            413 if self.transport().uploads.learn_smaller(end - start) => {
                self.offset = self.ask().await?;
                Ok(())
            }
            416 => {
                let refused = self.transport().refused(named, response).await;
                let held = self.ask().await?;
                self.detours += 1;
                if held == start || self.detours > MAX_DETOURS {
                    return Err(Failed::Chunks(refused));
                }
                self.offset = held;
                Ok(())
            }
            400 | 404 | 405 | 411 | 413 | 415 | 501 if is_fresh => {
                Err(Failed::Chunks(self.transport().refused(named, response).await))
            }
            404 => Err(Failed::Lost(self.transport().refused(named, response).await)),
            _ => Err(self.transport().refused(named, response).await.into()),
        }
    }

    /// A chunk was taken: all of it, where the registry does not say otherwise.
    async fn accepted(&mut self, named: &str, response: &Response, end: u64) -> Result<(), Failed> {
        let start = self.offset;
        self.follow(named, response)?;
        let held = match held(response.headers()) {
            Some(said) if said != end => self.ask().await?,
            _ => end,
        };
        if held == end {
            (self.offset, self.detours) = (end, 0);
            return Ok(());
        }
        let odd = self.odd(format!("{end} bytes were sent in chunks, the registry holds {held}"));
        if held <= start || held > end {
            // Some keep the last chunk alone.
            return Err(Failed::Chunks(odd));
        }
        self.offset = held;
        self.detours += 1;
        if self.detours > MAX_DETOURS { Err(Failed::Chunks(odd)) } else { Ok(()) }
    }

    /// Says that all chunks were sent.
    async fn close(&mut self) -> Result<(), Failed> {
        let url = with_digest(&self.url()?, self.descriptor);
        let request = Request::new(Method::PUT, url.clone(), self.repository.push_scope());
        let size = self.descriptor.size;
        let (mut response, shown) = self.send(request.clone(), size, size).await?;
        let named = action(&Method::PUT, &url);
        if response.status() == StatusCode::UNAUTHORIZED && self.may_renew(&url) {
            self.transport().renew(&request, named.clone(), response, shown.as_ref(), self.observer).await?;
            response = self.send(request, size, size).await?.0;
        }
        match response.status().as_u16() {
            201 => Ok(check_digest(&named, response.headers(), &self.descriptor.digest)?),
            404 => Err(Failed::Lost(self.transport().refused(named, response).await)),
            // The bytes are not what was sent: it put the chunks together wrongly, or does not take any.
            400 | 405 | 416 | 501 => Err(Failed::Chunks(self.transport().refused(named, response).await)),
            _ => Err(self.transport().refused(named, response).await.into()),
        }
    }

    /// How many bytes the registry holds.
    async fn ask(&mut self) -> Result<u64, Failed> {
        let url = self.url()?;
        let request = Request::new(Method::GET, url.clone(), self.repository.push_scope());
        let accept = [StatusCode::NO_CONTENT, StatusCode::OK, StatusCode::ACCEPTED];
        let response = match self.transport().once(&request, self.observer, &accept).await {
            Ok(response) => response,
            Err(error) if error.status().is_some_and(|status| (400..429).contains(&status) || status == 501) => {
                return Err(Failed::Lost(error));
            }
            Err(error) => return Err(error.into()),
        };
        self.follow(&action(&Method::GET, &url), &response)?;
        match held(response.headers()) {
            Some(held) if held <= self.descriptor.size => Ok(held),
            found => Err(Failed::Lost(self.odd(format!("the registry says it holds {found:?} bytes")))),
        }
    }

    /// Takes over the address for the next request, where the answer has one.
    fn follow(&mut self, named: &str, response: &Response) -> Result<(), Failed> {
        if !response.headers().contains_key(LOCATION) {
            return Ok(());
        }
        let next = self.transport().location(named, response.url(), response.headers())?;
        self.keep(&next);
        if let Some(session) = &mut self.session {
            session.url = next;
        }
        Ok(())
    }

    /// Whether a 401 is met with a fresh authorization.
    fn may_renew(&mut self, url: &Url) -> bool {
        self.detours += 1;
        self.detours <= MAX_DETOURS && self.transport().host.is_origin_of(url)
    }

    /// Sends the bytes `start..end`, and watches that they move.
    async fn send(
        &mut self,
        request: Request,
        start: u64,
        end: u64,
    ) -> Result<(Response, Option<HeaderValue>), Failed> {
        let transport = self.transport();
        let stream = self.source.fetch(self.descriptor, start..end).await.map_err(Failed::Source)?;
        let progress = Arc::new(Progress::default());
        let body = counted(stream, self.descriptor, end - start, transport, &progress);
        let request = request
            .with_header(CONTENT_LENGTH, HeaderValue::from(end - start))
            .with_header(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        let named = action(&request.method, &request.url);
        let (sending, shown) = transport.prepare(&request, &request.url, body, self.observer).await?;
        let mut exchange = Box::pin(transport.execute(named.clone(), sending, self.observer));
        let mut tick = tokio::time::interval(TICK);
        let mut last = (0, Instant::now());
        loop {
            tokio::select! {
                answer = &mut exchange => {
                    // A source that failed breaks the connection; its error is the one to tell.
                    if let Some(error) = progress.failure() {
                        return Err(Failed::Source(error));
                    }
                    self.show(start + progress.sent());
                    return Ok((answer?, shown));
                }
                _ = tick.tick() => {
                    let sent = progress.sent();
                    self.show(start + sent);
                    if sent != last.0 || progress.waits_for_source() {
                        last = (sent, Instant::now());
                    }
                    let is_out = start + sent == end;
                    let patience = if is_out { transport.commit_timeout } else { transport.stall_timeout };
                    if last.1.elapsed() > patience {
                        return Err(Error::Stalled { action: named, after: patience }.into());
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

    /// Goes on with the session of an earlier run, where one is kept.
    fn take_up(&mut self) {
        if self.transport().uploads.chunk(self.descriptor.size, 0).is_none() {
            return;
        }
        let Some(sessions) = &self.transport().sessions else { return };
        let kept = sessions.load(&self.repository.name(), &self.descriptor.digest);
        let Some(url) = kept.and_then(|kept| kept.parse().ok()) else { return };
        // Addresses elsewhere are not kept: one that is found here is not ours.
        if self.transport().host.is_origin_of(&url) {
            self.session = Some(Session { url, chunk_min: 0, is_old: true });
            (self.unsure, self.in_chunks) = (true, true);
        }
    }

    fn keep(&self, url: &Url) {
        if let Some(sessions) = &self.transport().sessions
            && self.in_chunks
            && self.transport().host.is_origin_of(url)
        {
            sessions.keep(&self.repository.name(), &self.descriptor.digest, url.as_str());
        }
    }

    fn forget(&self) {
        if let Some(sessions) = &self.transport().sessions {
            sessions.forget(&self.repository.name(), &self.descriptor.digest);
        }
    }

    /// Leaves a session that a later run can go on with; drops one that holds nothing of use.
    async fn leave(&mut self) {
        if !self.in_chunks || self.transport().sessions.is_none() {
            self.drop_session().await;
        }
    }

    /// Tells the registry that nothing more comes. It drops sessions by itself in the end, so a failure is no matter.
    async fn drop_session(&mut self) {
        self.forget();
        (self.offset, self.unsure) = (0, false);
        self.show(0);
        let Some(session) = self.session.take() else { return };
        let request = Request::new(Method::DELETE, session.url, self.repository.push_scope());
        let cancel = self.transport().once(&request, self.observer, &[StatusCode::NO_CONTENT]);
        if let Ok(Err(error)) = tokio::time::timeout(CANCEL_TIMEOUT, cancel).await {
            tracing::debug!(%error, "the upload was not cancelled");
        }
    }
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

fn number(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

/// `Range: 0-<last>`, as the bytes held. The specification has no word for none, and registries say `0-0`: no chunk of
/// ours has one byte, so that means none.
fn held(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    let last: u64 = last.parse().ok()?;
    (first == "0").then_some(if last == 0 { 0 } else { last.saturating_add(1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_session_holds_is_read_in_every_dialect() {
        let check = |text: &str, bytes: Option<u64>| {
            assert_eq!(held(&HeaderMap::from_iter([(RANGE, text.parse().unwrap())])), bytes, "{text}");
        };
        check("0-99", Some(100));
        check("bytes=0-99", Some(100));
        check("0-0", Some(0));
        check("0-18446744073709551615", Some(u64::MAX));
        check("5-9", None);
        check("0--1", None);
        check("0-", None);
        assert_eq!(held(&HeaderMap::new()), None);
    }
}
