//! Finds the prebuilt MLX: the folder into which `cargo xtask mlx` unpacked one of MLX's own Python packages.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// Names the folder that holds `mlx/lib` and `mlx/include`, where it is not the default one.
const MLX_DIST: &str = "MLX_DIST";

/// The version of MLX whose headers the mlx-c of mlx-sys 0.7.0 was written against.
const VERSION: [u32; 3] = [0, 32, 2];

/// A prebuilt MLX on this disk.
pub(crate) struct Distribution {
    /// The folder of `libmlx.so` or `libmlx.dylib`.
    pub(crate) library: PathBuf,
    /// The folder under which the headers are `mlx/…`.
    pub(crate) include: PathBuf,
}

impl Distribution {
    /// The distribution that `MLX_DIST` names, else the one in the workspace's own `target` folder.
    pub(crate) fn find() -> Result<Self, String> {
        println!("cargo::rerun-if-env-changed={MLX_DIST}");
        let root = match env::var_os(MLX_DIST) {
            Some(named) => PathBuf::from(named),
            None => default_root()?,
        };
        let library = root.join("mlx/lib");
        let include = root.join("mlx/include");
        let binary = library.join(library_name());
        let version = include.join("mlx/version.h");
        for needed in [&binary, &version] {
            // A file that appears later must bring this script back.
            println!("cargo::rerun-if-changed={}", needed.display());
            if !needed.is_file() {
                return Err(format!(
                    "no prebuilt MLX: {} is not there; run `cargo xtask mlx`, which fetches MLX and builds with it, \
                     or set {MLX_DIST} to a folder that holds `mlx/lib` and `mlx/include`",
                    needed.display()
                ));
            }
        }
        check_version(&version)?;
        Ok(Self { library, include })
    }
}

/// `target/mlx/dist/<variant>` of the workspace, where `cargo xtask mlx` puts what it fetches by default.
fn default_root() -> Result<PathBuf, String> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR").ok_or("Cargo did not set CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&manifest).ancestors().nth(2).ok_or("this package lies outside its workspace")?;
    let variant = if target_is("macos") { "metal" } else { "cpu" };
    Ok(workspace.join("target/mlx/dist").join(variant))
}

fn library_name() -> &'static str {
    if target_is("macos") { "libmlx.dylib" } else { "libmlx.so" }
}

/// True when the crate is compiled for operating system `os`.
pub(crate) fn target_is(os: &str) -> bool {
    env::var("CARGO_CFG_TARGET_OS").is_ok_and(|target| target == os)
}

/// Holds the header's three version numbers against [`VERSION`].
fn check_version(header: &Path) -> Result<(), String> {
    let text = fs::read_to_string(header).map_err(|error| format!("cannot read {}: {error}", header.display()))?;
    let number = |name: &str| -> Option<u32> {
        text.lines().find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name)?.trim().parse().ok())
    };
    let found = [number("MLX_VERSION_MAJOR"), number("MLX_VERSION_MINOR"), number("MLX_VERSION_PATCH")];
    if found == VERSION.map(Some) {
        return Ok(());
    }
    let shown = found.map(|part| part.map_or_else(|| "?".to_owned(), |part| part.to_string())).join(".");
    let wanted = VERSION.map(|part| part.to_string()).join(".");
    Err(format!("{} is of MLX {shown}, and MLX {wanted} is needed; run `cargo xtask mlx`", header.display()))
}
