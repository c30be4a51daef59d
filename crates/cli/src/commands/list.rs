//! `mlxctl list`: what the store holds.

use mlxctl_artifact::Manifest;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Listed;
use crate::printer::{size, table};

/// List the artifacts in the store.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Print an array of {name, digest, size} as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let store = context.store()?;
    let listing = store.list()?;
    for problem in &listing.problems {
        context.printer.note(format!("note: {problem}"));
    }
    let mut artifacts = Vec::new();
    for (name, descriptor) in &listing.names {
        // An artifact whose manifest is damaged is listed all the same: `verify` tells what is wrong with it.
        let total = store.manifest(descriptor).map(|(_, manifest)| total(&manifest));
        artifacts.push(Listed {
            name: name.to_string(),
            digest: descriptor.digest.to_string(),
            size: total.unwrap_or(descriptor.size),
        });
    }
    if args.json {
        return context.printer.json(&artifacts);
    }
    let mut rows = vec![["NAME", "DIGEST", "SIZE"].map(str::to_owned).to_vec()];
    rows.extend(artifacts.iter().map(|one| vec![one.name.clone(), one.digest[..19].to_owned(), size(one.size)]));
    context.printer.result(table(&rows))
}

/// Bytes of an artifact's configuration and layers.
pub(crate) fn total(manifest: &Manifest) -> u64 {
    manifest.blobs().map(|blob| blob.size).fold(0, u64::saturating_add)
}
