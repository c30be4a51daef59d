//! The operations a device offers. A device implements the small ones; the fused ones are composed of them here, and
//! a device overrides what it can fuse.

use mlxctl_weights::{Quantization, Tensor};

use crate::experts::run_one_by_one;
use crate::{Batch, Error, Expert, KvLayout, Result, Routes, TokenId};

/// The weight of a linear layer or an embedding as the file holds it, `[out, in]`; borrowed from the mapped blob.
#[derive(Debug, Clone)]
pub enum LinearWeight {
    /// Floating point, `[out, in]`.
    Dense(Tensor),
    /// Packed codes with a scale and a bias a group, in MLX's layout.
    Quantized {
        /// Codes, u32 `[out, in · bits / 32]`.
        weight: Tensor,
        /// Scales, `[out, in / group_size]`.
        scales: Tensor,
        /// Biases, the same shape; none in the microscaling modes.
        biases: Option<Tensor>,
        /// Mode, bits and group size.
        quantization: Quantization,
    },
}

/// The rotation of queries and keys by their position (RoPE), as a model configures it.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Features of a head.
    pub head_dim: usize,
    /// Angle in radians that one position adds, for each of the rotated pairs; `2 · len` features are rotated, the
    /// rest of the head passes unchanged.
    pub inverse_frequencies: Vec<f32>,
    /// Pairs are neighbours `(2i, 2i+1)` rather than halves `(i, i+n)`.
    pub interleaved: bool,
    /// Factor on the rotated features (YaRN, LongRoPE); 1 where there is none.
    pub magnitude: f32,
}

/// How a layer attends.
#[derive(Debug, Clone, PartialEq)]
pub struct Attention {
    /// Index of the layer in the pool's [`KvLayout`].
    pub layer: usize,
    /// Query heads; a multiple of the layer's key heads.
    pub heads: usize,
    /// Factor on the scores, mostly `head_dim^-0.5`.
    pub scale: f32,
    /// A token sees itself and the `window - 1` tokens before it; all of them where there is none.
    pub window: Option<usize>,
    /// Scores become `cap · tanh(score / cap)`.
    pub soft_cap: Option<f32>,
}

/// The non-linearity of a gated MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// `x · Φ(x)`.
    Gelu,
    /// The tanh approximation of GELU.
    GeluTanh,
}

/// A device. One thread owns it; nothing of it needs to be `Send`.
///
/// `Tensor` is an activation `[rows, features]`, cheap to clone. Shapes are the caller's duty: a model checks its
/// weights when it is loaded, so an operation on what it loaded fails only where the device fails.
#[allow(clippy::wrong_self_convention, reason = "`from_host` moves data, `self` is the device")]
pub trait Backend: 'static {
    /// Activations, `[rows, features]`.
    type Tensor: Clone;
    /// A linear layer's or an embedding's weight, mounted.
    type Linear;
    /// A vector of parameters: a norm's weight, a bias.
    type Vector;
    /// The pool of keys and values.
    type Kv;

    /// What `system_fingerprint` says of this device: name, instruction set, kernel revision.
    fn fingerprint(&self) -> String;

    /// Mounts a weight, without copying it where the device can borrow it. `bias`, `[out]`, is added to the product.
    fn mount_linear(&self, weight: LinearWeight, bias: Option<Tensor>) -> Result<Self::Linear>;

    /// Mounts a vector of parameters; `offset` is added to each (Gemma's norms keep `weight - 1`).
    fn mount_vector(&self, tensor: &Tensor, offset: f32) -> Result<Self::Vector>;

    /// Makes room for `blocks` blocks of keys and values.
    fn kv_pool(&self, layout: &KvLayout, blocks: usize) -> Result<Self::Kv>;

    /// Activations from the host, row-major, `data.len() / features` rows.
    fn from_host(&self, data: &[f32], features: usize) -> Result<Self::Tensor>;

    /// Activations to the host, row-major. Waits for the device.
    fn to_host(&self, x: &Self::Tensor) -> Result<Vec<f32>>;

    /// The rows of an embedding, `[tokens, in]`.
    fn embed(&self, table: &Self::Linear, tokens: &[TokenId]) -> Result<Self::Tensor>;

    /// `x · weightᵀ + bias`, `[rows, out]`.
    fn linear(&self, x: &Self::Tensor, weight: &Self::Linear) -> Result<Self::Tensor>;

    /// Each run of `weight`'s length within a row is divided by its root mean square (statistics in f32) and
    /// multiplied by `weight`: a whole row for a layer norm, one head at a time for query and key norms.
    fn rms_norm(&self, x: &Self::Tensor, weight: &Self::Vector, epsilon: f32) -> Result<Self::Tensor>;

    /// Rotates every head of every row by its position in the batch.
    fn rope(&self, x: &Self::Tensor, rope: &Rope, batch: &Batch) -> Result<Self::Tensor>;

    /// Stores the keys and values of the batch in the pool, then attends causally over what the pool holds of each
    /// sequence. `q` is `[rows, heads · key_dim]`; the result `[rows, heads · value_dim]`.
    fn attention(
        &self,
        q: &Self::Tensor,
        k: &Self::Tensor,
        v: &Self::Tensor,
        batch: &Batch,
        kv: &mut Self::Kv,
        attention: &Attention,
    ) -> Result<Self::Tensor>;

    /// Element by element, equal shapes.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// `x · factor`.
    fn scale(&self, x: &Self::Tensor, factor: f32) -> Result<Self::Tensor>;

    /// `activation(gate) · up`, element by element.
    fn gate(&self, gate: &Self::Tensor, up: &Self::Tensor, activation: Activation) -> Result<Self::Tensor>;

    /// These rows, in this order.
    fn rows(&self, x: &Self::Tensor, rows: &[usize]) -> Result<Self::Tensor>;

    /// Each row less its mean, divided by its standard deviation (statistics in f32), times `weight`, plus `bias`.
    fn layer_norm(
        &self,
        _x: &Self::Tensor,
        _weight: &Self::Vector,
        _bias: Option<&Self::Vector>,
        _epsilon: f32,
    ) -> Result<Self::Tensor> {
        Err(self.has_no("layer_norm"))
    }

    /// `activation(x)`, element by element: the middle of an MLP without a gate.
    fn activate(&self, _x: &Self::Tensor, _activation: Activation) -> Result<Self::Tensor> {
        Err(self.has_no("activate"))
    }

    /// `cap · tanh(x / cap)`, element by element.
    fn soft_cap(&self, _x: &Self::Tensor, _cap: f32) -> Result<Self::Tensor> {
        Err(self.has_no("soft_cap"))
    }

    /// The sum of the experts' answers to each row, weighted as `routes` says; rows without an expert are 0.
    fn experts(
        &self,
        x: &Self::Tensor,
        experts: &[Expert<Self::Linear>],
        routes: &Routes,
        activation: Activation,
    ) -> Result<Self::Tensor> {
        run_one_by_one(self, x, experts, routes, activation)
    }

    /// The error of an operation that this device does not offer.
    fn has_no(&self, operation: &'static str) -> Error {
        Error::Unsupported {
            operation,
            expected: "a device that has this operation".to_owned(),
            found: self.fingerprint(),
        }
    }

    /// `(x + delta, rms_norm(x + delta))`: the step between two blocks of a transformer.
    fn add_rms_norm(
        &self,
        x: &Self::Tensor,
        delta: &Self::Tensor,
        weight: &Self::Vector,
        epsilon: f32,
    ) -> Result<(Self::Tensor, Self::Tensor)> {
        let sum = self.add(x, delta)?;
        let normed = self.rms_norm(&sum, weight, epsilon)?;
        Ok((sum, normed))
    }

    /// `down(activation(gate(x)) · up(x))`.
    fn gated_mlp(
        &self,
        x: &Self::Tensor,
        gate: &Self::Linear,
        up: &Self::Linear,
        down: &Self::Linear,
        activation: Activation,
    ) -> Result<Self::Tensor> {
        let gated = self.gate(&self.linear(x, gate)?, &self.linear(x, up)?, activation)?;
        self.linear(&gated, down)
    }

    /// The queries, keys and values of the same input.
    fn qkv(
        &self,
        x: &Self::Tensor,
        q: &Self::Linear,
        k: &Self::Linear,
        v: &Self::Linear,
    ) -> Result<(Self::Tensor, Self::Tensor, Self::Tensor)> {
        Ok((self.linear(x, q)?, self.linear(x, k)?, self.linear(x, v)?))
    }
}
