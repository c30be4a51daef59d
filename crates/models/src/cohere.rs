//! Cohere (Command R) and Cohere2 (Command R7B, Aya): attention and MLP side by side behind one layer norm, neighbours
//! rotated as pairs, a factor on the logits; in the second only the layers that see a window rotate.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::shape::{Defaults, NormKind, NormPlaces, Rotation, Shape};

/// Loads a model whose `model_type` is `cohere` or `cohere2`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let mut defaults = Defaults { epsilon: ("layer_norm_eps", Some(1e-5)), tied: Some(true), ..Defaults::default() };
    defaults.rope.interleaved = true;
    let mut shape = Shape::read(fields, "cohere", defaults)?;
    shape.places = NormPlaces::ONCE;
    shape.norm = NormKind::Layer { bias: fields.flag("layer_norm_bias")? };
    shape.logit_scale = fields.optional_number("logit_scale", 1e-6..=1e6)?.unwrap_or(0.0625) as f32;
    if fields.flag("use_qk_norm")? {
        return Err(fields.wrong("use_qk_norm", "false: norms with weights for each head are not supported yet"));
    }
    if shape.model_type == "cohere2" {
        let period = fields.optional_count("sliding_window_pattern", 1..=1 << 12)?.unwrap_or(4);
        shape.read_alternating_windows(fields, period)?;
        for layer in shape.layers.iter_mut().filter(|layer| layer.window.is_none()) {
            layer.rotation = Rotation::None;
        }
    }
    Ok(shape)
}
