//! `options`: how an answer is sampled. Ollama passes over the names it does not know, and takes `8.0` for `8`.

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::invalid::within;
use crate::{Invalid, Strings};

/// The options that this server honours.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Options {
    /// 0 is greedy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// The likeliest tokens; 0 is all.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub top_k: Option<i64>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_p: Option<f64>,
    /// Seed of the generator.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub seed: Option<i64>,
    /// Tokens of an answer at the most; negative is as many as there is room for.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub num_predict: Option<i64>,
    /// Tokens of prompt and answer together at the most.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub num_ctx: Option<i64>,
    /// Divides the logits of tokens that came before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f64>,
    /// How many of the last tokens the penalties look at; −1 is all.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "whole")]
    pub repeat_last_n: Option<i64>,
    /// −2 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// −2 to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// The answer ends before the first of these.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Strings>,
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), Invalid> {
        within("options.temperature", self.temperature, 0.0, f64::INFINITY)?;
        within("options.top_p", self.top_p, 0.0, 1.0)?;
        within("options.top_k", self.top_k.map(|value| value as f64), -1.0, f64::INFINITY)?;
        within("options.min_p", self.min_p, 0.0, 1.0)?;
        within("options.num_ctx", self.num_ctx.map(|value| value as f64), 0.0, f64::INFINITY)?;
        within("options.repeat_last_n", self.repeat_last_n.map(|value| value as f64), -1.0, f64::INFINITY)?;
        within("options.presence_penalty", self.presence_penalty, -2.0, 2.0)?;
        within("options.frequency_penalty", self.frequency_penalty, -2.0, 2.0)?;
        if self.repeat_penalty.is_some_and(|value| value <= 0.0) {
            return Err(Invalid::field("options.repeat_penalty", "expected a number greater than 0"));
        }
        Ok(())
    }
}

/// A whole number, also one written with a point.
fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    struct Shape;
    impl<'de> Visitor<'de> for Shape {
        type Value = Option<i64>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a whole number")
        }

        fn visit_none<E: de::Error>(self) -> Result<Option<i64>, E> {
            Ok(None)
        }

        fn visit_unit<E: de::Error>(self) -> Result<Option<i64>, E> {
            Ok(None)
        }

        fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Option<i64>, D::Error> {
            deserializer.deserialize_any(Shape)
        }

        fn visit_i64<E: de::Error>(self, value: i64) -> Result<Option<i64>, E> {
            Ok(Some(value))
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<Option<i64>, E> {
            // A seed may use all 64 bits; it keeps them.
            Ok(Some(value as i64))
        }

        fn visit_f64<E: de::Error>(self, value: f64) -> Result<Option<i64>, E> {
            if value.is_finite() && value.fract() == 0.0 && value.abs() < 9.0e18 {
                Ok(Some(value as i64))
            } else {
                Err(E::invalid_type(de::Unexpected::Float(value), &self))
            }
        }
    }
    deserializer.deserialize_option(Shape)
}
