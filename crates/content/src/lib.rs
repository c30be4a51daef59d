//! Content-addressed stores as small traits, and the one graph [`copy`] between any two of them.
//!
//! A pull, a push, a mirror and a pack are the same walk with other ends: the local store, a remote repository, an
//! image layout, memory. Nothing here knows HTTP or how a store lays out its files.

mod copy;
mod error;
mod memory;
mod referrer;
mod traits;
mod verify;

pub use copy::{Copied, CopyOptions, copy, reachable};
pub use error::Error;
pub use memory::Memory;
pub use referrer::Referrer;
pub use traits::{
    ByteStream, Delete, Fetch, List, Observer, Outcome, Push, Quiet, Referrers, Repository, Resolve, Tag, Uploads,
};
pub use verify::{Verified, read_all};
