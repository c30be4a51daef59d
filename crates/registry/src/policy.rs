//! How blobs are sent to a registry: in chunks, or whole. Some are known to do badly with chunks; of others it is
//! learned from what they answer.

use std::sync::{Mutex, PoisonError};

/// Chunks are not made smaller than this.
const SMALLEST_CHUNK: u64 = 1 << 20;
/// No registry's wish for larger chunks is heard beyond this.
const LARGEST_CHUNK: u64 = 5 << 30;

/// Registries that take a blob in one request alone, or break with several: GitHub's (416 above 4 MiB), Google's
/// (no chunks), Amazon's (201 to a chunk), JFrog's (keeps the last chunk).
const WHOLE_ALONE: [&str; 6] = ["ghcr.io", "pkg.dev", "gcr.io", "amazonaws.com", "ecr.aws", "jfrog.io"];

/// What is known of one registry.
pub(crate) struct UploadPolicy(Mutex<State>);

#[derive(Clone, Copy)]
struct State {
    whole: bool,
    chunk: u64,
}

impl UploadPolicy {
    /// By the registry's `host[:port]`, with chunks of this many bytes where it takes any.
    pub(crate) fn of(host: &str, chunk: u64) -> Self {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name).to_ascii_lowercase();
        let is_below =
            |domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
        Self(Mutex::new(State { whole: WHOLE_ALONE.into_iter().any(is_below), chunk: chunk.max(1) }))
    }

    fn state(&self) -> State {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The size of a chunk, at least what the registry asks for; `None` where a blob of this size goes whole.
    pub(crate) fn chunk(&self, size: u64, asked: u64) -> Option<u64> {
        let state = self.state();
        let chunk = state.chunk.max(asked.min(LARGEST_CHUNK));
        (!state.whole && size > chunk).then_some(chunk)
    }

    /// From now on blobs go whole; whether that is news.
    pub(crate) fn learn_whole(&self) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        !std::mem::replace(&mut state.whole, true)
    }

    /// From now on chunks are smaller than `sent` bytes; whether they can be.
    pub(crate) fn learn_smaller(&self, sent: u64) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let smaller = (sent / 4).max(SMALLEST_CHUNK.min(state.chunk)).min(state.chunk);
        let fits = smaller < sent;
        if fits {
            (state.chunk, state.whole) = (smaller, false);
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 64 << 20;

    #[test]
    fn registries_are_known_by_their_domain() {
        let goes_whole = |host: &str| UploadPolicy::of(host, CHUNK).chunk(1 << 40, 0).is_none();
        for host in
            ["ghcr.io", "GHCR.io:443", "europe-docker.pkg.dev", "eu.gcr.io", "1.dkr.ecr.eu-west-1.amazonaws.com"]
        {
            assert!(goes_whole(host), "{host}");
        }
        for host in ["127.0.0.1:5000", "docker.io", "notghcr.io", "ghcr.io.example", "quay.io", "[::1]:5000"] {
            assert!(!goes_whole(host), "{host}");
        }
    }

    #[test]
    fn chunks_follow_the_registrys_wish_and_what_was_learned() {
        let policy = UploadPolicy::of("r", CHUNK);
        assert_eq!(policy.chunk(CHUNK, 0), None);
        assert_eq!(policy.chunk(CHUNK + 1, 0), Some(CHUNK));
        assert_eq!(policy.chunk(1 << 40, 2 * CHUNK), Some(2 * CHUNK));
        assert_eq!(policy.chunk(1 << 40, u64::MAX), Some(LARGEST_CHUNK));
        assert!(policy.learn_smaller(CHUNK));
        assert_eq!(policy.chunk(1 << 40, 0), Some(CHUNK / 4));
        assert!(policy.learn_smaller(2 << 20) && !policy.learn_smaller(1 << 20));
        assert_eq!(policy.chunk(1 << 40, 0), Some(SMALLEST_CHUNK));
        assert!(policy.learn_whole() && !policy.learn_whole());
        assert_eq!(policy.chunk(1 << 40, 0), None);
    }
}
