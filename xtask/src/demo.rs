//! `cargo xtask demo`: the main job, once, as a person would do it: a recipe becomes an artifact, travels through a
//! registry into an empty home, and comes back as a model that answers, pinned by digest.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::steps::{self, Result, Running, cargo, output, root, target};

pub(crate) fn run() -> Result<()> {
    let start = Instant::now();
    steps::run(cargo().args(["build", "--profile", "demo", "--package", "mlxctl", "--package", "mlxserve"]))?;
    let built = start.elapsed().as_secs();
    let programs = target().join("demo");
    let folder = target().join("demo-homes");
    let _ = std::fs::remove_dir_all(&folder);
    let (maker, reader) = (folder.join("maker"), folder.join("reader"));
    for home in [&maker, &reader] {
        std::fs::create_dir_all(home).map_err(|error| format!("{}: {error}", home.display()))?;
    }
    let mlxctl = |home: &Path| {
        let mut command = Command::new(programs.join("mlxctl"));
        command.current_dir(root()).env("MLXCTL_HOME", home);
        for variable in ["MLX_HOST", "MLX_PORT", "MLXCTL_REGISTRY"] {
            command.env_remove(variable);
        }
        command
    };

    eprintln!("\n# A recipe becomes an artifact in the maker's store.");
    let created = output(mlxctl(&maker).args(["create", "-f", "modelspecs/pebble/ModelSpec.yaml"]))?;
    let (name, digest) = created.split_once('@').ok_or_else(|| format!("create printed no digest: {created}"))?;
    steps::run(mlxctl(&maker).args(["show", name]))?;

    eprintln!("\n# It travels through a registry: the embedded one, over a store of its own.");
    let registry_home = folder.join("registry");
    let mut serving = mlxctl(&registry_home);
    serving.args(["registry", "serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut registry = Running::start(&mut serving)?;
    let address = first_line(&mut registry)?;
    let address = address.trim().trim_start_matches("http://").to_owned();
    let remote = format!("{address}/demo/{name}");
    steps::run(mlxctl(&maker).args(["push", name, &remote]))?;

    eprintln!("\n# Another home, empty, pulls it by digest: the same bytes.");
    let repository = format!("{address}/demo/{}", name.split(':').next().unwrap_or(name));
    let pulled = output(mlxctl(&reader).args(["pull", &format!("{repository}@{digest}"), "--as", name]))?;
    if pulled.trim() != digest {
        return Err(format!("pulled {pulled}, but {digest} was made"));
    }
    steps::run(mlxctl(&reader).args(["verify", name]))?;

    eprintln!("\n# The digest is mounted and answers.");
    let mut serving = Command::new(programs.join("mlxserve"));
    serving.arg("--home").arg(&reader).args(["--port", "0", "--offline", &format!("{name}@{digest}")]);
    let mut server = Running::start(serving.current_dir(root()).stdout(Stdio::piped()))?;
    let address = first_line(&mut server)?;
    let answer = output(mlxctl(&reader).args(["run", &format!("{name}@{digest}"), "What is the capital of France?"]))?;
    if !answer.contains("Paris") {
        return Err(format!("expected an answer that names Paris, got {answer:?}"));
    }
    output(mlxctl(&reader).arg("ps"))?;
    eprintln!(
        "\nServed {digest} at {}: built in {built} s, walked in {} s.",
        address.trim(),
        start.elapsed().as_secs() - built
    );
    Ok(())
}

/// The line by which a server says where it listens.
fn first_line(server: &mut Running) -> Result<String> {
    let stdout = server.child().stdout.take().ok_or("the server's stdout is not piped")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line).map_err(|error| format!("the server said nothing: {error}"))?;
    if line.is_empty() { Err("the server ended before it listened".to_owned()) } else { Ok(line) }
}
