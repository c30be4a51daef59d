//! Lets this crate's tests find the MLX library that `mlx-sys` linked; a program that links this crate does the same.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Set by the build script of mlx-sys, which fails where there is no MLX.
    if let Some(folder) = env::var_os("DEP_MLX_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", folder.display());
    }
}
