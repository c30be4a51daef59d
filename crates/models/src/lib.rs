//! Model architectures, generic over the backend. The engine hands [`load`] a `config.json` and a checkpoint and gets
//! a [`Model`], which computes logits of ragged batches.
//!
//! One family, one file: it reads its configuration and says what its layers are made of. The layers themselves are
//! shared ([`decoder`]), as are the mounting of weights and the frequencies of the rotary embedding.

mod config;
mod decoder;
mod error;
mod llama;
mod model;
mod mount;
mod qwen3;
mod rope;

pub use error::Error;
pub use model::{Details, Model, families, load};
