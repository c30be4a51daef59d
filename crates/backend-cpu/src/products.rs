//! Linear layers as one operation of the pool: several weights that read the same input share one dispatch, and an
//! element-wise step that follows runs in the same task, while what it reads is in the cache.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use mlxctl_backend::Activation;

use crate::InstructionSet;
use crate::activations::Activations;
use crate::aligned::Aligned;
use crate::kernels::gate::apply_gate;
use crate::kernels::product::{Product, multiply};
use crate::kernels::widen::{order_activations, units};
use crate::pool::Pool;
use crate::scatter::Scatter;
use crate::weight::{Linear, Matrix};

/// Multiplications below which a task is not worth another thread.
const SMALLEST_TASK: usize = 16 << 10;

/// Inputs as the kernels read them, kept between operations.
#[derive(Debug, Default)]
pub(crate) struct Inputs(Mutex<[Aligned; 2]>);

/// Threads, instructions and buffers of a product.
pub(crate) struct Products<'a> {
    pub(crate) pool: &'a Pool,
    pub(crate) instruction_set: InstructionSet,
    pub(crate) inputs: &'a Inputs,
}

/// An input in natural order and in the order of a matrix of [`units`]; each is made where a weight reads it.
struct Prepared<'a> {
    natural: &'a [f32],
    ordered: &'a [f32],
}

impl<'a> Prepared<'a> {
    fn new(x: &Activations, weights: &[&Linear], [natural, ordered]: &'a mut [Aligned; 2]) -> Self {
        let is_read = |in_units: bool| weights.iter().any(|weight| units(&weight.matrix) == in_units);
        let natural = natural.numbers(if is_read(false) { x.data().len() } else { 0 });
        if !natural.is_empty() {
            natural.copy_from_slice(x.data());
        }
        let ordered = ordered.numbers(if is_read(true) { x.data().len() } else { 0 });
        if !ordered.is_empty() {
            order_activations(x.data(), ordered);
        }
        Self { natural, ordered }
    }

    fn of(&self, matrix: &Matrix) -> &[f32] {
        if units(matrix) { self.ordered } else { self.natural }
    }
}

impl Products<'_> {
    /// `x · weightᵀ + bias` for every weight. The shapes have been checked.
    pub(crate) fn linear<const N: usize>(&self, x: &Activations, weights: [&Linear; N]) -> [Activations; N] {
        let mut inputs = self.inputs.0.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = Prepared::new(x, &weights, &mut inputs);
        let mut out = weights.map(|weight| vec![0.0; x.rows() * weight.matrix.rows]);
        let share = self.share(x, weights.iter().map(|weight| weight.matrix.rows).sum());
        let tasks = weights.map(|weight| weight.matrix.rows.div_ceil(share));
        {
            let scatters = out.each_mut().map(|out| Scatter::new(out));
            self.pool.run(tasks.iter().sum(), &|mut index| {
                for ((weight, out), tasks) in weights.iter().zip(&scatters).zip(tasks) {
                    if index < tasks {
                        let outputs = part(index, share, weight.matrix.rows);
                        return self.multiply(&prepared, weight, outputs, out);
                    }
                    index -= tasks;
                }
            });
        }
        let mut widths = weights.iter().map(|weight| weight.matrix.rows);
        out.map(|out| Activations::new(out, widths.next().unwrap_or(0)))
    }

    /// `activation(gate(x)) · up(x)`. The shapes have been checked, and the two weights have the same.
    pub(crate) fn gated(&self, x: &Activations, gate: &Linear, up: &Linear, activation: Activation) -> Activations {
        let mut inputs = self.inputs.0.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = Prepared::new(x, &[gate, up], &mut inputs);
        let width = gate.matrix.rows;
        let mut gates = vec![0.0; x.rows() * width];
        let mut ups = vec![0.0; x.rows() * width];
        let (gate_scatter, up_scatter) = (Scatter::new(&mut gates), Scatter::new(&mut ups));
        let share = self.share(x, 2 * width);
        self.pool.run(width.div_ceil(share), &|index| {
            let outputs = part(index, share, width);
            self.multiply(&prepared, gate, outputs.clone(), &gate_scatter);
            self.multiply(&prepared, up, outputs.clone(), &up_scatter);
            for row in 0..x.rows() {
                let start = row * width + outputs.start;
                // SAFETY: these outputs belong to this task in every row, and the products above are done with them.
                #[allow(unsafe_code)]
                let (gate, up) =
                    unsafe { (gate_scatter.part(start, outputs.len()), up_scatter.part(start, outputs.len())) };
                apply_gate(self.instruction_set, gate, up, activation);
            }
        });
        Activations::new(gates, width)
    }

    fn multiply(&self, prepared: &Prepared<'_>, weight: &Linear, outputs: Range<usize>, out: &Scatter<'_>) {
        let matrix = &weight.matrix;
        let bias = weight.bias.as_deref();
        multiply(self.instruction_set, &Product { x: prepared.of(matrix), matrix, bias, outputs, out });
    }

    /// Outputs of a task. Four tasks a thread even out what else the machine does; a multiple of 16 outputs fills
    /// cache lines.
    fn share(&self, x: &Activations, outputs: usize) -> usize {
        let work = x.rows().max(1) * x.features().max(1);
        let share = outputs.div_ceil(4 * self.pool.threads()).max(SMALLEST_TASK.div_ceil(work));
        share.next_multiple_of(16)
    }
}

fn part(index: usize, share: usize, outputs: usize) -> Range<usize> {
    index * share..((index + 1) * share).min(outputs)
}
