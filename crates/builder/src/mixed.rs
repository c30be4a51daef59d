//! Bits by layer: which modules a mixed recipe gives more bits, exactly as mlx-lm 0.32.2 chooses them for the recipes
//! of the same names.

use std::collections::BTreeSet;

use mlxctl_modelspec::{MixedRecipe, QuantizeScheme};

use crate::Error;

/// A mixed recipe on one model.
pub(crate) struct Mixed {
    recipe: MixedRecipe,
    /// Which part of a module's path is the number of its layer.
    position: usize,
    layers: usize,
}

impl Mixed {
    /// Finds the layers among the paths of a model's modules.
    pub(crate) fn of<'a>(recipe: MixedRecipe, modules: impl Iterator<Item = &'a str>) -> Result<Self, Error> {
        let mut position = None;
        let mut layers = BTreeSet::new();
        for module in modules.filter(|module| module.contains("down_proj")) {
            let parts: Vec<&str> = module.split('.').collect();
            let position = *position.get_or_insert(parts.iter().position(|part| is_number(part)).unwrap_or(0));
            layers.extend(parts.get(position).map(|part| (*part).to_owned()));
        }
        match position {
            Some(position) => Ok(Self { recipe, position, layers: layers.len() }),
            None => Err(Error::Unfit {
                key: "quantize.recipe".to_owned(),
                reason: format!(
                    "{} chooses bits by the layers' down_proj modules, and the model has none",
                    recipe.name()
                ),
            }),
        }
    }

    /// The scheme of a module: `base` with the recipe's bits.
    pub(crate) fn scheme(&self, base: QuantizeScheme, module: &str) -> QuantizeScheme {
        let (low, high) = self.recipe.widths();
        let is_dear = ["v_proj", "v_a_proj", "v_b_proj", "down_proj"].iter().any(|part| module.contains(part));
        let is_high = module.contains("lm_head") || is_dear && self.is_sensitive(module);
        QuantizeScheme { bits: if is_high { high } else { low }, ..base }
    }

    /// The first eighth of the layers, the last, and every third between.
    fn is_sensitive(&self, module: &str) -> bool {
        let part = module.split('.').nth(self.position).filter(|part| is_number(part));
        let layer: usize = part.and_then(|part| part.parse().ok()).unwrap_or(0);
        let first = self.layers / 8;
        layer < first || layer >= 7 * self.layers / 8 || (layer - first) % 3 == 2
    }
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|digit| digit.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use mlxctl_modelspec::QuantizeMode;

    use super::*;

    #[test]
    fn a_model_without_layers_is_refused() {
        let error = Mixed::of(MixedRecipe::Mixed2And6, ["a", "b.0.c"].into_iter()).err().map(|e| e.to_string());
        assert!(error.is_some_and(|text| text.contains("mixed_2_6") && text.contains("down_proj")));
    }

    #[test]
    fn sensitive_layers_keep_more_bits() {
        let modules: Vec<String> = (0..16).map(|layer| format!("model.layers.{layer}.mlp.down_proj")).collect();
        let mixed = Mixed::of(MixedRecipe::Mixed4And6, modules.iter().map(String::as_str)).unwrap_or_else(|error| {
            panic!("{error}");
        });
        let base = QuantizeScheme { mode: QuantizeMode::Affine, bits: 4, group_size: 32 };
        let bits = |module: &str| mixed.scheme(base, module).bits;
        // 16 layers: the first two and the last two, and of the rest each third, counted from the third of them.
        let high: Vec<usize> =
            (0..16).filter(|layer| bits(&format!("model.layers.{layer}.self_attn.v_proj")) == 6).collect();
        assert_eq!(high, [0, 1, 4, 7, 10, 13, 14, 15]);
        assert_eq!((bits("model.layers.0.self_attn.q_proj"), bits("model.embed_tokens"), bits("lm_head")), (4, 4, 6));
        assert_eq!(bits("model.layers.4.mlp.down_proj"), 6);
    }
}
