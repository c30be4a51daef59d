//! The binary `mlxserve`: reads its flags and hands them to the library.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    mlxserve::run(mlxserve::options::Command::parse())
}
