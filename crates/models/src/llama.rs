//! Llama, and Mistral with it: optional biases, rotary scaling, and in Mistral a window over all layers.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::{Decoder, Defaults, Shape};
use crate::model::Model;

/// Loads a model whose `model_type` is `llama` or `mistral`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::read(fields, "llama", Defaults { theta: Some(10_000.0), head_dim: None })?;
    shape.mlp_bias = fields.flag("mlp_bias")?;
    let has_types = shape.read_layer_types(fields)?;
    // Mistral 7B v0.1 slides over all layers; Llama configurations mean a window only where layer_types says so.
    if !has_types && shape.model_type == "mistral" {
        let window = fields.optional_count("sliding_window", 1..=1 << 30)?;
        shape.windows.fill(window);
    }
    Ok(shape)
}
