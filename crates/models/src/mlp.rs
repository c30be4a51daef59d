//! The MLP of a layer: gated, plain, or a mixture of experts with its router.

use mlxctl_backend::{Backend, Expert, Result, Routes};

use crate::Error;
use crate::mount::Mount;
use crate::shape::{ExpertsShape, MlpKind, Shape};

/// The MLP of one layer.
pub(crate) enum Mlp<B: Backend> {
    Gated(Expert<B::Linear>),
    Plain { up: B::Linear, down: B::Linear },
    Experts(Mixture<B>),
}

/// A router and its experts; the shared one, if any, is the last.
pub(crate) struct Mixture<B: Backend> {
    router: B::Linear,
    experts: Vec<Expert<B::Linear>>,
    shared_gate: Option<B::Linear>,
}

impl<B: Backend> Mlp<B> {
    /// Mounts the MLP of layer `index`.
    pub(crate) fn load(mount: &mut Mount<'_, B>, shape: &Shape, index: usize) -> std::result::Result<Self, Error> {
        if let Some(experts) = shape.experts.as_ref().filter(|_| shape.layers[index].sparse) {
            return Mixture::load(mount, shape.hidden, experts, index).map(Self::Experts);
        }
        let path = |part: &str| format!("model.layers.{index}.mlp.{part}");
        let (hidden, inner, bias) = (shape.hidden, shape.intermediate, shape.mlp.bias);
        Ok(match shape.mlp.kind {
            MlpKind::Gated => Self::Gated(gated(mount, &path, (inner, hidden), bias)?),
            MlpKind::FusedGate => {
                let [gate, up] = mount.parts(&path("gate_up_proj"), [inner, inner], hidden, bias)?;
                Self::Gated(Expert { gate, up, down: mount.linear(&path("down_proj"), hidden, inner, bias)? })
            }
            MlpKind::Plain => Self::Plain {
                up: mount.linear(&path("c_fc"), inner, hidden, bias)?,
                down: mount.linear(&path("c_proj"), hidden, inner, bias)?,
            },
        })
    }

    /// The MLP of every row.
    pub(crate) fn apply(&self, backend: &B, x: &B::Tensor, shape: &Shape) -> Result<B::Tensor> {
        match self {
            Self::Gated(Expert { gate, up, down }) => backend.gated_mlp(x, gate, up, down, shape.activation),
            Self::Plain { up, down } => {
                let inner = backend.activate(&backend.linear(x, up)?, shape.activation)?;
                backend.linear(&inner, down)
            }
            Self::Experts(mixture) => mixture.apply(backend, x, shape),
        }
    }
}

fn gated<B: Backend>(
    mount: &mut Mount<'_, B>,
    path: &dyn Fn(&str) -> String,
    (inner, hidden): (usize, usize),
    bias: bool,
) -> std::result::Result<Expert<B::Linear>, Error> {
    Ok(Expert {
        gate: mount.linear(&path("gate_proj"), inner, hidden, bias)?,
        up: mount.linear(&path("up_proj"), inner, hidden, bias)?,
        down: mount.linear(&path("down_proj"), hidden, inner, bias)?,
    })
}

impl<B: Backend> Mixture<B> {
    fn load(
        mount: &mut Mount<'_, B>,
        hidden: usize,
        own: &ExpertsShape,
        index: usize,
    ) -> std::result::Result<Self, Error> {
        let path = |part: &str| format!("model.layers.{index}.{}.{part}", own.module);
        let router = mount.linear(&path("gate"), own.count, hidden, false)?;
        let inner = own.intermediate;
        // Exporters of the hub write a tensor an expert, mlx-lm one for all of them.
        let stacked = path("switch_mlp");
        let mut experts = Vec::new();
        if mount.contains(&format!("{stacked}.gate_proj.weight")) {
            let gate = mount.stack(&format!("{stacked}.gate_proj"), own.count, inner, hidden)?;
            let up = mount.stack(&format!("{stacked}.up_proj"), own.count, inner, hidden)?;
            let down = mount.stack(&format!("{stacked}.down_proj"), own.count, hidden, inner)?;
            let parts = gate.into_iter().zip(up).zip(down);
            experts.extend(parts.map(|((gate, up), down)| Expert { gate, up, down }));
        } else {
            let [gate, up, down] = own.names;
            for expert in 0..own.count {
                let path = |part: &str| path(&format!("experts.{expert}.{part}"));
                experts.push(Expert {
                    gate: mount.linear(&path(gate), inner, hidden, false)?,
                    up: mount.linear(&path(up), inner, hidden, false)?,
                    down: mount.linear(&path(down), hidden, inner, false)?,
                });
            }
        }
        let shared_gate = match own.shared {
            None => None,
            Some(inner) => {
                let shared = |part: &str| path(&format!("shared_expert.{part}"));
                experts.push(gated(mount, &shared, (inner, hidden), false)?);
                Some(mount.linear(&path("shared_expert_gate"), 1, hidden, false)?)
            }
        };
        Ok(Self { router, experts, shared_gate })
    }

    fn apply(&self, backend: &B, x: &B::Tensor, shape: &Shape) -> Result<B::Tensor> {
        let Some(own) = &shape.experts else { return Ok(x.clone()) };
        let scores = backend.to_host(&backend.linear(x, &self.router)?)?;
        let rows = scores.len() / own.count.max(1);
        let mut by_expert = vec![Vec::new(); self.experts.len()];
        for (row, scores) in scores.chunks_exact(own.count.max(1)).enumerate() {
            for (expert, weight) in choose(scores, own.active, own.normalised) {
                by_expert[expert].push((row, weight));
            }
        }
        if let (Some(gate), Some(shared)) = (&self.shared_gate, by_expert.last_mut()) {
            let gates = backend.to_host(&backend.linear(x, gate)?)?;
            shared.extend(gates.iter().map(|gate| 1.0 / (1.0 + (-gate).exp())).enumerate());
        }
        let routes = Routes { rows, features: shape.hidden, by_expert };
        backend.experts(x, &self.experts, &routes, shape.activation)
    }
}

/// The `active` experts with the largest scores, the first of equals, each with its share of the softmax: over all
/// scores, or over those chosen.
fn choose(scores: &[f32], active: usize, normalised: bool) -> impl Iterator<Item = (usize, f32)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let largest = order.first().map_or(0.0, |&expert| scores[expert]);
    let chosen = active.min(order.len());
    let counted = if normalised { chosen } else { order.len() };
    let share = |expert: usize| (scores[expert] - largest).exp();
    let sum: f32 = order[..counted].iter().map(|&expert| share(expert)).sum();
    let chosen: Vec<_> = order[..chosen].iter().map(|&expert| (expert, share(expert) / sum)).collect();
    chosen.into_iter()
}

#[cfg(test)]
mod tests {
    use super::choose;

    #[test]
    fn the_largest_scores_are_chosen_and_the_first_of_equals() {
        let chosen: Vec<_> = choose(&[1.0, 3.0, 3.0, 2.0], 2, true).collect();
        assert_eq!(chosen, [(1, 0.5), (2, 0.5)]);
        let chosen: Vec<_> = choose(&[0.0; 4], 1, false).collect();
        assert_eq!(chosen, [(0, 0.25)]);
        assert_eq!(choose(&[5.0], 1, false).collect::<Vec<_>>(), [(0, 1.0)]);
    }

    #[test]
    fn scores_that_are_no_numbers_still_choose_experts_that_exist() {
        let chosen: Vec<_> = choose(&[f32::NAN, 1.0, f32::INFINITY], 2, true).map(|(expert, _)| expert).collect();
        assert!(chosen.len() == 2 && chosen.iter().all(|expert| *expert < 3));
    }
}
