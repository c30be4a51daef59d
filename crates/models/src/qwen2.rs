//! Qwen2 and its mixtures of experts: queries, keys and values have biases, and beside the experts that are chosen a
//! shared one computes every token.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::shape::{Defaults, ExpertsShape, Shape};

/// Loads a model whose `model_type` is `qwen2` or `qwen2_moe`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::read(fields, "qwen2", Defaults::default().with_theta(Some(1_000_000.0)))?;
    shape.attention.input_bias = true;
    shape.attention.output_bias = false;
    shape.read_upper_windows(fields)?;
    if shape.model_type == "qwen2_moe" {
        let (count, active) = ExpertsShape::read_counts(fields, "num_experts")?;
        shape.experts = Some(ExpertsShape {
            count,
            active,
            intermediate: fields.count("moe_intermediate_size", 1..=1 << 22)?,
            normalised: fields.flag("norm_topk_prob")?,
            shared: Some(fields.count("shared_expert_intermediate_size", 1..=1 << 22)?),
            module: "mlp",
            names: ["gate_proj", "up_proj", "down_proj"],
        });
        shape.read_sparse_layers(fields)?;
    }
    Ok(shape)
}
