//! Image layouts as they travel in files: a folder or a tar, as source and as target of `content::copy`; and layers that
//! are archives, taken apart into an artifact of raw files.
//!
//! `mlxctl pack` and `import` call it, and whoever serves artifacts of other makers. The store is an image layout too, but
//! one with locks, leases and seals; what lies here was written by anyone, and nothing in it is believed unhashed.

mod archive;
mod documents;
mod error;
mod folder;
mod members;
mod source;
mod unpack;

pub use archive::write_archive;
pub use documents::Entry;
pub use error::Error;
pub use folder::LayoutFolder;
pub use members::{Member, MemberKind, Members};
pub use source::Layout;
pub use unpack::{is_packed, unpack, unpacked, unpacked_from};
