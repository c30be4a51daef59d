//! `mlxctl gc`: frees what nothing names and nobody uses.

use crate::context::Context;
use crate::failure::Failure;
use crate::output::Collected;
use crate::printer::size;

/// Remove blobs that no name refers to and no process uses.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only tell what would go.
    #[arg(long)]
    dry_run: bool,

    /// Print {blobs, bytes, dry_run} as JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let report = context.store()?.gc(args.dry_run)?;
    if args.json {
        return context.printer.json(&Collected {
            blobs: report.blobs.len(),
            bytes: report.bytes,
            dry_run: args.dry_run,
        });
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    context.printer.note(format!("{verb} {} blobs, {}", report.blobs.len(), size(report.bytes)));
    Ok(())
}
