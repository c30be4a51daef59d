//! The frequencies of the rotary embedding, plain and stretched: from the `rope_*` fields of config.json to a
//! [`Rope`]. Computed in f64, rounded once.

use std::f64::consts::TAU;

use mlxctl_backend::Rope;

use crate::Error;
use crate::config::Fields;

/// What a family takes where config.json is silent, and what it lets config.json say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RopeDefaults {
    /// The base; none where it must be there.
    pub(crate) theta: Option<f64>,
    /// Whether pairs are neighbours rather than halves.
    pub(crate) interleaved: bool,
    /// The part of a head that rotates where config.json does not say; none where the family rotates whole heads.
    pub(crate) partial: Option<f64>,
}

/// Where the fields of the rotary embedding stand.
#[derive(Clone, Copy)]
struct Source<'a> {
    fields: &'a Fields<'a>,
    /// `rope_scaling`, or `rope_parameters`.
    scaling: Option<Fields<'a>>,
}

/// Bases of the rotary embedding: real ones reach from 10⁴ to 10⁸.
const THETAS: std::ops::RangeInclusive<f64> = 1.0..=1e12;

/// Reads `rope_theta`, `rope_scaling` (or `rope_parameters`, as newer configurations nest both),
/// `partial_rotary_factor` and `rope_traditional`.
pub(crate) fn rope(fields: &Fields<'_>, head_dim: usize, defaults: RopeDefaults) -> Result<Rope, Error> {
    let nested = nested(fields, "full_attention", "rope_parameters.full_attention.")?;
    let scaling = match fields.optional_object("rope_scaling", "rope_scaling.")? {
        Some(scaling) => Some(scaling),
        None => nested,
    };
    let theta = match theta(fields, nested)?.or(defaults.theta) {
        Some(theta) => theta,
        None => fields.number("rope_theta", THETAS)?,
    };
    let mut part = defaults.partial.unwrap_or(1.0);
    for fields in [Some(*fields), nested].into_iter().flatten() {
        let Some(own) = fields.optional_number("partial_rotary_factor", 0.0..=1.0)? else { continue };
        if own != 1.0 && defaults.partial.is_none() {
            return Err(fields.wrong("partial_rotary_factor", "1: this family rotates whole heads"));
        }
        part = own;
    }
    let rotated = (head_dim as f64 * part) as usize;
    if rotated < 2 || !rotated.is_multiple_of(2) {
        let expected = format!("a part of head_dim, {head_dim}, that is an even number, not {rotated}");
        return Err(fields.wrong("partial_rotary_factor", expected));
    }
    let (frequencies, magnitude) = stretch(Source { fields, scaling }, theta, plain_frequencies(theta, rotated))?;
    if let Some(scaling) = scaling
        && !frequencies.iter().chain([&magnitude]).all(|number| (*number as f32).is_finite())
    {
        return Err(scaling.wrong("factor", "a value that gives finite frequencies with the other fields"));
    }
    Ok(Rope {
        head_dim,
        inverse_frequencies: frequencies.into_iter().map(|frequency| frequency as f32).collect(),
        interleaved: fields.optional_flag("rope_traditional")?.unwrap_or(defaults.interleaved),
        magnitude: magnitude as f32,
    })
}

/// The unstretched rotation of whole heads in layers that see a window: its base stands under `key`, or in
/// `rope_parameters` under `sliding_attention`.
pub(crate) fn local_rope(fields: &Fields<'_>, head_dim: usize, key: &str, default_theta: f64) -> Result<Rope, Error> {
    let nested = nested(fields, "sliding_attention", "rope_parameters.sliding_attention.")?;
    let nested_theta = match nested {
        Some(nested) => nested.optional_number("rope_theta", THETAS)?,
        None => None,
    };
    let theta = fields.optional_number(key, THETAS)?.or(nested_theta).unwrap_or(default_theta);
    let frequencies = plain_frequencies(theta, head_dim);
    Ok(Rope {
        head_dim,
        inverse_frequencies: frequencies.into_iter().map(|frequency| frequency as f32).collect(),
        interleaved: false,
        magnitude: 1.0,
    })
}

/// `rope_parameters`: its part for this type of layers where it has one for each type.
fn nested<'a>(fields: &Fields<'a>, layer_type: &str, prefix: &'a str) -> Result<Option<Fields<'a>>, Error> {
    let Some(nested) = fields.optional_object("rope_parameters", "rope_parameters.")? else { return Ok(None) };
    Ok(nested.optional_object(layer_type, prefix)?.or(Some(nested)))
}

fn theta(fields: &Fields<'_>, nested: Option<Fields<'_>>) -> Result<Option<f64>, Error> {
    let nested = match nested {
        Some(nested) => nested.optional_number("rope_theta", THETAS)?,
        None => None,
    };
    Ok(fields.optional_number("rope_theta", THETAS)?.or(nested))
}

fn plain_frequencies(theta: f64, rotated: usize) -> Vec<f64> {
    let pairs = rotated / 2;
    (0..pairs).map(|pair| theta.powf(-(pair as f64) / pairs as f64)).collect()
}

/// Stretches the frequencies as `rope_scaling` says; gives the factor on the rotated features too.
fn stretch(source: Source<'_>, theta: f64, frequencies: Vec<f64>) -> Result<(Vec<f64>, f64), Error> {
    let Some(scaling) = source.scaling else { return Ok((frequencies, 1.0)) };
    // Older files say `type`.
    let key = if scaling.has("type") { "type" } else { "rope_type" };
    match scaling.optional_text(key)?.unwrap_or("default") {
        // Several axes of an image's position; those of text are all the same.
        "default" | "mrope" => Ok((frequencies, 1.0)),
        // Stretches what lies beyond the trained context alone, and no sequence here is longer than that.
        "dynamic" => {
            factor(&scaling)?;
            Ok((frequencies, 1.0))
        }
        "linear" => {
            let factor = factor(&scaling)?;
            Ok((frequencies.into_iter().map(|frequency| frequency / factor).collect(), 1.0))
        }
        "llama3" => Ok((llama3(&scaling, frequencies)?, 1.0)),
        "yarn" | "deepseek_yarn" => yarn(&scaling, theta, frequencies),
        "longrope" | "su" => longrope(source, &scaling, frequencies),
        _ => Err(scaling.wrong(key, "default, linear, dynamic, llama3, yarn or longrope")),
    }
}

fn factor(scaling: &Fields<'_>) -> Result<f64, Error> {
    scaling.number("factor", 1e-3..=1e6)
}

/// Waves much shorter than the original context stay, much longer ones are stretched, and in between the two are
/// blended.
fn llama3(scaling: &Fields<'_>, frequencies: Vec<f64>) -> Result<Vec<f64>, Error> {
    let factor = factor(scaling)?;
    let range = 1e-3..=1e6;
    let low = scaling.optional_number("low_freq_factor", range.clone())?.unwrap_or(1.0);
    let high = scaling.optional_number("high_freq_factor", range)?.unwrap_or(4.0);
    let original = original_context(scaling)?.unwrap_or(8192) as f64;
    if high <= low {
        return Err(scaling.wrong("high_freq_factor", format!("more than low_freq_factor, {low}")));
    }
    let stretched = frequencies.into_iter().map(|frequency| {
        let waves = original * frequency / TAU;
        let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
        frequency * (kept + (1.0 - kept) / factor)
    });
    Ok(stretched.collect())
}

/// YaRN (arXiv:2309.00071): a pair that turns more than `beta_fast` times over the original context stays, one that
/// turns less than `beta_slow` times is stretched, and a ramp over the pairs lies between. The rotated features grow
/// with the logarithm of the factor.
fn yarn(scaling: &Fields<'_>, theta: f64, frequencies: Vec<f64>) -> Result<(Vec<f64>, f64), Error> {
    let factor = factor(scaling)?;
    let original = original_context(scaling)?.unwrap_or(4096) as f64;
    let range = 1e-3..=1e6;
    let fast = scaling.optional_number("beta_fast", range.clone())?.unwrap_or(32.0);
    let slow = scaling.optional_number("beta_slow", range)?.unwrap_or(1.0);
    let pairs = frequencies.len() as f64;
    let pair_of = |turns: f64| pairs * (original / (turns * TAU)).ln() / theta.ln();
    let first = pair_of(fast).floor().max(0.0);
    let last = pair_of(slow).ceil().min(2.0 * pairs - 1.0);
    // A ramp without length would divide by nothing.
    let last = if first == last { last + 0.001 } else { last };
    let stretched = frequencies.into_iter().enumerate().map(|(pair, frequency)| {
        let stretched = ((pair as f64 - first) / (last - first)).clamp(0.0, 1.0);
        frequency * ((1.0 - stretched) + stretched / factor)
    });
    let stretched = stretched.collect();
    let magnitude_of = |scale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * scale * factor.ln() + 1.0 };
    let scale = scaling.optional_number("mscale", 0.0..=100.0)?.unwrap_or(1.0);
    let scale_of_all = scaling.optional_number("mscale_all_dim", 0.0..=100.0)?.unwrap_or(0.0);
    let magnitude = match scaling.optional_number("attention_factor", 1e-3..=1e3)? {
        Some(magnitude) => magnitude,
        None => magnitude_of(scale) / magnitude_of(scale_of_all),
    };
    Ok((stretched, magnitude))
}

/// LongRoPE (arXiv:2402.13753): a factor for each pair. The long factors serve at every length, as in mlx-lm: keys
/// that are stored must not change with the length of what follows.
fn longrope(source: Source<'_>, scaling: &Fields<'_>, frequencies: Vec<f64>) -> Result<(Vec<f64>, f64), Error> {
    let factors = scaling.numbers("long_factor", frequencies.len(), 1e-6..=1e6)?;
    let original = match original_context(scaling)? {
        Some(original) => original,
        None => original_context(source.fields)?.unwrap_or(4096),
    } as f64;
    let context = source.fields.optional_count("max_position_embeddings", 1..=1 << 30)?.unwrap_or(131_072) as f64;
    let growth = context / original;
    let magnitude = match scaling.optional_number("attention_factor", 1e-3..=1e3)? {
        Some(magnitude) => magnitude,
        None if growth <= 1.0 => 1.0,
        None => (1.0 + growth.ln() / original.ln()).sqrt(),
    };
    let stretched = frequencies.into_iter().zip(factors).map(|(frequency, factor)| frequency / factor);
    Ok((stretched.collect(), magnitude))
}

fn original_context(fields: &Fields<'_>) -> Result<Option<usize>, Error> {
    fields.optional_count("original_max_position_embeddings", 1..=1 << 30)
}
