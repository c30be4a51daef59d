//! Weights as they lie in files: safetensors views over mapped bytes, the quantisation formats of MLX with their
//! quantisers, dtype casts, and a writer of deterministic files.
//!
//! The runtime maps blobs, opens them as a [`Checkpoint`] and hands its borrowed tensors to a backend; the builder
//! reads a checkpoint, casts or quantises it, and writes it anew through a
//! [`SafetensorsWriter`]. Nothing here does I/O of its own, and nothing copies a weight it can borrow.

mod affine;
mod cast;
mod checkpoint;
mod dtype;
mod error;
mod matrix;
mod microscaling;
mod quantization;
mod reader;
mod shards;
mod writer;

pub use affine::{Affine, dequantize_affine, quantize_affine};
pub use cast::{cast, cast_into, cast_tensor};
pub use checkpoint::Checkpoint;
pub use dtype::Dtype;
pub use error::{Error, Place};
pub use matrix::{MatrixView, QuantizedTensors, QuantizedView, dequantize, quantize};
pub use quantization::{Mode, Quantization, QuantizationConfig};
pub use reader::{MAX_HEADER_BYTES, MAX_RANK, MAX_TENSORS, SafeTensors, Tensor, read_safetensors};
pub use shards::{Shard, ShardPlan, plan_shards};
pub use writer::{Layout, SafetensorsWriter, TensorSpec};
