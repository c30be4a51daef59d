//! Pulls bytes: a stream that asks for the range it wants, checks what it gets, and goes on where it broke.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, stream};
use mlxctl_artifact::{Descriptor, Digest};
use mlxctl_content::{self as content, ByteStream};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Response, StatusCode};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{Error, action};
use crate::retry::Attempts;
use crate::transport::{Request, Transport};

type Body = Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>;

/// The bytes `range` of the blob that `request` gets. The first answer is awaited, so that a refusal is an error here
/// and not in the middle of the stream.
pub(crate) async fn fetch(
    transport: Arc<Transport>,
    request: Request,
    descriptor: &Descriptor,
    range: Range<u64>,
) -> Result<ByteStream, content::Error> {
    if range.start > range.end || range.end > descriptor.size {
        let (start, end, size) = (range.start, range.end, descriptor.size);
        let message = format!("bytes {start} to {end} of {} were asked for, which has {size}", descriptor.digest);
        return Err(content::Error::Refused { message });
    }
    if range.is_empty() {
        return Ok(Box::pin(stream::empty()));
    }
    let (digest, size) = (descriptor.digest, descriptor.size);
    // Fails where the semaphore is closed, which it never is.
    let permit = Arc::clone(&transport.bodies).acquire_owned().await.ok();
    let (next, end) = (range.start, range.end);
    let mut reading = Reading { transport, request, digest, size, next, end, body: None, failures: 0, _permit: permit };
    reading.connect().await?;
    Ok(Box::pin(stream::try_unfold(reading, |mut reading| async move {
        Ok(reading.chunk().await?.map(|bytes| (bytes, reading)))
    })))
}

/// A blob half read.
struct Reading {
    transport: Arc<Transport>,
    request: Request,
    digest: Digest,
    /// Bytes of the whole blob.
    size: u64,
    /// The next byte to give.
    next: u64,
    end: u64,
    body: Option<Open>,
    /// Failures since the last byte came.
    failures: u32,
    _permit: Option<OwnedSemaphorePermit>,
}

/// An answer half read, and how many of its bytes lie before those wanted.
struct Open {
    body: Body,
    skip: u64,
}

impl Reading {
    async fn connect(&mut self) -> Result<(), content::Error> {
        while self.body.is_none() {
            match self.open().await {
                Ok(open) => self.body = Some(open),
                Err(Failed::Remote(error)) if error.status() == Some(404) => {
                    let message = format!("blob {} at {}", self.digest, self.transport.host.name);
                    return Err(content::Error::NotFound { what: message });
                }
                Err(Failed::Remote(error)) => self.failed(error).await?,
                Err(Failed::Size { found }) => return Err(self.wrong_size(found)),
            }
        }
        Ok(())
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, content::Error> {
        while self.next < self.end {
            self.connect().await?;
            let Some(open) = &mut self.body else { continue };
            let answer = tokio::time::timeout(self.transport.stall_timeout, open.body.next()).await;
            let action = action(&self.request.method, &self.request.url);
            let error = match answer {
                Ok(Some(Ok(mut bytes))) => {
                    let skipped = open.skip.min(bytes.len() as u64);
                    open.skip -= skipped;
                    let bytes = bytes.split_off(skipped as usize);
                    if bytes.is_empty() {
                        continue;
                    }
                    let wanted = (self.end - self.next).min(bytes.len() as u64);
                    self.next += wanted;
                    self.failures = 0;
                    self.transport.pace.take(wanted).await;
                    return Ok(Some(bytes.slice(..wanted as usize)));
                }
                Ok(Some(Err(error))) => Error::of_exchange(action, &error),
                Ok(None) => Error::Short { action, missing: self.end - self.next },
                Err(_) => Error::Stalled { action, after: self.transport.stall_timeout },
            };
            self.body = None;
            self.failed(error).await?;
        }
        Ok(None)
    }

    /// Waits for the next try; the count of failures outlives the wait.
    async fn failed(&mut self, error: Error) -> Result<(), content::Error> {
        let observer = Arc::clone(&self.transport.observer);
        let mut attempts = Attempts::new(self.transport.retry, &*observer).after(self.failures);
        attempts.failed(error).await?;
        self.failures = attempts.failures();
        Ok(())
    }

    async fn open(&mut self) -> Result<Open, Failed> {
        let mut request = self.request.clone();
        let whole = self.next == 0 && self.end == self.size;
        if !whole {
            let range = format!("bytes={}-{}", self.next, self.end - 1);
            request = request.with_header(RANGE, HeaderValue::from_str(&range).expect("digits are header text"));
        }
        let accept: &[StatusCode] = if whole {
            &[StatusCode::OK]
        } else {
            &[StatusCode::OK, StatusCode::PARTIAL_CONTENT, StatusCode::RANGE_NOT_SATISFIABLE]
        };
        let response =
            self.transport.once(&request, &*self.transport.observer, accept).await.map_err(Failed::Remote)?;
        match response.status() {
            StatusCode::PARTIAL_CONTENT => self.part(response),
            // The range was asked for within the size that the manifest says.
            StatusCode::RANGE_NOT_SATISFIABLE => Err(Failed::Size {
                found: content_range(response.headers()).and_then(|range| range.total).unwrap_or(self.next),
            }),
            // The whole blob, although a part was asked for: the way to it is skipped.
            _ => match length(response.headers()) {
                Some(found) if found != self.size => Err(Failed::Size { found }),
                _ if !whole => {
                    self.transport.ignores_ranges.store(true, Ordering::Relaxed);
                    Ok(Open { body: Box::pin(response.bytes_stream()), skip: self.next })
                }
                _ => Ok(Open { body: Box::pin(response.bytes_stream()), skip: self.next }),
            },
        }
    }

    fn part(&self, response: Response) -> Result<Open, Failed> {
        let found = content_range(response.headers());
        let fits = found.as_ref().is_some_and(|found| found.start == self.next && found.last < self.end);
        if !fits {
            let shown = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
            let reason = format!(
                "bytes {}-{} were asked for, the answer says {}",
                self.next,
                self.end - 1,
                crate::error::printable(shown.unwrap_or("nothing"), 80)
            );
            return Err(Failed::Remote(Error::Protocol {
                action: action(&self.request.method, &self.request.url),
                reason,
            }));
        }
        match found.and_then(|found| found.total) {
            Some(total) if total != self.size => Err(Failed::Size { found: total }),
            _ => Ok(Open { body: Box::pin(response.bytes_stream()), skip: 0 }),
        }
    }

    fn wrong_size(&self, found: u64) -> content::Error {
        content::Error::SizeMismatch { digest: self.digest, expected: self.size, found }
    }
}

/// Why a blob could not be opened.
enum Failed {
    Remote(Error),
    /// The registry's blob has another size than the descriptor says.
    Size {
        found: u64,
    },
}

/// `Content-Range: bytes <start>-<last>/<total or *>`, or `bytes */<total>` (RFC 9110 section 14.4).
struct ContentRange {
    start: u64,
    last: u64,
    total: Option<u64>,
}

fn content_range(headers: &HeaderMap) -> Option<ContentRange> {
    let (range, total) = headers.get(CONTENT_RANGE)?.to_str().ok()?.trim().strip_prefix("bytes ")?.split_once('/')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    if range == "*" {
        return Some(ContentRange { start: u64::MAX, last: u64::MAX, total });
    }
    let (start, last) = range.split_once('-')?;
    let (start, last) = (start.parse().ok()?, last.parse().ok()?);
    (start <= last).then_some(ContentRange { start, last, total })
}

/// `Content-Length` as the registry wrote it, for answers to HEAD too.
pub(crate) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
