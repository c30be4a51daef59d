//! `mlxctl validate`: checks a recipe without building it.

use std::path::PathBuf;

use crate::context::Context;
use crate::failure::Failure;

/// Check a recipe; every problem is printed as FILE:LINE:COLUMN.
///
/// Example: mlxctl validate -f ModelSpec.yaml
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The recipe.
    #[arg(short, long, value_name = "ModelSpec.yaml")]
    file: PathBuf,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let spec = super::create::read_recipe(&args.file)?;
    context.printer.note(format!("{}: {} is a valid recipe", args.file.display(), spec.name));
    Ok(())
}
