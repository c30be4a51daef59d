//! GLM-4: norms around the blocks, half of a head rotated with neighbours as pairs, and gate and up in one matrix.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::shape::{Defaults, MlpKind, NormPlaces, Shape};

/// Loads a model whose `model_type` is `glm4`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let mut defaults = Defaults { head_dim: Some(128), ..Defaults::default() };
    defaults.rope.interleaved = true;
    defaults.rope.partial = Some(0.5);
    let mut shape = Shape::read(fields, "glm4", defaults)?;
    shape.places = NormPlaces {
        attention_input: Some("input_layernorm"),
        attention_output: Some("post_self_attn_layernorm"),
        mlp_input: Some("post_attention_layernorm"),
        mlp_output: Some("post_mlp_layernorm"),
        parallel: false,
    };
    shape.attention.output_bias = false;
    shape.mlp.kind = MlpKind::FusedGate;
    Ok(shape)
}
