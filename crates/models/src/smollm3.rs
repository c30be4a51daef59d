//! SmolLM3: Llama with layers that do not rotate.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::shape::{Defaults, Rotation, Shape};

/// Loads a model whose `model_type` is `smollm3`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::read(fields, "smollm3", Defaults::default())?;
    shape.mlp.bias = fields.flag("mlp_bias")?;
    shape.read_layer_types(fields)?;
    let layers = shape.layers.len();
    let period = fields.optional_count("no_rope_layer_interval", 1..=1 << 12)?.unwrap_or(4);
    // The list says 1 of the layers that do rotate.
    let listed = fields.optional_counts("no_rope_layers", layers, 0..=1)?;
    if listed.as_ref().is_some_and(|listed| listed.len() != layers) {
        return Err(fields.wrong("no_rope_layers", format!("a list of {layers} numbers, one a layer")));
    }
    for (index, layer) in shape.layers.iter_mut().enumerate() {
        let rotates = match &listed {
            Some(listed) => listed[index] == 1,
            None => !(index + 1).is_multiple_of(period),
        };
        layer.rotation = if rotates { Rotation::Global } else { Rotation::None };
    }
    Ok(shape)
}
