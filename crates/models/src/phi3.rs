//! Phi-3 and Phi-4: queries, keys and values in one matrix, gate and up in another, and LongRoPE over a part of a head.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::shape::{Defaults, MlpKind, Shape};

/// Loads a model whose `model_type` is `phi3`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let mut defaults = Defaults { tied: Some(false), ..Defaults::default() };
    defaults.rope.partial = Some(1.0);
    let mut shape = Shape::read(fields, "phi3", defaults)?;
    shape.attention.fused = true;
    shape.mlp.kind = MlpKind::FusedGate;
    shape.read_common_window(fields)?;
    Ok(shape)
}
