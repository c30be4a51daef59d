//! `mlxctl push`: an artifact goes from the store to a registry.

use std::collections::BTreeMap;
use std::sync::Arc;

use mlxctl_artifact::{Digest, Reference};
use mlxctl_content::{CopyOptions, Tag as _, copy};
use mlxctl_store::Store;

use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::progress::Transfers;
use crate::remote;

/// Push an artifact to a registry and print where it is, pinned.
///
/// Example: mlxctl push pebble:1.0.0 ghcr.io/org/pebble:1.0.0
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact in the store.
    #[arg(value_name = "REF")]
    name: Reference,

    /// Where it goes; default: REF itself, completed by MLXCTL_REGISTRY.
    #[arg(value_name = "TARGET")]
    target: Option<Reference>,

    #[command(flatten)]
    remote: remote::Flags,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let pinned = push(context, &args.remote, &args.name, args.target.as_ref().unwrap_or(&args.name))?;
    context.printer.result(pinned)
}

/// The most names that are looked through for blobs to mount.
const MAX_NEIGHBOURS: usize = 1000;

/// Blobs that other repositories of the target's registry should have, because they were pulled from there or pushed
/// to them under these names.
fn neighbours(store: &Store, target: &Reference) -> BTreeMap<Digest, String> {
    let mut found = BTreeMap::new();
    for (name, descriptor) in store.tags().unwrap_or_default().into_iter().take(MAX_NEIGHBOURS) {
        if name.registry() != target.registry() || name.repository() == target.repository() {
            continue;
        }
        // What cannot be read is no help, and no harm.
        let Ok((_, manifest)) = store.manifest(&descriptor) else { continue };
        found.extend(manifest.blobs().map(|blob| (blob.digest, name.repository().to_owned())));
    }
    found
}

/// Pushes and gives the pinned reference of what is at the registry now.
pub(crate) fn push(
    context: &Context,
    args: &remote::Flags,
    name: &Reference,
    target: &Reference,
) -> Result<Reference, Failure> {
    let target = remote::reference(context, target)?;
    let store = context.store()?;
    let root = store.resolve(name)?;
    if let Some(digest) = target.digest().filter(|digest| *digest != root.digest) {
        return Err(Failure::wrong(format!("{target} pins {digest}, but {name} is {}", root.digest)));
    }
    let _in_use = store.lease(&[root.digest])?;
    let observer = Arc::new(Transfers::new(&context.printer));
    let source = store.repository(&name.name())?;
    let remote = remote::repository(context, args, &target, observer.clone())?.mounting(neighbours(&store, &target));
    let options = CopyOptions { jobs: args.jobs.into() };
    block_on(async {
        copy(&source, &remote, &root, options, &*observer).await?;
        if target.tag().is_some() || target.digest().is_none() {
            remote.tag(&root, target.tag_or_latest()).await?;
        }
        Ok(())
    })?;
    Ok(target.at(root.digest))
}
