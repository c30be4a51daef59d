//! `cargo xtask bench`: speed and memory beside a peer on the same work, in one run.

use std::process::Command;

use crate::steps::{self, Result, cargo, root, target};
use crate::tools;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if let Some(("transfer", rest)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return transfer(rest);
    }
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

/// Pull and push beside other tools and the floor.
fn transfer(arguments: &[String]) -> Result<()> {
    tools::debian(&[("docker-registry", "docker-registry"), ("skopeo", "skopeo"), ("curl", "curl")])?;
    steps::run(cargo().args(["build", "--release", "--package", "mlxctl"]))?;
    let mut bench = Command::new("python3");
    bench.arg(root().join("tests/bench/transfer.py")).arg("--programs").arg(target().join("release"));
    match oras() {
        Ok(folder) => drop(bench.arg("--tools").arg(folder)),
        Err(reason) => eprintln!("oras is left out: {reason}"),
    }
    steps::run(bench.args(arguments).current_dir(root()))
}

/// The module of the tool beside which we are measured.
const ORAS: &str = "oras.land/oras@v1.2.3";

/// Builds oras once and gives the folder it lies in.
fn oras() -> Result<std::path::PathBuf> {
    let folder = target().join("go-tools");
    let program = folder.join("oras");
    if program.is_file() {
        return Ok(folder);
    }
    let (go, cache) = (tools::go()?, target().join("go"));
    let in_cache = |command: &mut Command| {
        steps::run(command.env("GOPATH", &cache).env("GOFLAGS", "-modcacherw -buildvcs=false").env("GO111MODULE", "on"))
    };
    in_cache(Command::new(&go).args(["mod", "download", ORAS]).current_dir(root()))?;
    let source = cache.join("pkg/mod").join(ORAS);
    in_cache(Command::new(&go).args(["build", "-o"]).arg(&program).arg("./cmd/oras").current_dir(source))?;
    Ok(folder)
}
