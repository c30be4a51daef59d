//! Mixtures of experts: many small MLPs of which each token takes a few. Models route, devices compute; a device
//! without an operation of its own takes [`run_one_by_one`].

use crate::{Activation, Backend, Result};

/// A gated MLP, `down(activation(gate(x)) · up(x))`.
#[derive(Debug)]
pub struct Expert<L> {
    /// `[intermediate, hidden]`.
    pub gate: L,
    /// `[intermediate, hidden]`.
    pub up: L,
    /// `[hidden, intermediate]`.
    pub down: L,
}

/// Which rows an expert computes, and what its answer weighs in theirs.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// Rows of the activations.
    pub rows: usize,
    /// Features of a row.
    pub features: usize,
    /// For each expert the rows it computes, ascending, each with its weight.
    pub by_expert: Vec<Vec<(usize, f32)>>,
}

/// The experts one after the other, each over all of its rows; their answers are added in the experts' order, so that
/// a row's sum does not depend on what else is in the batch.
pub(crate) fn run_one_by_one<B: Backend + ?Sized>(
    backend: &B,
    x: &B::Tensor,
    experts: &[Expert<B::Linear>],
    routes: &Routes,
    activation: Activation,
) -> Result<B::Tensor> {
    let mut sum = vec![0.0_f32; routes.rows * routes.features];
    for (expert, taken) in experts.iter().zip(&routes.by_expert).filter(|(_, taken)| !taken.is_empty()) {
        let rows: Vec<usize> = taken.iter().map(|(row, _)| *row).collect();
        let picked = backend.rows(x, &rows)?;
        let answer = backend.gated_mlp(&picked, &expert.gate, &expert.up, &expert.down, activation)?;
        let answer = backend.to_host(&answer)?;
        for ((row, weight), answer) in taken.iter().zip(answer.chunks_exact(routes.features.max(1))) {
            let sum = &mut sum[row * routes.features..(row + 1) * routes.features];
            sum.iter_mut().zip(answer).for_each(|(sum, answer)| *sum += weight * answer);
        }
    }
    backend.from_host(&sum, routes.features)
}
