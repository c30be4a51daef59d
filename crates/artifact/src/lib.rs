//! What an artifact is, as pure data: digests, references, descriptors, manifests, the model configuration and the
//! roles of layers. Every other room speaks in these types; nothing here does I/O.
//!
//! Wire documents are read through `oci-spec` and turned into the types of this crate at once, so that a digest that
//! is no digest, or a path that leaves its folder, cannot travel further than the parser.

mod canonical;
mod descriptor;
mod digest;
mod error;
mod foreign;
mod layer;
mod manifest;
pub mod media_type;
mod model_config;
mod reference;
mod references;
mod resolved;

pub use canonical::canonical_json;
pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, Digester};
pub use error::Error;
pub use layer::{LayerKind, LayerPath, LayerRole, ModelLayer, Packaging};
pub use manifest::{Index, MAX_MANIFEST_BYTES, Manifest};
pub use model_config::{Capabilities, ModelConfig, ModelDescriptor, ModelDetails, ModelFs};
pub use reference::{LATEST, Reference};
pub use references::references_annotation;
pub use resolved::{Expectation, Parameters, PinnedAdapter, PinnedDraft, RESOLVED_SPEC_PATH, ResolvedSpec, SmokeTest};
