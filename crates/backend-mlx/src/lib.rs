//! The vocabulary of operations over MLX: Metal on Apple silicon, CUDA and the CPU on Linux.
//!
//! [`Mlx`] implements [`mlxctl_backend::Backend`] with unmodified `mlx-rs`; the engine opens one on the thread that
//! owns the device, and models run on it as they do on any other. Operations only describe a graph: MLX computes when
//! a result is asked for ([`mlxctl_backend::Backend::to_host`]).
//!
//! `unsafe` stands in two places: `device` asks MLX what `mlx-rs` has no question for, and `lend` lends it the bytes
//! of a mapped file.

mod attention;
mod device;
mod lend;
mod mount;
mod operations;

pub use attention::KvPool;
pub use device::{Device, Mlx, Options, Precision};
pub use mount::{Linear, Vector};
