//! The operations of the vocabulary: shapes are checked, work is split into tasks, kernels do it.

use std::num::NonZeroUsize;

use mlxctl_backend::{
    Activation, Attention, Backend, Batch, Error, KvLayout, LinearWeight, Result, Rope, Span, TokenId,
};
use mlxctl_weights::Tensor;

use crate::activations::Activations;
use crate::instruction_set::InstructionSet;
use crate::kernels::attend::{Scores, SeenBlock, Softmax, attend_block};
use crate::kernels::gate::apply_gate;
use crate::kernels::layer_norm::layer_norm;
use crate::kernels::norm::rms_norm;
use crate::kernels::rotate::{Angles, rotate};
use crate::kernels::widen::widen_one_row;
use crate::kv::{KvPool, KvType, Layer};
use crate::pool::Pool;
use crate::products::{Inputs, Products};
use crate::scatter::Scatter;
use crate::weight::{Linear, Vector};

/// Grows with every change of a kernel that changes bits.
const KERNEL_REVISION: u32 = 2;

/// Elements below which an element-wise operation stays on one thread, and of which a task takes so many.
const ELEMENTS_A_TASK: usize = 8 << 10;

/// Rows of a span that one task of attention takes: they share what they read of the pool.
const ROWS_A_TASK: usize = 8;

/// A CPU and the threads that compute on it.
pub struct CpuBackend {
    pool: Pool,
    instruction_set: InstructionSet,
    kv_type: KvType,
    inputs: Inputs,
}

impl CpuBackend {
    /// A backend on `threads` threads, the calling one among them, with the best instructions this processor has and
    /// keys and values kept as f32.
    pub fn new(threads: NonZeroUsize) -> Self {
        Self {
            pool: Pool::new(threads),
            instruction_set: InstructionSet::detect(),
            kv_type: KvType::default(),
            inputs: Inputs::default(),
        }
    }

    /// The same with keys and values stored as `kv_type`.
    pub fn with_kv_type(mut self, kv_type: KvType) -> Self {
        self.kv_type = kv_type;
        self
    }

    /// The same with these instructions, where the processor has them; else unchanged.
    pub fn with_instruction_set(mut self, instruction_set: InstructionSet) -> Self {
        if instruction_set.is_available() {
            self.instruction_set = instruction_set;
        }
        self
    }

    /// Threads that compute.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    fn products(&self) -> Products<'_> {
        Products { pool: &self.pool, instruction_set: self.instruction_set, inputs: &self.inputs }
    }

    /// Runs `task(start, part)` over parts of `data` that are whole multiples of `unit`.
    fn for_parts(&self, data: &mut [f32], unit: usize, task: impl Fn(usize, &mut [f32]) + Sync) {
        let unit = unit.max(1);
        let part = ELEMENTS_A_TASK.div_ceil(unit) * unit;
        let length = data.len();
        let scatter = Scatter::new(data);
        self.pool.run(length.div_ceil(part), &|index| {
            let start = index * part;
            // SAFETY: the parts of different tasks do not overlap.
            #[allow(unsafe_code)]
            let part = unsafe { scatter.part(start, part.min(length - start)) };
            task(start, part);
        });
    }
}

impl Backend for CpuBackend {
    type Tensor = Activations;
    type Linear = Linear;
    type Vector = Vector;
    type Kv = KvPool;

    fn fingerprint(&self) -> String {
        let kv_type = match self.kv_type {
            KvType::F32 => "f32",
            KvType::Bf16 => "bf16",
        };
        format!("cpu/{}/kv-{kv_type}/r{KERNEL_REVISION}", self.instruction_set)
    }

    fn mount_linear(&self, weight: LinearWeight, bias: Option<Tensor>) -> Result<Linear> {
        Linear::mount(weight, bias.as_ref())
    }

    fn mount_vector(&self, tensor: &Tensor, offset: f32) -> Result<Vector> {
        Vector::mount(tensor, offset)
    }

    fn kv_pool(&self, layout: &KvLayout, blocks: usize) -> Result<KvPool> {
        KvPool::new(layout, blocks, self.kv_type)
    }

    fn from_host(&self, data: &[f32], features: usize) -> Result<Activations> {
        expect("from_host", features > 0 && data.len().is_multiple_of(features), || {
            (format!("whole rows of {features} numbers"), format!("{} numbers", data.len()))
        })?;
        Ok(Activations::new(data.to_vec(), features))
    }

    fn to_host(&self, x: &Activations) -> Result<Vec<f32>> {
        Ok(x.data().to_vec())
    }

    fn embed(&self, table: &Linear, tokens: &[TokenId]) -> Result<Activations> {
        let matrix = &table.matrix;
        let beyond = tokens.iter().find(|&&token| token as usize >= matrix.rows);
        expect("embed", beyond.is_none(), || {
            (format!("tokens below {}", matrix.rows), format!("token {}", beyond.copied().unwrap_or_default()))
        })?;
        let mut out = vec![0.0; tokens.len() * matrix.columns];
        for (&token, out) in tokens.iter().zip(out.chunks_exact_mut(matrix.columns.max(1))) {
            widen_one_row(self.instruction_set, matrix, token as usize, out);
        }
        Ok(Activations::new(out, matrix.columns))
    }

    fn linear(&self, x: &Activations, weight: &Linear) -> Result<Activations> {
        check_columns("linear", x, weight)?;
        let [out] = self.products().linear(x, [weight]);
        Ok(out)
    }

    fn qkv(
        &self,
        x: &Activations,
        q: &Linear,
        k: &Linear,
        v: &Linear,
    ) -> Result<(Activations, Activations, Activations)> {
        for weight in [q, k, v] {
            check_columns("qkv", x, weight)?;
        }
        Ok(self.products().linear(x, [q, k, v]).into())
    }

    fn gated_mlp(
        &self,
        x: &Activations,
        gate: &Linear,
        up: &Linear,
        down: &Linear,
        activation: Activation,
    ) -> Result<Activations> {
        check_columns("gated_mlp", x, gate)?;
        check_columns("gated_mlp", x, up)?;
        expect("gated_mlp", gate.matrix.rows == up.matrix.rows, || {
            (format!("{} outputs of up, as of gate", gate.matrix.rows), format!("{}", up.matrix.rows))
        })?;
        self.linear(&self.products().gated(x, gate, up, activation), down)
    }

    fn rms_norm(&self, x: &Activations, weight: &Vector, epsilon: f32) -> Result<Activations> {
        let weight = &weight.values;
        expect("rms_norm", !weight.is_empty() && x.features().is_multiple_of(weight.len()), || {
            (format!("rows of a multiple of {} features", weight.len()), format!("rows of {}", x.features()))
        })?;
        let mut out = x.data().to_vec();
        self.for_parts(&mut out, weight.len(), |_, part| rms_norm(self.instruction_set, part, weight, epsilon));
        Ok(Activations::new(out, x.features()))
    }

    fn layer_norm(&self, x: &Activations, weight: &Vector, bias: Option<&Vector>, epsilon: f32) -> Result<Activations> {
        let weight = &weight.values;
        let bias = bias.map(|bias| &bias.values[..]);
        let fits = !weight.is_empty() && bias.is_none_or(|bias| bias.len() == weight.len());
        expect("layer_norm", fits && x.features() == weight.len(), || {
            (format!("rows of {} features and a bias as long", weight.len()), format!("rows of {}", x.features()))
        })?;
        let mut out = x.data().to_vec();
        self.for_parts(&mut out, weight.len(), |_, part| {
            layer_norm(self.instruction_set, part, weight, bias, epsilon);
        });
        Ok(Activations::new(out, x.features()))
    }

    fn rope(&self, x: &Activations, rope: &Rope, batch: &Batch) -> Result<Activations> {
        let fits = rope.head_dim > 0 && x.features().is_multiple_of(rope.head_dim);
        expect("rope", fits && 2 * rope.inverse_frequencies.len() <= rope.head_dim, || {
            (
                format!("rows of heads of at least {} features", 2 * rope.inverse_frequencies.len()),
                format!("rows of {} features in heads of {}", x.features(), rope.head_dim),
            )
        })?;
        check_rows("rope", batch, x)?;
        let positions: Vec<usize> = batch.positions().collect();
        let mut out = x.data().to_vec();
        self.for_parts(&mut out, x.features(), |start, part| {
            let rows = part.chunks_exact_mut(x.features());
            for (row, &position) in rows.zip(&positions[start / x.features()..]) {
                rotate(row, rope, &Angles::new(rope, position));
            }
        });
        Ok(Activations::new(out, x.features()))
    }

    fn attention(
        &self,
        q: &Activations,
        k: &Activations,
        v: &Activations,
        batch: &Batch,
        kv: &mut KvPool,
        attention: &Attention,
    ) -> Result<Activations> {
        let (key_dim, value_dim) = check_attention([q, k, v], batch, kv, attention)?;
        kv.write(attention.layer, batch, k.data(), v.data());
        let kv = &*kv;
        let Some(layer) = kv.layer(attention.layer) else { return Ok(Activations::new(Vec::new(), value_dim)) };
        let features = attention.heads * value_dim;
        let mut out = vec![0.0; q.rows() * features];
        let scatter = Scatter::new(&mut out);
        let tiles: Vec<(&Span, usize)> = batch
            .spans
            .iter()
            .flat_map(|span| (0..span.length).step_by(ROWS_A_TASK).map(move |first| (span, first)))
            .collect();
        let kv_heads = layer.keys.heads();
        let queries_a_key = attention.heads / kv_heads;
        self.pool.run(tiles.len() * kv_heads, &|index| {
            let (span, first) = tiles[index / kv_heads];
            let kv_head = index % kv_heads;
            let rows = first..(first + ROWS_A_TASK).min(span.length);
            let mut queries = Vec::with_capacity(rows.len() * queries_a_key);
            for row in rows {
                for head in kv_head * queries_a_key..(kv_head + 1) * queries_a_key {
                    let query = &q.row(span.start + row)[head * key_dim..(head + 1) * key_dim];
                    let place = (span.start + row) * features + head * value_dim;
                    // SAFETY: a row and a head belong to one task and occur in it once.
                    #[allow(unsafe_code)]
                    let out = unsafe { scatter.part(place, value_dim) };
                    queries.push(Query {
                        features: query,
                        position: span.position + row,
                        softmax: Softmax::new(),
                        out,
                    });
                }
            }
            self.attend(&mut queries, span, layer, kv_head, attention, kv.block_size());
        });
        Ok(Activations::new(out, features))
    }

    fn add(&self, a: &Activations, b: &Activations) -> Result<Activations> {
        check_same("add", a, b)?;
        let sum = a.data().iter().zip(b.data()).map(|(a, b)| a + b).collect();
        Ok(Activations::new(sum, a.features()))
    }

    fn scale(&self, x: &Activations, factor: f32) -> Result<Activations> {
        Ok(Activations::new(x.data().iter().map(|x| x * factor).collect(), x.features()))
    }

    fn gate(&self, gate: &Activations, up: &Activations, activation: Activation) -> Result<Activations> {
        check_same("gate", gate, up)?;
        let mut out = gate.data().to_vec();
        self.for_parts(&mut out, 1, |start, part| {
            apply_gate(self.instruction_set, part, &up.data()[start..start + part.len()], activation);
        });
        Ok(Activations::new(out, gate.features()))
    }

    fn activate(&self, x: &Activations, activation: Activation) -> Result<Activations> {
        let mut out = x.data().to_vec();
        let ones = vec![1.0; ELEMENTS_A_TASK.min(out.len())];
        self.for_parts(&mut out, 1, |_, part| {
            apply_gate(self.instruction_set, part, &ones[..part.len()], activation);
        });
        Ok(Activations::new(out, x.features()))
    }

    fn soft_cap(&self, x: &Activations, cap: f32) -> Result<Activations> {
        let mut out = x.data().to_vec();
        self.for_parts(&mut out, 1, |_, part| part.iter_mut().for_each(|x| *x = cap * libm::tanhf(*x / cap)));
        Ok(Activations::new(out, x.features()))
    }

    fn rows(&self, x: &Activations, rows: &[usize]) -> Result<Activations> {
        let beyond = rows.iter().find(|&&row| row >= x.rows());
        expect("rows", beyond.is_none(), || {
            (format!("rows below {}", x.rows()), format!("row {}", beyond.copied().unwrap_or_default()))
        })?;
        let mut out = Vec::with_capacity(rows.len() * x.features());
        for &row in rows {
            out.extend_from_slice(x.row(row));
        }
        Ok(Activations::new(out, x.features()))
    }
}

/// One query head of one row, on its way through the blocks.
struct Query<'a> {
    features: &'a [f32],
    position: usize,
    softmax: Softmax,
    out: &'a mut [f32],
}

impl CpuBackend {
    /// Attends for queries of one span that read the same key head.
    fn attend(
        &self,
        queries: &mut [Query<'_>],
        span: &Span,
        layer: &Layer,
        kv_head: usize,
        attention: &Attention,
        block_size: usize,
    ) {
        let first_seen = |position: usize| attention.window.map_or(0, |window| (position + 1).saturating_sub(window));
        let (Some(lowest), Some(highest)) =
            (queries.first().map(|query| first_seen(query.position)), queries.last().map(|query| query.position))
        else {
            return;
        };
        let scores = Scores { scale: attention.scale, soft_cap: attention.soft_cap };
        let mut scratch = vec![0.0; block_size];
        let (mut key_scratch, mut value_scratch) = (Vec::new(), Vec::new());
        for index in lowest / block_size..=highest / block_size {
            let start = index * block_size;
            let tokens = block_size.min(highest + 1 - start);
            let block = span.blocks[index].0 as usize;
            let keys = layer.keys.read(block, kv_head, tokens, &mut key_scratch);
            let values = layer.values.read(block, kv_head, tokens, &mut value_scratch);
            for Query { features: query, position, softmax, out } in &mut *queries {
                let first = first_seen(*position).saturating_sub(start);
                let end = (*position + 1).saturating_sub(start).min(tokens);
                if first < end {
                    let seen = SeenBlock { keys, values, first, end };
                    attend_block(self.instruction_set, query, &seen, scores, softmax, &mut scratch, out);
                }
            }
        }
        for Query { softmax, out, .. } in queries {
            let factor = 1.0 / softmax.sum();
            out.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

fn check_columns(operation: &'static str, x: &Activations, weight: &Linear) -> Result<()> {
    let columns = weight.matrix.columns;
    expect(operation, x.features() == columns, || {
        (format!("rows of {columns} features"), format!("rows of {}", x.features()))
    })
}

/// Key and value features of a head, once everything fits together.
fn check_attention(
    [q, k, v]: [&Activations; 3],
    batch: &Batch,
    kv: &KvPool,
    attention: &Attention,
) -> Result<(usize, usize)> {
    let operation = "attention";
    let Some(layer) = kv.layer(attention.layer) else {
        return Err(unsupported(operation, "a layer of the pool", format!("layer {}", attention.layer)));
    };
    let (heads, key_dim, value_dim) = (layer.keys.heads(), layer.keys.features(), layer.values.features());
    let fits = heads > 0
        && key_dim > 0
        && value_dim > 0
        && attention.heads > 0
        && attention.heads.is_multiple_of(heads)
        && attention.window != Some(0)
        && [q.features(), k.features(), v.features()]
            == [attention.heads * key_dim, heads * key_dim, heads * value_dim];
    expect(operation, fits, || {
        (
            format!(
                "a multiple of {heads} query heads and keys and values of {heads} heads with {key_dim} and {value_dim} features"
            ),
            format!(
                "{} query heads in rows of {}, {} and {} features",
                attention.heads,
                q.features(),
                k.features(),
                v.features()
            ),
        )
    })?;
    for x in [q, k, v] {
        check_rows(operation, batch, x)?;
    }
    batch.check(kv.block_size(), kv.blocks()).map_err(|problem| unsupported(operation, "a whole batch", problem))?;
    Ok((key_dim, value_dim))
}

fn check_rows(operation: &'static str, batch: &Batch, x: &Activations) -> Result<()> {
    let rows: usize = batch.spans.iter().map(|span| span.length).sum();
    expect(operation, rows == x.rows(), || (format!("{rows} rows, as in the batch"), format!("{} rows", x.rows())))
}

fn check_same(operation: &'static str, a: &Activations, b: &Activations) -> Result<()> {
    expect(operation, a.features() == b.features() && a.rows() == b.rows(), || {
        let shape = |x: &Activations| format!("[{}, {}]", x.rows(), x.features());
        (format!("two of shape {}", shape(a)), shape(b))
    })
}

fn expect(operation: &'static str, holds: bool, words: impl FnOnce() -> (String, String)) -> Result<()> {
    if holds {
        return Ok(());
    }
    let (expected, found) = words();
    Err(Error::Unsupported { operation, expected, found })
}

fn unsupported(operation: &'static str, expected: &str, found: String) -> Error {
    Error::Unsupported { operation, expected: expected.to_owned(), found }
}
