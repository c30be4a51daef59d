//! Mixtral: Mistral with experts in the MLP's place.

use mlxctl_backend::Backend;
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::shape::{Defaults, ExpertsShape, Shape};

/// Loads a model whose `model_type` is `mixtral`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    let defaults = Defaults { epsilon: ("rms_norm_eps", Some(1e-5)), tied: Some(false), ..Defaults::default() };
    let mut shape = Shape::read(fields, "mixtral", defaults.with_theta(Some(1_000_000.0)))?;
    shape.read_common_window(fields)?;
    let (count, active) = ExpertsShape::read_counts(fields, "num_local_experts")?;
    shape.experts = Some(ExpertsShape {
        count,
        active,
        intermediate: shape.intermediate,
        normalised: true,
        shared: None,
        module: "block_sparse_moe",
        names: ["w1", "w3", "w2"],
    });
    shape.layers.iter_mut().for_each(|layer| layer.sparse = true);
    Ok(shape)
}
