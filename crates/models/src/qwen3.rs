//! Qwen3 and its mixtures of experts: queries and keys are normed head by head before they rotate, and the head size
//! stands on its own.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::shape::{Defaults, ExpertsShape, QkNorm, Shape};

/// Loads a model whose `model_type` is `qwen3` or `qwen3_moe`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let defaults = Defaults { head_dim: Some(128), ..Defaults::default() }.with_theta(None);
    let mut shape = Shape::read(fields, "qwen3", defaults)?;
    shape.attention.norm = QkNorm::Heads;
    shape.read_upper_windows(fields)?;
    if shape.model_type == "qwen3_moe" {
        let (count, active) = ExpertsShape::read_counts(fields, "num_experts")?;
        shape.experts = Some(ExpertsShape {
            count,
            active,
            intermediate: fields.count("moe_intermediate_size", 1..=1 << 22)?,
            normalised: fields.flag("norm_topk_prob")?,
            shared: None,
            module: "mlp",
            names: ["gate_proj", "up_proj", "down_proj"],
        });
        shape.read_sparse_layers(fields)?;
    }
    Ok(shape)
}
