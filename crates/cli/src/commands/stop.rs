//! `mlxctl stop`: a model leaves the daemon's memory.

use futures_util::StreamExt as _;
use mlxctl_artifact::Reference;

use crate::context::{Context, block_on};
use crate::daemon;
use crate::failure::Failure;

/// Unload a model from the daemon.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model.
    #[arg(value_name = "REF")]
    name: Reference,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    block_on(async {
        let Some(client) = daemon::find(context).await else {
            return Err(Failure::new("no daemon runs").hint("`mlxctl serve` or `mlxctl run` starts one"));
        };
        let mut pieces = client.generate(&super::run::unload(&args.name)).await?;
        while let Some(piece) = pieces.next().await {
            piece?;
        }
        context.printer.note(format!("stopped {}", args.name));
        Ok(())
    })
}
