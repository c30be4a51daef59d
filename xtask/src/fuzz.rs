//! `cargo xtask fuzz [MINUTES] [TARGET…]`: the long run over everything that parses foreign bytes. It needs a nightly
//! compiler and `cargo-fuzz`, which is installed where it is missing.

use std::path::Path;
use std::process::Command;

use crate::steps::{self, Result, root};

/// Minutes a target where nothing else is said.
const MINUTES: u64 = 10;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (minutes, chosen) = match arguments.split_first() {
        Some((first, rest)) if first.parse::<u64>().is_ok() => (first.parse().unwrap_or(MINUTES), rest),
        _ => (MINUTES, arguments),
    };
    let folder = root().join("fuzz");
    let mut known = Vec::new();
    let corpus = folder.join("corpus");
    for entry in std::fs::read_dir(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))? {
        known.push(entry.map_err(|error| error.to_string())?.file_name().to_string_lossy().into_owned());
    }
    known.sort();
    if let Some(unknown) = chosen.iter().find(|name| !known.contains(name)) {
        return Err(format!("no target {unknown:?}; there are: {}", known.join(", ")));
    }
    install()?;
    let mut build = cargo_nightly();
    steps::run(build.args(["fuzz", "build", "--fuzz-dir"]).arg(&folder).arg("any"))?;
    let program = built(&folder)?;
    for name in known.iter().filter(|name| chosen.is_empty() || chosen.contains(name)) {
        let (grown, finds) = (folder.join("grown").join(name), folder.join("artifacts").join(name));
        for folder in [&grown, &finds] {
            std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        steps::run(
            Command::new(&program)
                .arg(&grown)
                .arg(corpus.join(name))
                .arg(format!("-artifact_prefix={}/", finds.display()))
                .arg(format!("-max_total_time={}", minutes * 60))
                .args(["-max_len=65536", "-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1", "-verbosity=0"])
                .env("MLXCTL_FUZZ_TARGET", name),
        )?;
    }
    Ok(())
}

/// Cargo of the nightly toolchain: the one that runs us says otherwise in the environment.
fn cargo_nightly() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).env_remove("CARGO").env_remove("RUSTC").current_dir(root());
    command
}

fn install() -> Result<()> {
    let there = cargo_nightly().args(["fuzz", "--version"]).output().is_ok_and(|output| output.status.success());
    if there { Ok(()) } else { steps::run(cargo_nightly().args(["install", "--locked", "cargo-fuzz"])) }
}

/// Where cargo-fuzz put the harness: `target/<triple>/release/any`.
fn built(folder: &Path) -> Result<std::path::PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder.join("target"), Into::into);
    let entries = std::fs::read_dir(&target).map_err(|error| format!("{}: {error}", target.display()))?;
    let mut found = entries.flatten().map(|entry| entry.path().join("release/any")).filter(|path| path.is_file());
    found.next().ok_or_else(|| format!("cargo-fuzz built nothing under {}", target.display()))
}
