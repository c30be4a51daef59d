//! Finds the sources of mlx-c: they travel inside the published `mlx-sys` package that this crate stands in for.
//!
//! The workspace replaces that package, so Cargo is asked through a manifest outside the workspace, to which the
//! replacement does not apply. Nothing of the published package is compiled but the C++ of mlx-c.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Asks for exactly the package this one replaces; its own `[workspace]` keeps it apart from ours.
const MANIFEST: &str = r#"[package]
name = "mlx-c-source"
version = "0.0.0"
edition = "2021"

[workspace]

[lib]
path = "lib.rs"

[dependencies]
mlx-sys = { version = "=0.7.0", default-features = false }
"#;

/// The folder of mlx-c, which holds `mlx/c/*.cpp` and `mlx/c/*.h`.
pub(crate) fn find() -> Result<PathBuf, String> {
    let out = env::var_os("OUT_DIR").ok_or("Cargo did not set OUT_DIR")?;
    let folder = Path::new(&out).join("mlx-c-source");
    let manifest = folder.join("Cargo.toml");
    let written = fs::create_dir_all(&folder)
        .and_then(|()| fs::write(&manifest, MANIFEST))
        .and_then(|()| fs::write(folder.join("lib.rs"), ""));
    written.map_err(|error| format!("cannot write {}: {error}", manifest.display()))?;

    // Offline first: the package is on disk on every build but the first.
    let metadata = metadata(&manifest, true).or_else(|_| metadata(&manifest, false))?;
    let root = package_root(&metadata).ok_or("`cargo metadata` names no package mlx-sys 0.7.0")?;
    let mlx_c = root.join("src/mlx-c");
    if mlx_c.join("mlx/c/mlx.h").is_file() {
        Ok(mlx_c)
    } else {
        Err(format!("the published mlx-sys 0.7.0 at {} holds no src/mlx-c", root.display()))
    }
}

fn metadata(manifest: &Path, offline: bool) -> Result<serde_json::Value, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["metadata", "--format-version=1", "--quiet", "--manifest-path"]).arg(manifest);
    if let Ok(host) = env::var("HOST") {
        command.args(["--filter-platform", &host]);
    }
    if offline {
        command.arg("--offline");
    }
    let output = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("cargo cannot fetch the published mlx-sys 0.7.0, which holds mlx-c: {}", said.trim()));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| format!("`cargo metadata` printed no JSON: {error}"))
}

/// The folder in which the published package was unpacked.
fn package_root(metadata: &serde_json::Value) -> Option<PathBuf> {
    let packages = metadata["packages"].as_array()?;
    let published = packages.iter().find(|package| package["name"] == "mlx-sys" && package["version"] == "0.7.0")?;
    Path::new(published["manifest_path"].as_str()?).parent().map(Path::to_path_buf)
}
