//! Llama, and Mistral with it: optional biases, rotary scaling, and in Mistral a window over all layers.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::shape::{Defaults, Shape};

/// Loads a model whose `model_type` is `llama` or `mistral`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::read(fields, "llama", Defaults::default())?;
    shape.mlp.bias = fields.flag("mlp_bias")?;
    // Mistral 7B v0.1 slides over all layers; Llama configurations mean a window only where layer_types says so.
    if shape.model_type == "mistral" {
        shape.read_common_window(fields)?;
    } else {
        shape.read_layer_types(fields)?;
    }
    Ok(shape)
}
