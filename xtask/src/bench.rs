//! `cargo xtask bench`: speed and memory beside a peer on the same work, in one run.

use std::process::Command;

use crate::steps::{self, Result, cargo, root, target};
use crate::tools;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    steps::run(cargo().args(["build", "--release", "--package", "mlxctl", "--package", "mlxserve"]))?;
    let python = tools::python("bench")?;
    let programs = target().join("release");
    steps::run(
        Command::new(python)
            .arg(root().join("tests/bench/serve.py"))
            .arg("--programs")
            .arg(programs)
            .args(arguments)
            .current_dir(root()),
    )
}
