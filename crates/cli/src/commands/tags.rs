//! `mlxctl tags`: the tags of a repository at a registry.

use std::sync::Arc;

use mlxctl_artifact::Reference;
use mlxctl_content::List as _;

use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::progress::Transfers;
use crate::remote;

/// List the tags of a repository at a registry.
///
/// Example: mlxctl tags ghcr.io/org/pebble
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The repository.
    #[arg(value_name = "REPOSITORY")]
    name: Reference,

    /// Print an array of tags as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: remote::Flags,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    if args.name.tag().is_some() || args.name.digest().is_some() {
        return Err(Failure::wrong(format!("{} names more than a repository", args.name))
            .hint("leave the tag and the digest out"));
    }
    let reference = remote::reference(context, &args.name)?;
    let observer = Arc::new(Transfers::new(&context.printer));
    let repository = remote::repository(context, &args.remote, &reference, observer)?;
    let tags = block_on(async { Ok(repository.tags().await?) })?;
    if args.json {
        return context.printer.json(&tags);
    }
    tags.iter().try_for_each(|tag| context.printer.result(tag))
}
