//! The body of an upload: bytes of a source, counted as they leave, exactly as many as were announced.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use mlxctl_artifact::Descriptor;
use mlxctl_content::{self as content, ByteStream};
use reqwest::Body;

use crate::transport::Transport;

/// What the body of a running upload has done.
#[derive(Default)]
pub(crate) struct Progress {
    sent: AtomicU64,
    waits: AtomicBool,
    failure: Mutex<Option<content::Error>>,
}

impl Progress {
    /// Bytes that left.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Whether the source, or the limit of bytes a second, makes the registry wait.
    pub(crate) fn waits_for_source(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// The error of the source, where it had one.
    pub(crate) fn failure(&self) -> Option<content::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, error: content::Error) -> std::io::Error {
        let shown = std::io::Error::other(error.to_string());
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        shown
    }
}

/// `expected` bytes of `source` as a body.
pub(crate) fn counted(
    source: ByteStream,
    descriptor: &Descriptor,
    expected: u64,
    transport: &Arc<Transport>,
    progress: &Arc<Progress>,
) -> Body {
    if expected == 0 {
        return Body::from(Bytes::new());
    }
    let (digest, transport, progress) = (descriptor.digest, Arc::clone(transport), Arc::clone(progress));
    let mismatch = move |found| content::Error::SizeMismatch { digest, expected, found };
    Body::wrap_stream(stream::unfold(Some(source), move |source| {
        let (transport, progress) = (Arc::clone(&transport), Arc::clone(&progress));
        async move {
            let mut source = source?;
            progress.waits.store(true, Ordering::Relaxed);
            let next = source.next().await;
            if let Some(Ok(bytes)) = &next {
                transport.pace.take(bytes.len() as u64).await;
            }
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
