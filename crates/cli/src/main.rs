//! mlxctl, the toolchain: it builds, names, moves and checks model artifacts and talks to `mlxserve`. It links no
//! inference engine, so that one small binary runs in any CI job.
//!
//! A command travels one way: clap's arguments → [`context::Context`] (settings, printer) → one function in one file
//! of [`commands`] → a result on stdout, or a [`failure::Failure`] on stderr.

mod commands;
mod context;
mod daemon;
mod failure;
mod output;
mod printer;
mod progress;
mod remote;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Builds, moves, checks and runs model artifacts.
#[derive(Parser)]
#[command(name = "mlxctl", version, about, arg_required_else_help = true, max_term_width = 100)]
struct Cli {
    /// The folder of the store and everything else that is kept [env: MLXCTL_HOME] [default: ~/.mlxctl].
    #[arg(long, global = true, value_name = "FOLDER")]
    home: Option<PathBuf>,

    /// Print results alone: no progress, no remarks.
    #[arg(short, long, global = true)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Create(commands::create::Args),
    Validate(commands::validate::Args),
    #[command(visible_alias = "ls")]
    List(commands::list::Args),
    Show(commands::show::Args),
    Tag(commands::tag::Args),
    Rm(commands::rm::Args),
    Gc(commands::gc::Args),
    Verify(commands::verify::Args),
    Push(commands::push::Args),
    Pull(commands::pull::Args),
    Registry(commands::registry::Args),
    Serve(commands::serve::Args),
    Run(commands::run::Args),
    Ps(commands::ps::Args),
    Stop(commands::stop::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = match context::Context::new(cli.home, cli.quiet) {
        Ok(context) => context,
        Err(failure) => return failure.report(),
    };
    let result = match cli.command {
        Command::Create(args) => commands::create::run(&context, &args),
        Command::Validate(args) => commands::validate::run(&context, &args),
        Command::List(args) => commands::list::run(&context, &args),
        Command::Show(args) => commands::show::run(&context, &args),
        Command::Tag(args) => commands::tag::run(&context, &args),
        Command::Rm(args) => commands::rm::run(&context, &args),
        Command::Gc(args) => commands::gc::run(&context, &args),
        Command::Verify(args) => commands::verify::run(&context, &args),
        Command::Push(args) => commands::push::run(&context, &args),
        Command::Pull(args) => commands::pull::run(&context, &args),
        Command::Registry(args) => commands::registry::run(&context, &args),
        Command::Serve(args) => commands::serve::run(&context, &args),
        Command::Run(args) => commands::run::run(&context, &args),
        Command::Ps(args) => commands::ps::run(&context, &args),
        Command::Stop(args) => commands::stop::run(&context, &args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_well_formed() {
        super::Cli::command().debug_assert();
    }
}
