//! Builds mlx-c against a prebuilt MLX and writes the bindings to it.
//!
//! Cargo runs this when something that depends on `mlx-rs` is built: `backend-mlx`, by way of `cargo xtask mlx`.
//! Three steps, a file each: [`distribution`] finds MLX, [`source`] finds the C++ of mlx-c, and [`native`] compiles
//! the one against the other and describes the result to Rust. What cannot be done ends the build with one sentence.

mod distribution;
mod native;
mod source;

use distribution::Distribution;

fn main() {
    if let Err(reason) = build() {
        // One line, whatever its origin: Cargo shows each such line as an error of this package.
        println!("cargo::error={}", reason.replace('\n', " "));
        std::process::exit(1);
    }
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=native");
    let mlx = Distribution::find()?;
    let mlx_c = source::find()?;
    native::compile(&mlx, &mlx_c)?;
    native::bind(&mlx_c)?;

    println!("cargo::rustc-link-search=native={}", mlx.library.display());
    println!("cargo::rustc-link-lib=dylib=mlx");
    // Read by dependents as DEP_MLX_LIB (for an rpath) and DEP_MLX_INCLUDE.
    println!("cargo::metadata=lib={}", mlx.library.display());
    println!("cargo::metadata=include={}", mlx.include.display());
    Ok(())
}
