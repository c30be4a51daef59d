//! `mlxctl pull`: an artifact comes from a registry into the store.

use std::sync::Arc;

use mlxctl_artifact::{Descriptor, Reference};
use mlxctl_content::{CopyOptions, Resolve as _, copy};
use mlxctl_store::Store;

use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::packed;
use crate::progress::Transfers;
use crate::remote;

/// Pull an artifact from a registry and print its digest.
///
/// Example: mlxctl pull ghcr.io/org/pebble:1.0.0
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact. With a digest, exactly that one.
    #[arg(value_name = "REF")]
    name: Reference,

    /// Keep it under this name instead.
    #[arg(long = "as", value_name = "NAME")]
    local: Option<Reference>,

    #[command(flatten)]
    remote: remote::Flags,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let store = context.store()?;
    let root = pull(context, &args.remote, &store, &args.name, args.local.as_ref())?;
    packed::raw(context, &store, &root)?;
    context.printer.result(root.digest)
}

/// Pulls an artifact and keeps it under `local`, or under its own name.
pub(crate) fn pull(
    context: &Context,
    flags: &remote::Flags,
    store: &Store,
    name: &Reference,
    local: Option<&Reference>,
) -> Result<Descriptor, Failure> {
    let reference = remote::reference(context, name)?;
    if let Some(local) = local.filter(|local| local.digest().is_some()) {
        return Err(Failure::wrong(format!("{local}: a name cannot hold a digest")));
    }
    let local = local.unwrap_or(&reference);
    let observer = Arc::new(Transfers::new(&context.printer));
    let source = remote::repository(context, flags, &reference, observer.clone())?;
    let target = store.repository(&local.name())?;
    let options = CopyOptions { jobs: flags.jobs.into() };
    block_on(async {
        let wanted =
            reference.digest().map_or_else(|| reference.tag_or_latest().to_owned(), |digest| digest.to_string());
        let root = source.resolve(&wanted).await?;
        copy(&source, &target, &root, options, &*observer).await?;
        // A pull by digest alone is kept under its digest: `name@sha256:…`.
        let is_pinned = local.digest().is_some() && local.tag().is_none();
        let kept = if is_pinned { local.clone() } else { local.with_tag(local.tag_or_latest())? };
        store.tag(&kept, &root)?;
        Ok(root)
    })
}
