//! The pool of keys and values: one buffer for each of them a layer, cut into blocks that a batch names.
//!
//! Layout of a layer's keys: `[blocks, heads, block_size, key_dim]`, so that what one head reads of a block is one
//! contiguous stretch; values alike.

use std::alloc::{Layout, alloc_zeroed};

use mlxctl_backend::{Batch, Error, KvLayout, Result, Span};

use crate::kernels::widen::bf16_to_f32;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// As computed. The default: attention then loses nothing, and results meet the references most closely.
    #[default]
    F32,
    /// Rounded to bf16: half the memory and half the traffic.
    Bf16,
}

/// Keys and values of every layer.
#[derive(Debug)]
pub struct KvPool {
    layout: KvLayout,
    blocks: usize,
    layers: Vec<Layer>,
}

#[derive(Debug)]
pub(crate) struct Layer {
    pub(crate) keys: Store,
    pub(crate) values: Store,
}

/// One kind of vectors of one layer.
#[derive(Debug)]
pub(crate) struct Store {
    heads: usize,
    features: usize,
    block_size: usize,
    numbers: Numbers,
}

#[derive(Debug)]
enum Numbers {
    F32(Vec<f32>),
    Bf16(Vec<u16>),
}

impl KvPool {
    pub(crate) fn new(layout: &KvLayout, blocks: usize, kv_type: KvType) -> Result<Self> {
        let store = |heads: usize, features: usize| {
            let count = heads
                .checked_mul(features)
                .and_then(|count| count.checked_mul(layout.block_size))
                .and_then(|count| count.checked_mul(blocks));
            let numbers = count.and_then(|count| match kv_type {
                KvType::F32 => zeroed(count).map(Numbers::F32),
                KvType::Bf16 => zeroed(count).map(Numbers::Bf16),
            });
            let numbers = numbers.ok_or_else(|| Error::OutOfMemory {
                what: format!(
                    "{blocks} blocks of {} tokens with {heads} heads of {features} features in {} layers",
                    layout.block_size,
                    layout.layers.len()
                ),
            })?;
            Ok(Store { heads, features, block_size: layout.block_size, numbers })
        };
        let layers = layout.layers.iter().map(|layer| {
            Ok(Layer { keys: store(layer.heads, layer.key_dim)?, values: store(layer.heads, layer.value_dim)? })
        });
        Ok(Self { layers: layers.collect::<Result<_>>()?, layout: layout.clone(), blocks })
    }

    /// Blocks it has room for.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// Tokens a block has room for.
    pub(crate) fn block_size(&self) -> usize {
        self.layout.block_size
    }

    pub(crate) fn layer(&self, layer: usize) -> Option<&Layer> {
        self.layers.get(layer)
    }

    /// Stores the keys and values of a batch; rows are `[heads · features]`. The batch has been checked.
    pub(crate) fn write(&mut self, layer: usize, batch: &Batch, keys: &[f32], values: &[f32]) {
        let Layer { keys: key_store, values: value_store } = &mut self.layers[layer];
        for span in &batch.spans {
            key_store.write(span, keys);
            value_store.write(span, values);
        }
    }
}

impl Store {
    pub(crate) fn heads(&self) -> usize {
        self.heads
    }

    pub(crate) fn features(&self) -> usize {
        self.features
    }

    fn write(&mut self, span: &Span, rows: &[f32]) {
        let width = self.heads * self.features;
        for (index, row) in (span.start..span.start + span.length).enumerate() {
            let position = span.position + index;
            let block = span.blocks[position / self.block_size].0 as usize;
            let row = &rows[row * width..(row + 1) * width];
            for (head, vector) in row.chunks_exact(self.features.max(1)).enumerate() {
                let token = (block * self.heads + head) * self.block_size + position % self.block_size;
                let place = token * self.features..(token + 1) * self.features;
                match &mut self.numbers {
                    Numbers::F32(numbers) => numbers[place].copy_from_slice(vector),
                    Numbers::Bf16(numbers) => {
                        for (number, value) in numbers[place].iter_mut().zip(vector) {
                            *number = bf16_bits(*value);
                        }
                    }
                }
            }
        }
    }

    /// The first `tokens` vectors of one head in one block as f32, `[tokens, features]`: borrowed where they are
    /// stored so, else widened into `scratch`.
    pub(crate) fn read<'a>(&'a self, block: usize, head: usize, tokens: usize, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        let start = (block * self.heads + head) * self.block_size * self.features;
        let place = start..start + tokens * self.features;
        match &self.numbers {
            Numbers::F32(numbers) => &numbers[place],
            Numbers::Bf16(numbers) => {
                scratch.clear();
                scratch.extend(numbers[place].iter().map(|&bits| bf16_to_f32(bits)));
                scratch
            }
        }
    }
}

/// Nearest bf16, ties to even; a NaN stays one.
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// Numbers that any bits are, zero among them.
trait Plain: Copy {}
impl Plain for f32 {}
impl Plain for u16 {}

/// Zeros that take no memory until they are touched; `None` where the system has no room for them.
#[allow(unsafe_code)]
fn zeroed<T: Plain>(count: usize) -> Option<Vec<T>> {
    let layout = Layout::array::<T>(count).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the size is not zero; `alloc_zeroed` takes any other layout that `Layout` takes.
    let pointer = unsafe { alloc_zeroed(layout) }.cast::<T>();
    if pointer.is_null() {
        return None;
    }
    // SAFETY: allocated by the global allocator with the layout of `count` elements, all of them zero, which is a
    // value of every `Plain` type.
    #[allow(clippy::same_length_and_capacity)]
    Some(unsafe { Vec::from_raw_parts(pointer, count, count) })
}
