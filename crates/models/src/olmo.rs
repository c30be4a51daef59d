//! OLMo 2 and 3: norms after the blocks, and of all heads of queries and keys together; in the third, layers that see a
//! window and rotate unstretched.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::rope;
use crate::shape::{Defaults, NormPlaces, QkNorm, Rotation, Shape};

/// Loads a model whose `model_type` is `olmo2` or `olmo3`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let mut shape = Shape::read(fields, "olmo", Defaults::default())?;
    shape.places = NormPlaces::AFTER;
    shape.attention.norm = QkNorm::Projections;
    shape.mlp.bias = fields.flag("mlp_bias")?;
    if shape.model_type == "olmo3" {
        shape.read_alternating_windows(fields, 4)?;
        shape.attention.local_rope = Some(rope::local_rope(fields, shape.head_dim, "rope_theta", 10_000.0)?);
        for layer in shape.layers.iter_mut().filter(|layer| layer.window.is_some()) {
            layer.rotation = Rotation::Local;
        }
    }
    Ok(shape)
}
