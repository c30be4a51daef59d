//! StarCoder2: layer norms, biases everywhere, and an MLP without a gate.

use mlxctl_backend::{Activation, Backend};
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::shape::{Defaults, MlpKind, MlpShape, NormKind, Shape};

/// Loads a model whose `model_type` is `starcoder2`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let defaults = Defaults {
        epsilon: ("norm_epsilon", Some(1e-5)),
        activation: ("hidden_act", Activation::GeluTanh),
        ..Defaults::default()
    };
    let mut shape = Shape::read(fields, "starcoder2", defaults.with_theta(Some(100_000.0)))?;
    let bias = fields.optional_flag("use_bias")?.unwrap_or(true);
    shape.norm = NormKind::Layer { bias: true };
    shape.attention.input_bias = bias;
    shape.attention.output_bias = bias;
    shape.mlp = MlpShape { kind: MlpKind::Plain, bias };
    shape.read_common_window(fields)?;
    Ok(shape)
}
