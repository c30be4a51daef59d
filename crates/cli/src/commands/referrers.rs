//! `mlxctl referrers`: what a registry holds about an artifact: signatures, provenance, bills of materials.

use std::sync::Arc;

use mlxctl_artifact::Reference;
use mlxctl_content::{Referrers as _, Resolve as _};

use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::output::Referring;
use crate::printer::{size, table};
use crate::progress::Transfers;
use crate::remote;

/// List what a registry holds about an artifact: signatures, provenance, bills of materials.
///
/// Example: mlxctl referrers ghcr.io/org/pebble:1.0.0
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifact.
    #[arg(value_name = "REF")]
    name: Reference,

    /// List those of this type of artifact alone.
    #[arg(long = "type", value_name = "TYPE")]
    artifact_type: Option<String>,

    /// Print an array as JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    remote: remote::Flags,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let reference = remote::reference(context, &args.name)?;
    let observer = Arc::new(Transfers::new(&context.printer));
    let repository = remote::repository(context, &args.remote, &reference, observer)?;
    let found = block_on(async {
        let digest = match reference.digest() {
            Some(digest) => digest,
            None => repository.resolve(reference.tag_or_latest()).await?.digest,
        };
        Ok(repository.referrers(&digest, args.artifact_type.as_deref()).await?)
    })?;
    let found: Vec<Referring> = found.iter().map(Referring::of).collect();
    if args.json {
        return context.printer.json(&found);
    }
    let mut rows = vec![["DIGEST", "SIZE", "TYPE"].map(str::to_owned).to_vec()];
    rows.extend(found.iter().map(|one| {
        // A remote wrote this: nothing in it may move the cursor.
        let kind = one.artifact_type.as_deref().unwrap_or("-").chars().filter(|c| !c.is_control()).take(100).collect();
        vec![one.digest.clone(), size(one.size), kind]
    }));
    context.printer.result(table(&rows))
}
