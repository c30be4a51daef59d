//! The distribution specification's own conformance suite, run against the embedded registry: a Go program that its
//! project publishes, built once and kept. It stands apart from `cargo xtask test`, because its module has no tagged
//! version, and a module proxy need not have what is not tagged.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::steps::{Result, Running, cargo, root, run, target};
use crate::tools;

/// The suite of version 1.1.1, whose module has no tags of its own.
const MODULE: &str = "github.com/opencontainers/distribution-spec/conformance@v0.0.0-20250123160558-a139cc423184";

pub(crate) fn run_task() -> Result<()> {
    run(cargo().args(["build", "--quiet", "--package", "mlxctl"]))?;
    check(&suite()?)
}

/// Builds the suite. Where a folder with its source lies under `target/specifications/conformance`, that is taken;
/// else the module is fetched.
///
/// # Errors
/// Why it cannot be had: there is no Go, or the module is out of reach.
pub(crate) fn suite() -> Result<PathBuf> {
    let program = target().join("specifications/conformance.test");
    if program.is_file() {
        return Ok(program);
    }
    let go = tools::go()?;
    let cache = target().join("go");
    let in_cache = |command: &mut Command| {
        run(command.env("GOPATH", &cache).env("GOFLAGS", "-modcacherw -buildvcs=false").env("GO111MODULE", "on"))
    };
    let mut source = target().join("specifications/conformance");
    if !source.is_dir() {
        in_cache(Command::new(&go).args(["mod", "download", MODULE]).current_dir(root()))?;
        source = cache.join("pkg/mod").join(MODULE);
    }
    let fresh = program.with_extension("part");
    in_cache(Command::new(&go).args(["test", "-c", "-o"]).arg(&fresh).arg(".").current_dir(&source))?;
    std::fs::rename(&fresh, &program).map_err(|error| format!("{}: {error}", program.display()))?;
    Ok(program)
}

/// Runs all four workflows of the suite against `mlxctl registry serve` over an empty store.
pub(crate) fn check(suite: &Path) -> Result<()> {
    let home = target().join("conformance");
    // What an earlier run left; the folder may not be there.
    let _ = std::fs::remove_dir_all(&home);
    std::fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    let mut registry = Running::start(
        Command::new(target().join("debug/mlxctl"))
            .args(["--quiet", "registry", "serve", "--listen", "127.0.0.1:0"])
            .env("MLXCTL_HOME", &home)
            .stdout(Stdio::piped()),
    )?;
    let stdout = registry.child().stdout.take().ok_or("the registry has no stdout")?;
    let mut address = String::new();
    BufReader::new(stdout).read_line(&mut address).map_err(|error| format!("the registry: {error}"))?;
    let mut suite = Command::new(suite);
    suite.current_dir(&home).env("OCI_ROOT_URL", address.trim()).env("OCI_REPORT_DIR", &home);
    suite.env("OCI_NAMESPACE", "org/one").env("OCI_CROSSMOUNT_NAMESPACE", "org/two");
    for workflow in ["PULL", "PUSH", "CONTENT_DISCOVERY", "CONTENT_MANAGEMENT"] {
        suite.env(format!("OCI_TEST_{workflow}"), "1");
    }
    run(suite.env("OCI_HIDE_SKIPPED_WORKFLOWS", "0").stdout(Stdio::null()))
        .map_err(|error| format!("{error}; see {}", home.join("report.html").display()))
}
