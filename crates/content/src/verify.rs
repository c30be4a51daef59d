//! Checking bytes against the descriptor that announced them, while they pass.

use bytes::Bytes;
use futures_util::StreamExt as _;
use mlxctl_artifact::{Descriptor, Digester};

use crate::{ByteStream, Error, Fetch};

/// Counts and hashes the bytes of one piece of content. Whoever takes bytes from a source passes them through here
/// before it believes them.
pub struct Verified {
    expected: Descriptor,
    digester: Digester,
    seen: u64,
}

impl Verified {
    /// Expects the content that `descriptor` announces, from its first byte.
    pub fn new(descriptor: &Descriptor) -> Self {
        let digester = Digester::new(descriptor.digest.algorithm());
        Self { expected: descriptor.clone(), digester, seen: 0 }
    }

    /// Takes in the next bytes.
    ///
    /// # Errors
    /// [`Error::SizeMismatch`] as soon as more came than announced.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.seen += bytes.len() as u64;
        if self.seen > self.expected.size {
            return Err(self.wrong_size());
        }
        self.digester.update(bytes);
        Ok(())
    }

    /// Bytes taken in.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Checks length and digest of everything taken in.
    pub fn finish(self) -> Result<(), Error> {
        if self.seen != self.expected.size {
            return Err(self.wrong_size());
        }
        let found = self.digester.finish();
        if found != self.expected.digest {
            let what = format!("a {} of {} bytes", self.expected.media_type, self.expected.size);
            return Err(Error::DigestMismatch { what, expected: self.expected.digest, found });
        }
        Ok(())
    }

    fn wrong_size(&self) -> Error {
        Error::SizeMismatch { digest: self.expected.digest, expected: self.expected.size, found: self.seen }
    }
}

/// The whole content, verified. For documents: at most `limit` bytes are accepted.
pub async fn read_all(source: &dyn Fetch, descriptor: &Descriptor, limit: u64) -> Result<Bytes, Error> {
    if descriptor.size > limit {
        let message = format!("{} has {} bytes, more than the {limit} allowed", descriptor.digest, descriptor.size);
        return Err(Error::Refused { message });
    }
    let mut verified = Verified::new(descriptor);
    let mut content = Vec::with_capacity(descriptor.size.min(limit).min(1 << 20) as usize);
    let mut stream: ByteStream = source.fetch(descriptor, 0..descriptor.size).await?;
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        verified.update(&bytes)?;
        content.extend_from_slice(&bytes);
    }
    verified.finish()?;
    Ok(content.into())
}
