//! The vocabulary that models are written in: operations on ragged batches, the KV pool with its block table, and
//! sampling. A device implements [`Backend`]; a model calls it; nothing here knows either of them.
//!
//! Activations are `[tokens, features]`: the tokens of all sequences of a step one after the other, without padding.
//! The [`Batch`] says which rows belong to which sequence and where its keys and values are kept.

mod batch;
mod error;
mod experts;
mod ops;
mod sampling;

#[cfg(feature = "conformance")]
pub mod conformance;

pub use batch::{Batch, BlockId, KvLayer, KvLayout, Span, TokenId};
pub use error::{Error, Result};
pub use experts::{Expert, Routes};
pub use ops::{Activation, Attention, Backend, LinearWeight, Rope};
pub use sampling::{Sampled, Sampler, Sampling, top_logprobs};
