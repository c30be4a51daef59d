//! A drop-in for `mlx-sys` 0.7.0 that links a prebuilt MLX on every platform; `mlx-rs` and `backend-mlx` call it.
//!
//! The published package builds MLX from source, on macOS alone. This one has its name, version and symbols, and
//! takes MLX 0.32.2 from a folder (see `build/distribution.rs`; `cargo xtask mlx` fills it). The workspace's
//! `[patch.crates-io]` puts it in the other's place, so `mlx-rs` itself is unmodified.
//!
//! All functions are mlx-c's, documented by its headers. Two rules hold for every caller: a status other than 0 is
//! an error whose text went to the handler set with [`mlx_set_error_handler`], and the handler that mlx-c starts with
//! **exits the process**, so a caller sets its own first.

#[cfg(not(target_vendor = "apple"))]
mod clock;
#[cfg(not(mlx_c_has_half))]
mod half;

// Generated code, in the style of its generator.
#[allow(unsafe_code, missing_docs, unreachable_pub, rust_2018_idioms)]
#[allow(non_camel_case_types, non_snake_case, non_upper_case_globals)]
#[allow(clippy::all, clippy::pedantic)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;
#[cfg(not(mlx_c_has_half))]
pub use half::*;
