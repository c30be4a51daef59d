//! `mlxctl pull`: an artifact comes from a registry into the store.

use std::sync::Arc;

use mlxctl_artifact::Reference;
use mlxctl_content::{CopyOptions, Resolve as _, copy};

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
    let reference = remote::reference(context, &args.name)?;
    let local = args.local.as_ref().unwrap_or(&reference);
    if args.local.is_some() && local.digest().is_some() {
        return Err(Failure::wrong(format!("{local}: a name cannot hold a digest")));
    }
    let store = context.store()?;
    let observer = Arc::new(Transfers::new(&context.printer));
    let source = remote::repository(context, &args.remote, &reference, observer.clone())?;
    let target = store.repository(&local.name())?;
    let options = CopyOptions { jobs: args.remote.jobs.into() };
    let root = block_on(async {
        let wanted =
            reference.digest().map_or_else(|| reference.tag_or_latest().to_owned(), |digest| digest.to_string());
        let root = source.resolve(&wanted).await?;
        copy(&source, &target, &root, options, &*observer).await?;
        // A pull by digest alone is kept under its digest: `name@sha256:…`.
        let is_pinned = local.digest().is_some() && local.tag().is_none();
        let kept = if is_pinned { local.clone() } else { local.with_tag(local.tag_or_latest())? };
        store.tag(&kept, &root)?;
        Ok(root)
    })?;
    packed::raw(context, &store, &root)?;
    context.printer.result(root.digest)
}
