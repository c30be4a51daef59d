//! `mlxctl logout`: forgets what is kept for a registry.

use mlxctl_registry::DockerConfig;

use crate::context::{Context, block_on};
use crate::failure::Failure;
use crate::remote;

/// Forget the credentials of a registry.
///
/// Example: mlxctl logout ghcr.io
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The registry: a host with an optional port.
    #[arg(value_name = "REGISTRY")]
    registry: String,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let registry = remote::registry_name(&args.registry)?;
    let Some(path) = &context.settings.docker_config else { return Ok(()) };
    let erased = block_on(async { Ok(DockerConfig::new(path).erase(&registry).await?) })?;
    context.printer.note(if erased {
        format!("logged out of {registry}")
    } else {
        format!("nothing was kept for {registry}")
    });
    Ok(())
}
