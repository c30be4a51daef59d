//! Models of text and images whose part for text is a family of its own: `text_config` describes it, and its tensors
//! stand under `language_model`. What sees images is left alone.

use serde_json::json;

use crate::Error;
use crate::config::Config;

/// The configuration of the part for text, where `model_type` names such a model; else the configuration itself.
pub(crate) fn text_part(config: Config) -> Result<Config, Error> {
    let shared = ["quantization", "quantization_config", "vocab_size", "tie_word_embeddings"];
    match config.fields().text("model_type")? {
        // Its published files leave out what the reference takes as a matter of course.
        "gemma3" => {
            let defaults = [
                ("model_type", json!("gemma3_text")),
                ("num_attention_heads", json!(8)),
                ("num_key_value_heads", json!(4)),
                ("vocab_size", json!(262_208)),
                ("max_position_embeddings", json!(131_072)),
            ];
            config.text_part(&shared, &defaults)
        }
        "mistral3" => {
            config.text_part(&shared, &[("model_type", json!("mistral")), ("tie_word_embeddings", json!(false))])
        }
        _ => Ok(config),
    }
}

/// How the tensors of a decoder are called in its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// As the family calls them: `model.layers.0…`, `lm_head`.
    Plain,
    /// Under `language_model.`, as mlx-lm and older files do.
    Outside,
    /// `model.language_model.layers.0…` and `lm_head`, as newer files do.
    Inside,
}

impl Naming {
    /// The naming of a checkpoint, told by where its embedding stands.
    pub(crate) fn of(contains: impl Fn(&str) -> bool) -> Self {
        if contains("language_model.model.embed_tokens.weight") {
            Self::Outside
        } else if contains("model.language_model.embed_tokens.weight") {
            Self::Inside
        } else {
            Self::Plain
        }
    }

    /// The name in the files of what the family calls `name`.
    pub(crate) fn name(self, name: &str) -> String {
        match (self, name.strip_prefix("model.")) {
            (Self::Outside, _) => format!("language_model.{name}"),
            (Self::Inside, Some(rest)) => format!("model.language_model.{rest}"),
            _ => name.to_owned(),
        }
    }

    /// Whether a tensor belongs to the part for images.
    pub(crate) fn leaves_out(self, name: &str) -> bool {
        let name = name.strip_prefix("model.").unwrap_or(name);
        self != Self::Plain && (name.starts_with("vision_tower.") || name.starts_with("multi_modal_projector."))
    }
}

#[cfg(test)]
mod tests {
    use super::Naming;

    #[test]
    fn the_place_of_the_embedding_tells_the_names_of_all() {
        for (embedding, layer, head) in [
            ("model.embed_tokens.weight", "model.layers.0.x", "lm_head"),
            ("language_model.model.embed_tokens.weight", "language_model.model.layers.0.x", "language_model.lm_head"),
            ("model.language_model.embed_tokens.weight", "model.language_model.layers.0.x", "lm_head"),
        ] {
            let naming = Naming::of(|name| name == embedding);
            assert_eq!(naming.name("model.embed_tokens.weight"), embedding);
            assert_eq!((naming.name("model.layers.0.x").as_str(), naming.name("lm_head").as_str()), (layer, head));
            assert_eq!(naming.leaves_out("vision_tower.x"), naming != Naming::Plain);
            assert!(!naming.leaves_out(layer));
        }
    }
}
