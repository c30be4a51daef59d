//! Granite: Llama with factors on the embedding, the scores, the residuals and the logits.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::shape::{Defaults, Shape};

/// Loads a model whose `model_type` is `granite`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::read(fields, "granite", Defaults::default())?;
    shape.mlp.bias = fields.flag("mlp_bias")?;
    let factor = |key: &str| Ok::<_, Error>(fields.optional_number(key, 1e-6..=1e6)?.unwrap_or(1.0) as f32);
    shape.embedding_scale = factor("embedding_multiplier")?;
    shape.residual_scale = factor("residual_multiplier")?;
    shape.attention.scale = factor("attention_multiplier")?;
    shape.logit_scale = 1.0 / factor("logits_scaling")?;
    Ok(shape)
}
