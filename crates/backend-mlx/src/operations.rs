//! The vocabulary, operation by operation; what attends is in `attention`.

use mlx_rs::ops::{erf, sigmoid, tanh, zeros_dtype};
use mlx_rs::{Array, Dtype, fast};
use mlxctl_backend::{Activation, Attention, Backend, Batch, Error, KvLayout, LinearWeight, Result, Rope, TokenId};
use mlxctl_weights::Tensor;

use crate::attention::KvPool;
use crate::device::{Mlx, dimension, integers};
use crate::mount::{Linear, Vector};

impl Backend for Mlx {
    type Tensor = Array;
    type Linear = Linear;
    type Vector = Vector;
    type Kv = KvPool;

    fn fingerprint(&self) -> String {
        self.describe()
    }

    fn mount_linear(&self, weight: LinearWeight, bias: Option<Tensor>) -> Result<Linear> {
        self.linear_of(&weight, bias.as_ref())
    }

    fn mount_vector(&self, tensor: &Tensor, offset: f32) -> Result<Vector> {
        self.vector_of(tensor, offset)
    }

    fn kv_pool(&self, layout: &KvLayout, blocks: usize) -> Result<KvPool> {
        KvPool::new(self, layout, blocks)
    }

    fn from_host(&self, data: &[f32], features: usize) -> Result<Array> {
        const OPERATION: &str = "sending activations";
        if features == 0 || !data.len().is_multiple_of(features) {
            return Err(Error::Unsupported {
                operation: OPERATION,
                expected: format!("whole rows of {features} numbers"),
                found: format!("{} numbers", data.len()),
            });
        }
        let shape = [dimension(OPERATION, data.len() / features)?, dimension(OPERATION, features)?];
        // The sum of the shape must fit as well, where mlx-rs multiplies it.
        dimension(OPERATION, data.len())?;
        let array = Array::from_slice(data, &shape);
        self.run(OPERATION, || array.as_dtype(self.precision.dtype()))
    }

    fn to_host(&self, x: &Array) -> Result<Vec<f32>> {
        if x.size() == 0 {
            return Ok(Vec::new());
        }
        let operation = "fetching a result";
        let array = self.run(operation, || {
            let array = x.as_dtype(Dtype::Float32)?.contiguous()?;
            array.eval()?;
            Ok(array)
        })?;
        let values = array.try_as_slice::<f32>();
        let values = values.map_err(|error| Error::Device { operation, message: error.to_string() })?;
        Ok(values.to_vec())
    }

    fn embed(&self, table: &Linear, tokens: &[TokenId]) -> Result<Array> {
        table.rows(self, tokens)
    }

    fn linear(&self, x: &Array, weight: &Linear) -> Result<Array> {
        self.run("a linear layer", || weight.apply(x))
    }

    fn rms_norm(&self, x: &Array, weight: &Vector, epsilon: f32) -> Result<Array> {
        let [length] = *weight.array.shape() else { return Err(shape_error("rms_norm", "a vector", &weight.array)) };
        let [rows, features] = matrix("rms_norm", x)?;
        if length == 0 || features % length != 0 {
            return Err(shape_error("rms_norm", &format!("rows of a multiple of {length}"), x));
        }
        self.run("rms_norm", || {
            let runs = x.reshape(&[rows, features / length, length])?;
            fast::rms_norm(runs, Some(&weight.array), epsilon)?.reshape(&[rows, features])
        })
    }

    fn rope(&self, x: &Array, rope: &Rope, batch: &Batch) -> Result<Array> {
        let [rows, features] = matrix("rope", x)?;
        let head_dim = dimension("rope", rope.head_dim)?;
        let rotated = dimension("rope", rope.inverse_frequencies.len() * 2)?;
        if head_dim == 0 || features % head_dim != 0 || rotated > head_dim {
            return Err(shape_error("rope", &format!("heads of {head_dim} with {rotated} rotated"), x));
        }
        if rotated == 0 || rows == 0 {
            return Ok(x.clone());
        }
        // Every row is a sequence of its own with one token: so each has its own position, and a ragged batch is one
        // operation.
        let positions = integers("rope", batch.positions())?;
        if positions.shape() != [rows] {
            return Err(shape_error("rope", &format!("{} rows", positions.size()), x));
        }
        let periods: Vec<f32> = rope.inverse_frequencies.iter().map(|frequency| frequency.recip()).collect();
        let periods = Array::from_slice(&periods, &[rotated / 2]);
        self.run("rope", || {
            let heads = x.reshape(&[rows, features / head_dim, 1, head_dim])?;
            let heads = if rope.magnitude == 1.0 {
                heads
            } else {
                // The rotation is linear, so the factor may come first; what is not rotated keeps its size.
                let factors: Vec<f32> =
                    (0..head_dim).map(|feature| if feature < rotated { rope.magnitude } else { 1.0 }).collect();
                let factors = Array::from_slice(&factors, &[head_dim]).as_dtype(x.dtype())?;
                heads.multiply(factors)?
            };
            fast::rope_dynamic(heads, rotated, rope.interleaved, None, 1.0, positions, &periods)?
                .reshape(&[rows, features])
        })
    }

    fn attention(
        &self,
        q: &Array,
        k: &Array,
        v: &Array,
        batch: &Batch,
        kv: &mut KvPool,
        attention: &Attention,
    ) -> Result<Array> {
        kv.attend(self, [q, k, v], batch, attention)
    }

    fn add(&self, a: &Array, b: &Array) -> Result<Array> {
        self.run("add", || a.add(b))
    }

    fn scale(&self, x: &Array, factor: f32) -> Result<Array> {
        self.run("scale", || x.multiply(Array::from_f32(factor).as_dtype(x.dtype())?))
    }

    fn gate(&self, gate: &Array, up: &Array, activation: Activation) -> Result<Array> {
        self.run("gate", || activated(gate, activation)?.multiply(up))
    }

    fn activate(&self, x: &Array, activation: Activation) -> Result<Array> {
        self.run("activate", || activated(x, activation))
    }

    fn soft_cap(&self, x: &Array, cap: f32) -> Result<Array> {
        self.run("soft_cap", || {
            let cap = Array::from_f32(cap).as_dtype(x.dtype())?;
            tanh(x.divide(&cap)?)?.multiply(&cap)
        })
    }

    fn layer_norm(&self, x: &Array, weight: &Vector, bias: Option<&Vector>, epsilon: f32) -> Result<Array> {
        let [_, features] = matrix("layer_norm", x)?;
        let lengths = std::iter::once(weight).chain(bias).map(|vector| vector.array.shape());
        for shape in lengths {
            if *shape != [features] {
                return Err(shape_error("layer_norm", &format!("rows of as many features as {shape:?}"), x));
            }
        }
        self.run("layer_norm", || fast::layer_norm(x, Some(&weight.array), bias.map(|bias| &bias.array), epsilon))
    }

    fn rows(&self, x: &Array, rows: &[usize]) -> Result<Array> {
        const OPERATION: &str = "selecting rows";
        let [available, features] = matrix(OPERATION, x)?;
        // MLX does not check indices.
        if let Some(beyond) = rows.iter().find(|&&row| row >= available as usize) {
            return Err(shape_error(OPERATION, &format!("at least {} rows", beyond.saturating_add(1)), x));
        }
        if rows.is_empty() {
            return self.run(OPERATION, || zeros_dtype(&[0, features], x.dtype()));
        }
        let indices = integers(OPERATION, rows.iter().copied())?;
        self.run(OPERATION, || x.take_axis(indices, 0))
    }
}

/// `activation(x)`, element by element.
fn activated(x: &Array, activation: Activation) -> mlx_rs::error::Result<Array> {
    // A constant takes part in the type of its operands, not in the choice of it.
    let constant = |value: f32| Array::from_f32(value).as_dtype(x.dtype());
    match activation {
        Activation::Silu => x.multiply(sigmoid(x)?),
        Activation::Gelu => {
            let probability = erf(x.multiply(constant(std::f32::consts::FRAC_1_SQRT_2)?)?)?;
            x.multiply(constant(0.5)?)?.multiply(probability.add(constant(1.0)?)?)
        }
        Activation::GeluTanh => {
            // 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))): Hendrycks and Gimpel, arXiv:1606.08415.
            let cube = x.multiply(x)?.multiply(x)?;
            let inner = x.add(cube.multiply(constant(0.044_715)?)?)?;
            let inner = inner.multiply(constant((2.0 / std::f32::consts::PI).sqrt())?)?;
            x.multiply(constant(0.5)?)?.multiply(tanh(inner)?.add(constant(1.0)?)?)
        }
    }
}

/// The two dimensions of activations.
pub(crate) fn matrix(operation: &'static str, x: &Array) -> Result<[i32; 2]> {
    <[i32; 2]>::try_from(x.shape()).map_err(|_| shape_error(operation, "[rows, features]", x))
}

/// An operand that does not have the shape it must have.
pub(crate) fn shape_error(operation: &'static str, expected: &str, found: &Array) -> Error {
    Error::Unsupported { operation, expected: expected.to_owned(), found: format!("a shape of {:?}", found.shape()) }
}
