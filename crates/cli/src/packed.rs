//! Artifacts whose layers are archives, as KitOps makes them: taken apart once, so that the runtime can map their files.

use mlxctl_artifact::{Descriptor, media_type};
use mlxctl_layout::{is_packed, unpack, unpacked};
use mlxctl_store::Store;

use crate::context::{Context, block_on};
use crate::failure::Failure;

/// The artifact of raw files that stands for this one: itself, or what its archives are taken apart into.
pub(crate) fn raw(context: &Context, store: &Store, root: &Descriptor) -> Result<Descriptor, Failure> {
    if media_type::is_index(&root.media_type) || !is_packed(&store.manifest(root)?.1)? {
        return Ok(root.clone());
    }
    if let Some(made) = block_on(async { Ok(unpacked(store, root).await?) })? {
        return Ok(made);
    }
    context.printer.note(format!("taking the archives of {} apart", root.digest.short()));
    Ok(unpack(store, root, &|notice| context.printer.note(format!("note: {notice}")))?)
}
