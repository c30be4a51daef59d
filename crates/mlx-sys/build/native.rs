//! Compiles mlx-c, and describes its functions to Rust.

use std::env;
use std::fs;
use std::panic;
use std::path::{Path, PathBuf};

use crate::distribution::Distribution;

/// Compiles mlx-c and our own additions in `native/` into one static library, and tells Cargo to link it.
///
/// mlx-c's CMake project is not used: it asks for MLX's CMake package, which for CUDA wants the whole CUDA toolkit
/// installed, though mlx-c includes none of its headers.
pub(crate) fn compile(mlx: &Distribution, mlx_c: &Path) -> Result<(), String> {
    let mut build = cc::Build::new();
    build.cpp(true).std("c++20").warnings(false).cargo_metadata(true);
    build.include(mlx_c).include(&mlx.include);
    build.flag("-include").flag("native/format.h");
    build.files(files(mlx_c, "cpp")?).file("native/half.cpp");
    build
        .try_compile("mlxc")
        .map_err(|error| format!("mlx-c does not compile; a C++20 compiler such as GCC 12 is needed: {error}"))
}

/// Writes `bindings.rs`, and says through the cfg `mlx_c_has_half` whether mlx-c declares its half types here.
pub(crate) fn bind(mlx_c: &Path) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");
    println!("cargo::rerun-if-env-changed=BINDGEN_EXTRA_CLANG_ARGS");
    println!("cargo::rustc-check-cfg=cfg(mlx_c_has_half)");
    let mut builder = bindgen::Builder::default()
        .clang_arg(format!("-I{}", mlx_c.display()))
        .allowlist_item("_?mlx_.*|float16_t|bfloat16_t")
        .generate_comments(false);
    for header in files(mlx_c, "h")? {
        builder = builder.header(header.to_string_lossy());
    }
    let bindings = generate(builder)?.to_string();
    if bindings.contains("type float16_t") {
        println!("cargo::rustc-cfg=mlx_c_has_half");
    }
    let out = env::var_os("OUT_DIR").ok_or("Cargo did not set OUT_DIR")?;
    let path = Path::new(&out).join("bindings.rs");
    fs::write(&path, bindings).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Runs bindgen, which panics instead of failing where it finds no libclang.
fn generate(builder: bindgen::Builder) -> Result<bindgen::Bindings, String> {
    let loud = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let generated = panic::catch_unwind(panic::AssertUnwindSafe(|| builder.generate()));
    panic::set_hook(loud);
    match generated {
        Ok(result) => result.map_err(|error| format!("the headers of mlx-c cannot be read: {error}")),
        Err(payload) => {
            let said = payload.downcast_ref::<String>().map_or("it gave no reason", String::as_str);
            Err(format!(
                "bindgen cannot read the headers of mlx-c; where libclang is missing, install it (Debian: libclang-dev), \
                 set LIBCLANG_PATH to its folder, or run `cargo xtask mlx`, which fetches it: {said}"
            ))
        }
    }
}

/// The files of mlx-c with `extension`, in order of name so that a build is the same on every machine.
fn files(mlx_c: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let folder = mlx_c.join("mlx/c");
    let unreadable = |error| format!("cannot read {}: {error}", folder.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(&folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
