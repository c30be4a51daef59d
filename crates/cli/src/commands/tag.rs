//! `mlxctl tag`: another name for an artifact.

use mlxctl_artifact::Reference;

use crate::context::Context;
use crate::failure::Failure;

/// Give an artifact in the store another name.
///
/// Example: mlxctl tag pebble:1.0.0 ghcr.io/org/pebble:1.0.0
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact.
    #[arg(value_name = "SRC")]
    source: Reference,

    /// Its new name.
    #[arg(value_name = "DST")]
    target: Reference,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    if args.target.digest().is_some() {
        return Err(Failure::wrong(format!("{}: a name cannot hold a digest", args.target)));
    }
    let store = context.store()?;
    let descriptor = store.resolve(&args.source)?;
    let target = args.target.with_tag(args.target.tag_or_latest())?;
    store.tag(&target, &descriptor)?;
    context.printer.result(format!("{target}@{}", descriptor.digest))
}
