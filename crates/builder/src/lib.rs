//! `create`: a recipe becomes an artifact in the store.
//!
//! [`build`] walks one way: [`source`] finds the model's files, [`convert`] streams its weights into the store (as they
//! are, or merged with adapters, cast, quantised), [`config`] writes the configuration that fits them, and the parts are put together into a
//! ModelPack manifest. The same recipe and the same bytes give the same manifest on every machine: nothing of the
//! clock, the owner, the path or the tool's version enters.

mod adapter;
mod assemble;
mod base;
mod companions;
mod config;
mod convert;
mod error;
mod lock;
mod loose;
mod materials;
mod mixed;
mod pieces;
mod source;

use std::num::NonZeroUsize;
use std::path::Path;

use mlxctl_artifact::{Descriptor, ModelLayer};
use mlxctl_modelspec::ModelSpec;
use mlxctl_store::Store;

pub use error::Error;
pub use lock::{Lock, LockedFile, LockedRepository, MAX_LOCK_BYTES};
pub use loose::pack_files;
pub use materials::{HubFolder, Materials, Needs, takes_hub_file};

/// What [`build`] needs beside the recipe.
pub struct BuildOptions<'a> {
    /// The folder that the recipe's relative paths start from: the recipe's own.
    pub folder: &'a Path,
    /// Threads that convert weights.
    pub threads: NonZeroUsize,
    /// Hears what is being done.
    pub progress: &'a dyn Progress,
}

/// Hears of a build's progress.
pub trait Progress {
    /// A file of the model is looked at or converted; `bytes` is the size of its source.
    fn file(&self, path: &str, bytes: u64) {
        let _ = (path, bytes);
    }

    /// `bytes` more of the source are done.
    fn advanced(&self, bytes: u64) {
        let _ = bytes;
    }

    /// Something that the person should know and that stops nothing.
    fn notice(&self, message: &str) {
        let _ = message;
    }
}

/// Progress that nobody watches.
pub struct Unwatched;

impl Progress for Unwatched {}

/// An artifact that was built. It is in the store, without a name yet.
#[derive(Debug, Clone)]
pub struct Built {
    /// The manifest.
    pub manifest: Descriptor,
    /// Its layers, in order.
    pub layers: Vec<ModelLayer>,
}

impl Built {
    /// Bytes of the configuration and all layers.
    pub fn size(&self) -> u64 {
        self.layers.iter().map(|layer| layer.descriptor.size).sum()
    }
}

/// Builds a recipe into the store.
///
/// # Errors
/// [`Error::is_recipes_fault`] tells whether the recipe or the call has to change. Nothing is named in the store then;
/// blobs that were written are swept by the next `gc`.
pub fn build(spec: &ModelSpec, store: &Store, options: &BuildOptions<'_>) -> Result<Built, Error> {
    build_with(spec, &Materials::default(), store, options)
}

/// The same for a recipe that names things elsewhere ([`Needs::of`]), which the caller brought.
pub fn build_with(
    spec: &ModelSpec,
    materials: &Materials,
    store: &Store,
    options: &BuildOptions<'_>,
) -> Result<Built, Error> {
    // What is taken over from other artifacts is not ours, and nothing but this keeps it until the new one has a name.
    let digests: Vec<_> = materials.artifacts.values().map(|manifest| manifest.digest).collect();
    let _in_use = store.lease(&digests)?;
    let source = source::Source::find(spec, options.folder, store, materials)?;
    for notice in &source.notices {
        options.progress.notice(notice);
    }
    let source_config = config::SourceConfig::read(&source, store)?;
    let weights = convert::weights(spec, &source, &source_config, store, options)?;
    let companions = companions::Companions::gather(spec, source.base.as_ref(), materials, store, options)?;
    assemble::artifact(spec, &source, &companions, &source_config, weights, store, options)
}
