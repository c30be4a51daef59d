//! Qwen3: queries and keys are normed head by head before they rotate, and the head size stands on its own.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::{Decoder, Defaults, Shape};
use crate::model::Model;

/// Loads a model whose `model_type` is `qwen3`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::read(fields, "qwen3", Defaults { theta: None, head_dim: Some(128) })?;
    shape.qk_norm = true;
    let has_types = shape.read_layer_types(fields)?;
    if !has_types && fields.flag("use_sliding_window")? {
        // The upper layers slide, from `max_window_layers` on.
        let layers = shape.windows.len();
        let window = fields.optional_count("sliding_window", 1..=1 << 30)?;
        let full = fields.optional_count("max_window_layers", 0..=1 << 12)?.unwrap_or(layers).min(layers);
        shape.windows[full..].fill(window);
    }
    Ok(shape)
}
