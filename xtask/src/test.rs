//! `cargo xtask test`: every check and test. What a test needs beside Rust and a C compiler is installed here; what
//! cannot be had is skipped with its reason, and in CI a skip is a failure.

use std::process::Command;
use std::time::Instant;

use crate::steps::{self, Result, cargo};
use crate::tools;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        return Err(format!("`cargo xtask test` takes no arguments, got {arguments:?}; use `cargo test` for a part"));
    }
    let start = Instant::now();
    let mut skipped: Vec<String> = Vec::new();

    for (component, check) in [
        ("rustfmt", &["fmt", "--all", "--check"][..]),
        ("clippy", &["clippy", "--quiet", "--all-targets", "--", "--deny", "warnings"][..]),
    ] {
        if has_component(check[0]) {
            steps::run(cargo().args(check))?;
        } else {
            skipped.push(format!("{component}: the component is not installed (rustup component add {component})"));
        }
    }

    let mut command = cargo();
    command.args(["test", "--quiet"]);
    // The tests look for these by name and say so where they are missing.
    match tools::debian(&[("docker-registry", "docker-registry"), ("skopeo", "skopeo")]) {
        Ok(()) => {}
        Err(reason) => skipped.push(format!("tests against a real registry: {reason}")),
    }
    match tools::python("test") {
        Ok(python) => {
            command.env("MLXCTL_TEST_PYTHON", python);
        }
        Err(reason) => skipped.push(format!("tests with Python clients and references: {reason}")),
    }
    match tools::schemas() {
        Ok(folder) => {
            command.env("MLXCTL_TEST_SCHEMAS", folder);
        }
        Err(reason) => skipped.push(format!("tests against the specifications' schemas: {reason}")),
    }
    steps::run(cargo().args(["build", "--quiet", "--package", "mlxctl", "--package", "mlxserve"]))?;
    steps::run(&mut command)?;

    for reason in &skipped {
        eprintln!("skipped: {reason}");
    }
    if tools::in_ci() && !skipped.is_empty() {
        return Err(format!("{} parts were skipped, and in CI a skip is a failure", skipped.len()));
    }
    eprintln!("all passed in {} s", start.elapsed().as_secs());
    Ok(())
}

/// Whether a cargo subcommand can be run.
fn has_component(subcommand: &str) -> bool {
    let mut command: Command = cargo();
    command.args([subcommand, "--version"]).output().is_ok_and(|output| output.status.success())
}
