//! The frequencies of the rotary embedding, plain and stretched: from the `rope_*` fields of config.json to a
//! [`Rope`]. Computed in f64, rounded once.

use std::f64::consts::TAU;

use mlxctl_backend::Rope;

use crate::Error;
use crate::config::Fields;

/// Reads `rope_theta`, `rope_scaling` (or `rope_parameters`, as newer configurations nest both) and
/// `rope_traditional`.
pub(crate) fn rope(fields: &Fields<'_>, head_dim: usize, default_theta: Option<f64>) -> Result<Rope, Error> {
    let nested = fields.optional_object("rope_parameters", "rope_parameters.")?;
    let scaling = match fields.optional_object("rope_scaling", "rope_scaling.")? {
        Some(scaling) => Some(scaling),
        None => nested,
    };
    let theta_range = 1.0..=1e12;
    let nested_theta = match nested {
        Some(nested) => nested.optional_number("rope_theta", theta_range.clone())?,
        None => None,
    };
    let theta = match fields.optional_number("rope_theta", theta_range.clone())?.or(nested_theta).or(default_theta) {
        Some(theta) => theta,
        None => fields.number("rope_theta", theta_range)?,
    };
    for fields in [Some(*fields), nested].into_iter().flatten() {
        if fields.optional_number("partial_rotary_factor", 0.0..=1.0)?.is_some_and(|factor| factor != 1.0) {
            return Err(fields.wrong("partial_rotary_factor", "1: this family rotates whole heads"));
        }
    }
    let pairs = head_dim / 2;
    let frequencies: Vec<f64> = (0..pairs).map(|pair| theta.powf(-(pair as f64) / pairs as f64)).collect();
    let frequencies = match scaling {
        None => frequencies,
        Some(scaling) => stretch(&scaling, frequencies)?,
    };
    Ok(Rope {
        head_dim,
        inverse_frequencies: frequencies.into_iter().map(|frequency| frequency as f32).collect(),
        interleaved: fields.flag("rope_traditional")?,
        magnitude: 1.0,
    })
}

/// Stretches the frequencies as `rope_scaling` says.
fn stretch(scaling: &Fields<'_>, frequencies: Vec<f64>) -> Result<Vec<f64>, Error> {
    // Older files say `type`.
    let key = if scaling.has("type") { "type" } else { "rope_type" };
    let factor = || scaling.number("factor", 1e-3..=1e6);
    match scaling.optional_text(key)?.unwrap_or("default") {
        "default" => Ok(frequencies),
        "linear" => {
            let factor = factor()?;
            Ok(frequencies.into_iter().map(|frequency| frequency / factor).collect())
        }
        "llama3" => {
            let factor = factor()?;
            let range = 1e-3..=1e6;
            let low = scaling.optional_number("low_freq_factor", range.clone())?.unwrap_or(1.0);
            let high = scaling.optional_number("high_freq_factor", range)?.unwrap_or(4.0);
            let original =
                scaling.optional_count("original_max_position_embeddings", 1..=1 << 30)?.unwrap_or(8192) as f64;
            if high <= low {
                return Err(scaling.wrong("high_freq_factor", format!("more than low_freq_factor, {low}")));
            }
            // Waves much shorter than the original context stay, much longer ones are stretched, and in between the
            // two are blended.
            Ok(frequencies
                .into_iter()
                .map(|frequency| {
                    let waves = original * frequency / TAU;
                    let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
                    frequency * (kept + (1.0 - kept) / factor)
                })
                .collect())
        }
        _ => Err(scaling.wrong(key, "default, linear or llama3")),
    }
}
