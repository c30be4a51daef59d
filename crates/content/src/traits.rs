//! The traits: each a verb of a content store, so that an implementation offers just what it can do.

use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use mlxctl_artifact::{Descriptor, Digest};

use crate::Error;

/// The bytes of a blob as they come.
pub type ByteStream = Pin<Box<dyn Stream<Item = Result<Bytes, Error>> + Send>>;

/// Gives the bytes of blobs and manifests.
#[async_trait]
pub trait Fetch: Send + Sync {
    /// The bytes `range` of the content, not yet verified. A range past the end is an error; an implementation whose
    /// origin cannot serve a range from the middle skips to it.
    async fn fetch(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<ByteStream, Error>;

    /// How many ranges of one blob may be fetched at once with profit; one where a range is no cheaper than the
    /// whole. What was learned from an answer may change it.
    fn lanes(&self) -> usize {
        1
    }
}

/// Takes blobs and manifests.
#[async_trait]
pub trait Push: Send + Sync {
    /// Whether the content is already here, whole.
    async fn exists(&self, descriptor: &Descriptor) -> Result<bool, Error>;

    /// Takes the content over from `source`. The target asks the source for the ranges it lacks, in the order it
    /// wants: that is how a half-done transfer goes on where it stopped. On success the content is here and is what
    /// its digest says; on failure nothing of it is visible.
    async fn push(&self, descriptor: &Descriptor, source: &dyn Fetch, observer: &dyn Observer) -> Result<(), Error>;
}

/// Turns a tag or a digest into a descriptor.
#[async_trait]
pub trait Resolve: Send + Sync {
    /// The manifest that `name`, a tag or a digest, stands for.
    async fn resolve(&self, name: &str) -> Result<Descriptor, Error>;
}

/// Names manifests.
#[async_trait]
pub trait Tag: Send + Sync {
    /// Points `tag` to a manifest that is here, replacing what it pointed to.
    async fn tag(&self, descriptor: &Descriptor, tag: &str) -> Result<(), Error>;
}

/// Lists names.
#[async_trait]
pub trait List: Send + Sync {
    /// The tags in lexical order.
    async fn tags(&self) -> Result<Vec<String>, Error>;
}

/// Takes names and content away.
#[async_trait]
pub trait Delete: Send + Sync {
    /// Removes a tag; the manifest stays.
    async fn untag(&self, tag: &str) -> Result<(), Error>;

    /// Removes a manifest or a blob from the repository.
    async fn delete(&self, digest: &Digest) -> Result<(), Error>;
}

/// Takes blobs whose digest is known only at the end, in pieces: what the distribution API asks of a registry.
#[async_trait]
pub trait Uploads: Send + Sync {
    /// Opens a session and names it.
    async fn begin(&self) -> Result<String, Error>;

    /// How many bytes a session holds.
    async fn offset(&self, session: &str) -> Result<u64, Error>;

    /// Adds bytes at `at`, which must be the session's offset; returns the new offset. Bytes that arrived before the
    /// stream broke are kept.
    async fn append(&self, session: &str, at: u64, bytes: ByteStream) -> Result<u64, Error>;

    /// Closes a session: its bytes become the blob `digest`, if that is what they are.
    async fn commit(&self, session: &str, digest: &Digest) -> Result<Descriptor, Error>;

    /// Drops a session and its bytes.
    async fn cancel(&self, session: &str) -> Result<(), Error>;
}

/// Finds what is about a manifest: its signatures, its provenance, its bills of materials.
#[async_trait]
pub trait Referrers: Send + Sync {
    /// The manifests that name `subject` as theirs, sorted by digest; each descriptor bears the manifest's type of
    /// artifact and annotations. With `artifact_type`, those of this type alone. A subject that is not here has none
    /// or some: a signature may come before what it signs.
    async fn referrers(&self, subject: &Digest, artifact_type: Option<&str>) -> Result<Vec<Descriptor>, Error>;
}

/// Everything that a registry offers of one repository. The embedded registry serves any implementation of it.
pub trait Repository: Fetch + Push + Resolve + Tag + List + Delete + Uploads + Referrers {}

impl<T: Fetch + Push + Resolve + Tag + List + Delete + Uploads + Referrers> Repository for T {}

/// How one piece of content came to be at its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was there before.
    Present,
    /// It was moved.
    Moved,
}

/// Hears of a transfer's progress, from several tasks at once.
pub trait Observer: Send + Sync {
    /// The content is looked at now.
    fn started(&self, descriptor: &Descriptor) {
        let _ = descriptor;
    }

    /// `bytes` more of the content are at the target. Bytes kept from an earlier, broken transfer count too; a
    /// negative count takes back bytes that have to be sent again.
    fn moved(&self, descriptor: &Descriptor, bytes: i64) {
        let _ = (descriptor, bytes);
    }

    /// The content is at the target.
    fn finished(&self, descriptor: &Descriptor, outcome: Outcome) {
        let _ = (descriptor, outcome);
    }

    /// Something that the person should know and that stops nothing: a retry, a registry's warning.
    fn notice(&self, message: &str) {
        let _ = message;
    }
}

/// An observer that hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {}

#[async_trait]
impl<T: Fetch + ?Sized> Fetch for Arc<T> {
    async fn fetch(&self, descriptor: &Descriptor, range: Range<u64>) -> Result<ByteStream, Error> {
        (**self).fetch(descriptor, range).await
    }

    fn lanes(&self) -> usize {
        (**self).lanes()
    }
}

macro_rules! through_arc {
    ($($trait:ident { $(fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty;)* })*) => {$(
        #[async_trait]
        impl<T: $trait + ?Sized> $trait for Arc<T> {
            $(async fn $name(&self, $($arg: $type),*) -> Result<$out, Error> { (**self).$name($($arg),*).await })*
        }
    )*};
}

through_arc! {
    Push {
        fn exists(descriptor: &Descriptor) -> bool;
        fn push(descriptor: &Descriptor, source: &dyn Fetch, observer: &dyn Observer) -> ();
    }
    Resolve { fn resolve(name: &str) -> Descriptor; }
    Tag { fn tag(descriptor: &Descriptor, tag: &str) -> (); }
    List { fn tags() -> Vec<String>; }
}
