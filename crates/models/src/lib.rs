//! Model architectures, generic over the backend. The engine hands [`load`] a `config.json` and a checkpoint and gets
//! a [`Model`], which computes logits of ragged batches.
//!
//! One family, one file: it reads its configuration and says what its layers are made of. The layers themselves are
//! shared ([`decoder`], [`attention`], [`mlp`], [`norm`]), as are the mounting of weights and the frequencies of the
//! rotary embedding.

mod attention;
mod cohere;
mod config;
mod decoder;
mod error;
mod gemma;
mod glm4;
mod granite;
mod llama;
mod mixtral;
mod mlp;
mod model;
mod mount;
mod norm;
mod olmo;
mod phi3;
mod qwen2;
mod qwen3;
mod rope;
mod shape;
mod smollm3;
mod starcoder2;
mod wrapped;

pub use error::Error;
pub use model::{Details, Model, families, load};
