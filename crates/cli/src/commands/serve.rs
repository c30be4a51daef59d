//! `mlxctl serve`: `mlxserve` in the foreground.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use crate::context::Context;
use crate::daemon;
use crate::failure::Failure;

/// Serve artifacts in the foreground: runs `mlxserve` with the same arguments.
///
/// Example: mlxctl serve pebble --port 8081
#[derive(clap::Args)]
pub(crate) struct Args {
    /// References and flags of mlxserve; `mlxserve --help` lists them.
    #[arg(value_name = "REF", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let program = daemon::program()?;
    let mut command = std::process::Command::new(&program);
    command.arg("--home").arg(&context.settings.home).args(&args.arguments);
    Err(Failure::new(format!("{}: {}", program.display(), command.exec())))
}
