//! The pool of keys and values, and attention over it.
//!
//! MLX has no kernel that reads a block table, so a sequence's blocks are brought together first (without a copy where
//! they follow one another) and each sequence attends on its own.

use mlx_rs::ops::indexing::{TryIndexOp, scatter_single};
use mlx_rs::ops::{concatenate, expand_dims, logical_and, select, softmax_axis, tanh, zeros_dtype};
use mlx_rs::transforms::{async_eval, eval};
use mlx_rs::{Array, Dtype, fast};
use mlxctl_backend::{Attention, Batch, Error, KvLayer, KvLayout, Result, Span};

use crate::device::{Mlx, check_room, device_error, dimension, integers};
use crate::operations::shape_error;

const OPERATION: &str = "attention";

/// The pool of keys and values: for each layer one row a token slot, block after block.
pub struct KvPool {
    layers: Vec<Layer>,
    blocks: usize,
    block_size: usize,
}

struct Layer {
    shape: KvLayer,
    /// `[blocks · block_size, heads · key_dim]`.
    keys: Array,
    /// `[blocks · block_size, heads · value_dim]`.
    values: Array,
}

impl KvPool {
    pub(crate) fn new(mlx: &Mlx, layout: &KvLayout, blocks: usize) -> Result<Self> {
        let operation = "making the KV pool";
        let slots = blocks.saturating_mul(layout.block_size);
        let token_bytes = layout.layers.iter().fold(0_usize, |bytes, layer| {
            let features = layer.key_dim.saturating_add(layer.value_dim);
            bytes.saturating_add(layer.heads.saturating_mul(features).saturating_mul(mlx.precision.bytes()))
        });
        check_room("keys and values", token_bytes.saturating_mul(slots))?;
        let slots = dimension(operation, slots)?;
        let room = |heads: usize, features: usize| {
            let width = dimension(operation, heads.saturating_mul(features))?;
            mlx.run(operation, || zeros_dtype(&[slots, width], mlx.precision.dtype()))
        };
        let layers = layout.layers.iter().map(|&shape| {
            let keys = room(shape.heads, shape.key_dim)?;
            let values = room(shape.heads, shape.value_dim)?;
            // A device that has no room says so now, and not in the middle of an answer.
            eval([&keys, &values]).map_err(device_error(operation))?;
            Ok(Layer { shape, keys, values })
        });
        Ok(Self { layers: layers.collect::<Result<_>>()?, blocks, block_size: layout.block_size })
    }

    /// Stores the batch's keys and values, then lets its queries attend; `qkv` are the three activations.
    pub(crate) fn attend(
        &mut self,
        mlx: &Mlx,
        qkv: [&Array; 3],
        batch: &Batch,
        attention: &Attention,
    ) -> Result<Array> {
        // MLX checks no index: one beyond the pool would read or write whatever lies there.
        batch.check(self.block_size, self.blocks).map_err(|found| Error::Unsupported {
            operation: OPERATION,
            expected: format!("a whole batch for {} blocks of {} tokens", self.blocks, self.block_size),
            found,
        })?;
        let slots: Vec<_> = batch.spans.iter().map(|span| self.slots(span)).collect();
        let Some(layer) = self.layers.get_mut(attention.layer) else {
            return Err(Error::Unsupported {
                operation: OPERATION,
                expected: "a layer of the KV pool".to_owned(),
                found: format!("layer {}", attention.layer),
            });
        };
        layer.check(qkv, batch, attention)?;
        if batch.tokens.is_empty() {
            let width = dimension(OPERATION, attention.heads * layer.shape.value_dim)?;
            return mlx.run(OPERATION, || zeros_dtype(&[0, width], qkv[0].dtype()));
        }
        layer.store(mlx, qkv[1], qkv[2], batch, &slots)?;
        if batch.logits.is_empty() {
            // Nobody will ask for a result of this step, and an ever longer graph would hold every activation.
            async_eval([&layer.keys, &layer.values]).map_err(device_error(OPERATION))?;
        }
        let mut outputs = Vec::with_capacity(batch.spans.len());
        for (span, slots) in batch.spans.iter().zip(&slots).filter(|(span, _)| span.length > 0) {
            outputs.push(layer.span(mlx, qkv[0], span, slots, attention)?);
        }
        if outputs.len() == 1 {
            return Ok(outputs.remove(0));
        }
        mlx.run(OPERATION, || concatenate(&outputs, 0))
    }

    /// The slot of every token of a sequence, those of this step at the end.
    fn slots(&self, span: &Span) -> Vec<usize> {
        let slot = |token: usize| {
            let block = span.blocks[token / self.block_size].0 as usize;
            block * self.block_size + token % self.block_size
        };
        (0..span.position + span.length).map(slot).collect()
    }
}

impl Layer {
    fn check(&self, [q, k, v]: [&Array; 3], batch: &Batch, attention: &Attention) -> Result<()> {
        let KvLayer { heads, key_dim, value_dim } = self.shape;
        let rows = dimension(OPERATION, batch.tokens.len())?;
        for (array, width) in [(q, attention.heads * key_dim), (k, heads * key_dim), (v, heads * value_dim)] {
            if *array.shape() != [rows, dimension(OPERATION, width)?] {
                return Err(shape_error(OPERATION, &format!("[{rows}, {width}]"), array));
            }
        }
        if heads == 0 || !attention.heads.is_multiple_of(heads) || attention.window == Some(0) {
            return Err(shape_error(OPERATION, &format!("a multiple of {heads} heads and a window"), q));
        }
        Ok(())
    }

    /// Writes the batch's rows into their slots. The old pool is let go first: MLX then writes into its memory, where
    /// it would copy the pool if anybody still held it.
    fn store(&mut self, mlx: &Mlx, keys: &Array, values: &Array, batch: &Batch, slots: &[Vec<usize>]) -> Result<()> {
        let new = batch.spans.iter().zip(slots).flat_map(|(span, slots)| slots[span.position..].iter().copied());
        let indices = integers(OPERATION, new)?;
        let write = |pool: &mut Array, rows: &Array| {
            let written = mlx.run(OPERATION, || {
                let rows = rows.as_dtype(pool.dtype())?;
                // One update a slot, of one row: `[tokens, 1, features]`.
                scatter_single(&*pool, &indices, expand_dims(rows, 1)?, 0)
            })?;
            *pool = written;
            Ok(())
        };
        write(&mut self.keys, keys)?;
        write(&mut self.values, values)
    }

    /// Attention of one sequence: `[length, heads · value_dim]`.
    fn span(&self, mlx: &Mlx, q: &Array, span: &Span, slots: &[usize], attention: &Attention) -> Result<Array> {
        let KvLayer { heads, key_dim, value_dim } = self.shape;
        // The first token that the first query still sees.
        let first = attention.window.map_or(0, |window| (span.position + 1).saturating_sub(window));
        let context = gather(&slots[first..])?;
        let seen = slots.len() - first;
        let [start, length] = [dimension(OPERATION, span.start)?, dimension(OPERATION, span.length)?];
        let by_head = |rows: Array, length: i32, heads: usize, features: usize| {
            let shape = [1, length, dimension(OPERATION, heads)?, dimension(OPERATION, features)?];
            mlx.run(OPERATION, || rows.reshape(&shape)?.transpose_axes(&[0, 2, 1, 3]))
        };
        let queries = mlx.run(OPERATION, || q.try_index(start..start + length))?;
        let queries = by_head(queries, length, attention.heads, key_dim)?;
        let total = dimension(OPERATION, seen)?;
        let keys = by_head(mlx.run(OPERATION, || context.of(&self.keys))?, total, heads, key_dim)?;
        let values = by_head(mlx.run(OPERATION, || context.of(&self.values))?, total, heads, value_dim)?;
        let windowed = attention.window.is_some_and(|window| seen > window);
        let mask = if windowed || (attention.soft_cap.is_some() && span.length > 1) {
            Some(visible(mlx, span.position - first, span.length, attention.window)?)
        } else {
            None
        };
        mlx.run(OPERATION, || {
            let output = if let Some(cap) = attention.soft_cap {
                capped([&queries, &keys, &values], mask.as_ref(), attention.scale, cap)?
            } else if let Some(mask) = &mask {
                fast::scaled_dot_product_attention(&queries, &keys, &values, attention.scale, mask, None)?
            } else if span.length == 1 {
                let whole: Option<fast::ScaledDotProductAttentionMask<'_>> = None;
                fast::scaled_dot_product_attention(&queries, &keys, &values, attention.scale, whole, None)?
            } else {
                let causal = fast::ScaledDotProductAttentionMask::Causal;
                fast::scaled_dot_product_attention(&queries, &keys, &values, attention.scale, causal, None)?
            };
            output.transpose_axes(&[0, 2, 1, 3])?.reshape(&[length, -1])
        })
    }
}

/// Where a sequence's tokens lie in the pool.
enum Context {
    /// One after the other.
    Run { start: i32, end: i32 },
    /// Anywhere.
    Scattered(Array),
}

fn gather(slots: &[usize]) -> Result<Context> {
    if slots.windows(2).all(|pair| pair[1] == pair[0] + 1) {
        let start = dimension(OPERATION, slots[0])?;
        return Ok(Context::Run { start, end: start + dimension(OPERATION, slots.len())? });
    }
    Ok(Context::Scattered(integers(OPERATION, slots.iter().copied())?))
}

impl Context {
    /// The sequence's rows of a pool, in order.
    fn of(&self, pool: &Array) -> mlx_rs::error::Result<Array> {
        match self {
            Self::Run { start, end } => pool.try_index(*start..*end),
            Self::Scattered(slots) => pool.take_axis(slots, 0),
        }
    }
}

/// Which keys each query sees, `[length, before + length]`: itself and what came before, `window` of them at most.
fn visible(mlx: &Mlx, before: usize, length: usize, window: Option<usize>) -> Result<Array> {
    let key = integers(OPERATION, 0..before + length)?;
    let query = integers(OPERATION, before..before + length)?;
    let window = window.map(|window| integers(OPERATION, [window.min(before + length)])).transpose()?;
    mlx.run(OPERATION, || {
        let query = expand_dims(query, 1)?;
        let past = key.le(&query)?;
        match window {
            Some(window) => logical_and(past, query.subtract(&key)?.lt(window)?),
            None => Ok(past),
        }
    })
}

/// Attention whose scores are bounded by `cap · tanh(score / cap)`; MLX has no kernel with that.
fn capped(qkv: [&Array; 3], mask: Option<&Array>, scale: f32, cap: f32) -> mlx_rs::error::Result<Array> {
    let [queries, keys, values] = qkv;
    let [_, heads, length, features] = *queries.shape() else { unreachable!("queries are made with four dimensions") };
    let groups = keys.dim(1);
    let queries = queries.reshape(&[1, groups, heads / groups, length, features])?;
    let scores = queries.as_dtype(Dtype::Float32)?.multiply(Array::from_f32(scale / cap))?;
    let scores = scores.matmul(expand_dims(keys, 2)?.as_dtype(Dtype::Float32)?.transpose_axes(&[0, 1, 2, 4, 3])?)?;
    let scores = tanh(scores)?.multiply(Array::from_f32(cap))?;
    let scores = match mask {
        Some(mask) => select(mask, scores, Array::from_f32(f32::NEG_INFINITY))?,
        None => scores,
    };
    let weights = softmax_axis(scores, -1, true)?.as_dtype(values.dtype())?;
    weights.matmul(expand_dims(values, 2)?)?.reshape(&[1, heads, length, values.dim(-1)])
}
