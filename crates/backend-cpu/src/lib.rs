//! The vocabulary of operations on a CPU, over mapped weights. The engine makes one [`CpuBackend`] for its thread and
//! hands it to the models.
//!
//! Activations are f32; weights stay in their file's bytes, in MLX's layout and at any alignment, and are widened a
//! few rows at a time. Every number is computed by one fixed sequence of operations that depends on its own row and
//! position alone, so a result is the same to the bit alone, in a batch, in any chunking of a prompt, and on any
//! number of threads.
//!
//! Inner loops live in `kernels/`, one idea a file, written so that the compiler vectorises them; each is compiled
//! once for the baseline of the target and once for what the processor may have more ([`InstructionSet`]). The
//! products of linear layers are written in intrinsics besides; `docs/kernels.md` has their layouts and figures.

// The bodies of kernels must be inlined into the functions that have the instructions.
#![allow(clippy::inline_always)]

mod activations;
mod aligned;
mod backend;
mod instruction_set;
mod kernels;
mod kv;
mod pool;
mod products;
mod scatter;
mod weight;

pub use activations::Activations;
pub use backend::CpuBackend;
pub use instruction_set::InstructionSet;
pub use kv::{KvPool, KvType};
pub use weight::{Linear, Vector};
