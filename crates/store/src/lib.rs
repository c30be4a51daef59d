//! The local store: an OCI image layout that survives a kill at any instant, and several processes at once.
//!
//! The builder ingests into it, pulls and pushes copy through its repositories, the embedded registry serves them,
//! and the runtime maps blobs out of it. `layout.rs` says where everything lies.
//!
//! What holds: a blob appears under its digest only whole and hashed; a name changes in one step; everything is
//! derived from blobs and name files; whoever needs content that no name holds yet leases it. What lies on the disk
//! is not trusted: a blob is read after its seal (or its hash) vouches for it, or by somebody who hashes it.

mod blob;
mod error;
mod file;
mod gc;
mod graph;
mod ingest;
mod lanes;
mod layout;
mod lease;
mod lock;
mod map;
mod partial;
mod ranges;
mod referrers;
mod repository;
mod seal;
mod sink;
mod store;
mod tag;
mod uploads;
mod verify;

pub use blob::Verify;
pub use error::Error;
pub use gc::{GcOptions, GcReport};
pub use ingest::BlobWriter;
pub use lease::Lease;
pub use map::map_file;
pub use repository::LocalRepository;
pub use store::Store;
pub use tag::Listing;
pub use verify::{Fault, Finding};
