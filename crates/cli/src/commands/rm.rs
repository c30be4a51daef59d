//! `mlxctl rm`: names go; what nothing names any more goes with the next `gc`.

use mlxctl_artifact::Reference;

use crate::context::Context;
use crate::failure::Failure;

/// Remove names from the store. The space is freed by `mlxctl gc`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The names.
    #[arg(value_name = "REF", required = true)]
    names: Vec<Reference>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let store = context.store()?;
    store.remove(&args.names)?;
    for name in &args.names {
        context.printer.note(format!("removed {name}"));
    }
    Ok(())
}
