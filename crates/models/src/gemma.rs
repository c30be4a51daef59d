//! Gemma 1, 2 and 3 (text): norms whose weights are kept less 1, an embedding scaled by the root of its width; from the
//! second on norms around the blocks, soft caps, and layers that see a window; in the third norms of queries and keys.

use mlxctl_backend::{Activation, Backend};
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::config::Fields;
use crate::decoder::Decoder;
use crate::model::Model;
use crate::rope;
use crate::shape::{Defaults, NormKind, NormPlaces, QkNorm, Rotation, Shape};

/// Loads a model whose `model_type` is `gemma`, `gemma2` or `gemma3_text`.
pub(crate) fn load<B: Backend>(
    backend: &B,
    fields: &Fields<'_>,
    checkpoint: &Checkpoint,
) -> Result<Box<dyn Model<B>>, Error> {
    Decoder::load(backend, fields, checkpoint, shape(fields)?)
}

fn shape(fields: &Fields<'_>) -> Result<Shape, Error> {
    // Files of Gemma 1 name an activation under `hidden_act` that newer ones correct under `hidden_activation`.
    let key = if fields.has("hidden_activation") { "hidden_activation" } else { "hidden_act" };
    let defaults = Defaults {
        epsilon: ("rms_norm_eps", Some(1e-6)),
        activation: (key, Activation::GeluTanh),
        head_dim: Some(256),
        ..Defaults::default()
    };
    let mut shape = match fields.text("model_type")? {
        "gemma2" => gemma2(fields, defaults)?,
        "gemma3_text" => gemma3(fields, defaults)?,
        _ => {
            let mut shape = Shape::read(fields, "gemma", Defaults { tied: Some(true), ..defaults })?;
            shape.embedding_scale = (shape.hidden as f64).sqrt() as f32;
            shape
        }
    };
    shape.norm = NormKind::Rms { offset: 1.0 };
    Ok(shape)
}

/// Factor on the scores, from the number whose root divides them.
fn query_scale(fields: &Fields<'_>, default: f64) -> Result<f32, Error> {
    let scalar = fields.optional_number("query_pre_attn_scalar", 1e-3..=1e9)?.unwrap_or(default);
    Ok(scalar.powf(-0.5) as f32)
}

/// A cap of scores or logits: none where config.json says null.
fn cap(fields: &Fields<'_>, key: &str, default: Option<f64>) -> Result<Option<f32>, Error> {
    let cap = fields.optional_number(key, 1e-3..=1e9)?;
    Ok(cap.or(default.filter(|_| !fields.is_null(key))).map(|cap| cap as f32))
}

fn gemma2(fields: &Fields<'_>, defaults: Defaults) -> Result<Shape, Error> {
    let mut shape = Shape::read(fields, "gemma2", Defaults { tied: Some(true), ..defaults })?;
    shape.embedding_scale = (shape.hidden as f64).sqrt() as f32;
    shape.places = NormPlaces::AROUND;
    shape.attention.scale = query_scale(fields, 144.0)?;
    shape.attention.soft_cap = cap(fields, "attn_logit_softcapping", Some(50.0))?;
    shape.logit_cap = cap(fields, "final_logit_softcapping", Some(30.0))?;
    if fields.has("sliding_window") {
        shape.read_alternating_windows(fields, 2)?;
    }
    Ok(shape)
}

fn gemma3(fields: &Fields<'_>, defaults: Defaults) -> Result<Shape, Error> {
    let mut shape = Shape::read(fields, "gemma3", defaults.with_theta(Some(1_000_000.0)))?;
    // The reference rounds the factor to the type of its weights.
    shape.embedding_scale = rounded_to_bf16((shape.hidden as f64).sqrt() as f32);
    shape.places = NormPlaces::AROUND;
    shape.attention.norm = QkNorm::Heads;
    shape.attention.scale = query_scale(fields, 256.0)?;
    shape.attention.soft_cap = cap(fields, "attn_logit_softcapping", None)?;
    shape.logit_cap = cap(fields, "final_logit_softcapping", None)?;
    let period = fields.optional_count("sliding_window_pattern", 1..=1 << 12)?.unwrap_or(6);
    shape.read_alternating_windows(fields, period)?;
    shape.attention.local_rope = Some(rope::local_rope(fields, shape.head_dim, "rope_local_base_freq", 10_000.0)?);
    for layer in shape.layers.iter_mut().filter(|layer| layer.window.is_some()) {
        layer.rotation = Rotation::Local;
    }
    Ok(shape)
}

/// The nearest number of eight bits, ties to even.
fn rounded_to_bf16(number: f32) -> f32 {
    let bits = number.to_bits();
    f32::from_bits((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000)
}

#[cfg(test)]
mod tests {
    use super::rounded_to_bf16;

    #[test]
    fn the_factor_on_the_embedding_is_that_of_bf16() {
        // Gemma 3 1B and 4B: the roots of 1152 and 2560.
        assert_eq!(rounded_to_bf16(1152_f32.sqrt()), 34.0);
        assert_eq!(rounded_to_bf16(2560_f32.sqrt()), 50.5);
    }
}
