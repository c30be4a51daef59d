//! What a decoder is made of: the fields that a family fills in from its config.json, checked. What differs between
//! families is a value here; the blocks read it and know no family.

use mlxctl_backend::{Activation, Rope};

use crate::Error;
use crate::config::Fields;
use crate::rope::{self, RopeDefaults};

/// What a decoder is made of, read from config.json and checked.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) family: &'static str,
    pub(crate) model_type: String,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocabulary: usize,
    pub(crate) context: usize,
    /// Whether the embedding is the head too; `None` where config.json leaves it to the weights.
    pub(crate) tied: Option<bool>,
    /// Factor on the embedding.
    pub(crate) embedding_scale: f32,
    /// Factor on what a block adds to the residual.
    pub(crate) residual_scale: f32,
    /// Factor on the logits.
    pub(crate) logit_scale: f32,
    /// Logits become `cap · tanh(logit / cap)`.
    pub(crate) logit_cap: Option<f32>,
    pub(crate) norm: NormKind,
    pub(crate) epsilon: f32,
    pub(crate) places: NormPlaces,
    pub(crate) attention: AttentionShape,
    pub(crate) mlp: MlpShape,
    /// The experts of the layers that are [`LayerShape::sparse`].
    pub(crate) experts: Option<ExpertsShape>,
    pub(crate) activation: Activation,
    pub(crate) layers: Vec<LayerShape>,
}

/// How norms are computed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum NormKind {
    /// By the root mean square; `offset` is added to the weight.
    Rms { offset: f32 },
    /// By mean and standard deviation.
    Layer { bias: bool },
}

/// Where in a layer norms stand, by the names of their weights.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NormPlaces {
    pub(crate) attention_input: Option<&'static str>,
    pub(crate) attention_output: Option<&'static str>,
    pub(crate) mlp_input: Option<&'static str>,
    pub(crate) mlp_output: Option<&'static str>,
    /// Attention and MLP read the same normed input, and the residual takes both at once.
    pub(crate) parallel: bool,
}

impl NormPlaces {
    /// Before each block, as in Llama.
    pub(crate) const BEFORE: Self = Self {
        attention_input: Some("input_layernorm"),
        attention_output: None,
        mlp_input: Some("post_attention_layernorm"),
        mlp_output: None,
        parallel: false,
    };
    /// After each block, as in OLMo2.
    pub(crate) const AFTER: Self = Self {
        attention_input: None,
        attention_output: Some("post_attention_layernorm"),
        mlp_input: None,
        mlp_output: Some("post_feedforward_layernorm"),
        parallel: false,
    };
    /// Before and after each block, as in Gemma 2.
    pub(crate) const AROUND: Self = Self {
        attention_input: Some("input_layernorm"),
        attention_output: Some("post_attention_layernorm"),
        mlp_input: Some("pre_feedforward_layernorm"),
        mlp_output: Some("post_feedforward_layernorm"),
        parallel: false,
    };
    /// Once, before both blocks, as in Cohere.
    pub(crate) const ONCE: Self = Self {
        attention_input: Some("input_layernorm"),
        attention_output: None,
        mlp_input: None,
        mlp_output: None,
        parallel: true,
    };
}

/// The attention of all layers.
#[derive(Debug)]
pub(crate) struct AttentionShape {
    /// Queries, keys and values in one matrix, `qkv_proj`.
    pub(crate) fused: bool,
    pub(crate) input_bias: bool,
    pub(crate) output_bias: bool,
    pub(crate) norm: QkNorm,
    pub(crate) scale: f32,
    pub(crate) soft_cap: Option<f32>,
    pub(crate) rope: Rope,
    /// The rotation of the layers that are [`Rotation::Local`].
    pub(crate) local_rope: Option<Rope>,
}

/// What of queries and keys is normed before they rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QkNorm {
    /// Nothing.
    None,
    /// Each head, all with the same weights.
    Heads,
    /// All heads together.
    Projections,
}

/// The MLP of the layers that are not sparse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MlpKind {
    /// `gate_proj`, `up_proj`, `down_proj`.
    Gated,
    /// `gate_up_proj`, `down_proj`.
    FusedGate,
    /// `c_fc`, `c_proj`, without a gate.
    Plain,
}

/// The MLP of the layers that are not sparse.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MlpShape {
    pub(crate) kind: MlpKind,
    pub(crate) bias: bool,
}

/// A mixture of experts.
#[derive(Debug, Clone)]
pub(crate) struct ExpertsShape {
    pub(crate) count: usize,
    /// Experts that compute a token.
    pub(crate) active: usize,
    pub(crate) intermediate: usize,
    /// Whether the weights of the chosen experts are made to sum to 1.
    pub(crate) normalised: bool,
    /// Features of the expert that computes every token behind a gate of its own.
    pub(crate) shared: Option<usize>,
    /// The module under the layer.
    pub(crate) module: &'static str,
    /// Names of gate, up and down where each expert has tensors of its own.
    pub(crate) names: [&'static str; 3],
}

/// What one layer has of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LayerShape {
    /// Tokens it sees, its own among them; all where there is none.
    pub(crate) window: Option<usize>,
    pub(crate) rotation: Rotation,
    /// Whether experts stand in the MLP's place.
    pub(crate) sparse: bool,
}

/// How a layer's queries and keys rotate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// By [`AttentionShape::rope`].
    Global,
    /// By [`AttentionShape::local_rope`].
    Local,
    /// Not at all.
    None,
}

/// What a family takes where config.json leaves a field out; none where it must be there or follows from others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Defaults {
    pub(crate) rope: RopeDefaults,
    pub(crate) head_dim: Option<usize>,
    /// Name and default of the field with the norms' epsilon.
    pub(crate) epsilon: (&'static str, Option<f64>),
    /// The field that names the activation, and what it is where the field is absent.
    pub(crate) activation: (&'static str, Activation),
    /// Whether the embedding is the head where config.json is silent; none leaves it to the weights.
    pub(crate) tied: Option<bool>,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            rope: RopeDefaults { theta: Some(10_000.0), ..RopeDefaults::default() },
            head_dim: None,
            epsilon: ("rms_norm_eps", None),
            activation: ("hidden_act", Activation::Silu),
            tied: None,
        }
    }
}

impl Defaults {
    /// The same with another base of the rotary embedding.
    pub(crate) fn with_theta(mut self, theta: Option<f64>) -> Self {
        self.rope.theta = theta;
        self
    }
}

impl Shape {
    /// Reads the fields that the families have in common, as a decoder like Llama has them. Without a default,
    /// `head_dim` may be left out where `hidden_size` tells it.
    pub(crate) fn read(fields: &Fields<'_>, family: &'static str, defaults: Defaults) -> Result<Self, Error> {
        let hidden = fields.count("hidden_size", 1..=1 << 20)?;
        let heads = fields.count("num_attention_heads", 1..=1 << 14)?;
        let kv_heads = fields.optional_count("num_key_value_heads", 1..=1 << 14)?.unwrap_or(heads);
        if !heads.is_multiple_of(kv_heads) {
            return Err(fields.wrong("num_key_value_heads", format!("a divisor of num_attention_heads, {heads}")));
        }
        let head_dim = match fields.optional_count("head_dim", 2..=1 << 14)?.or(defaults.head_dim) {
            Some(head_dim) => head_dim,
            None if hidden.is_multiple_of(heads) => hidden / heads,
            None => {
                return Err(fields.wrong(
                    "head_dim",
                    format!("a number, because num_attention_heads, {heads}, does not divide hidden_size, {hidden}"),
                ));
            }
        };
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(fields.wrong("head_dim", format!("an even number, not {head_dim}: features rotate in pairs")));
        }
        let layers = fields.count("num_hidden_layers", 1..=1 << 12)?;
        let layer = LayerShape { window: None, rotation: Rotation::Global, sparse: false };
        let (epsilon, default_epsilon) = defaults.epsilon;
        let epsilon = match (fields.optional_number(epsilon, 0.0..=1.0)?, default_epsilon) {
            (Some(number), _) | (None, Some(number)) => number,
            (None, None) => fields.number(epsilon, 0.0..=1.0)?,
        };
        let bias = fields.flag("attention_bias")?;
        Ok(Self {
            family,
            model_type: fields.text("model_type")?.to_owned(),
            hidden,
            intermediate: fields.count("intermediate_size", 1..=1 << 22)?,
            heads,
            kv_heads,
            head_dim,
            vocabulary: fields.count("vocab_size", 1..=1 << 24)?,
            context: fields.optional_count("max_position_embeddings", 1..=1 << 30)?.unwrap_or(2048),
            tied: fields.optional_flag("tie_word_embeddings")?.or(defaults.tied),
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_cap: None,
            norm: NormKind::Rms { offset: 0.0 },
            epsilon: epsilon as f32,
            places: NormPlaces::BEFORE,
            attention: AttentionShape {
                fused: false,
                input_bias: bias,
                output_bias: bias,
                norm: QkNorm::None,
                scale: (head_dim as f64).powf(-0.5) as f32,
                soft_cap: None,
                rope: rope::rope(fields, head_dim, defaults.rope)?,
                local_rope: None,
            },
            mlp: MlpShape { kind: MlpKind::Gated, bias: false },
            experts: None,
            activation: activation(fields, defaults.activation)?,
            layers: vec![layer; layers],
        })
    }

    /// Reads `layer_types` and gives the layers called `sliding_attention` the window of `sliding_window`. False where
    /// there is no such field.
    pub(crate) fn read_layer_types(&mut self, fields: &Fields<'_>) -> Result<bool, Error> {
        let Some(types) = fields.optional_texts("layer_types", self.layers.len())? else { return Ok(false) };
        for (layer, layer_type) in self.layers.iter_mut().zip(types) {
            layer.window = match layer_type {
                "full_attention" => None,
                "sliding_attention" => Some(fields.count("sliding_window", 1..=1 << 30)?),
                _ => return Err(fields.wrong("layer_types", "a list of full_attention and sliding_attention")),
            };
        }
        Ok(true)
    }

    /// Reads the windows of a family all of whose layers slide by `sliding_window`, unless `layer_types` says which.
    pub(crate) fn read_common_window(&mut self, fields: &Fields<'_>) -> Result<(), Error> {
        if !self.read_layer_types(fields)? {
            let window = fields.optional_count("sliding_window", 1..=1 << 30)?;
            self.layers.iter_mut().for_each(|layer| layer.window = window);
        }
        Ok(())
    }

    /// Reads the windows of Qwen: from `max_window_layers` on where `use_sliding_window` is set, unless `layer_types`
    /// says which.
    pub(crate) fn read_upper_windows(&mut self, fields: &Fields<'_>) -> Result<(), Error> {
        if !self.read_layer_types(fields)? && fields.flag("use_sliding_window")? {
            let layers = self.layers.len();
            let window = fields.optional_count("sliding_window", 1..=1 << 30)?;
            let full = fields.optional_count("max_window_layers", 0..=1 << 12)?.unwrap_or(layers).min(layers);
            self.layers[full..].iter_mut().for_each(|layer| layer.window = window);
        }
        Ok(())
    }

    /// Reads the windows of a family in which every `period`th layer sees everything and the others slide by
    /// `sliding_window`, unless `layer_types` says which.
    pub(crate) fn read_alternating_windows(&mut self, fields: &Fields<'_>, period: usize) -> Result<(), Error> {
        if !self.read_layer_types(fields)? {
            for (index, layer) in self.layers.iter_mut().enumerate() {
                if !(index + 1).is_multiple_of(period) {
                    layer.window = Some(fields.count("sliding_window", 1..=1 << 30)?);
                }
            }
        }
        Ok(())
    }

    /// Makes the layers sparse that `decoder_sparse_step` and `mlp_only_layers` leave to the experts, as Qwen does.
    pub(crate) fn read_sparse_layers(&mut self, fields: &Fields<'_>) -> Result<(), Error> {
        let layers = self.layers.len();
        let step = fields.optional_count("decoder_sparse_step", 1..=1 << 12)?.unwrap_or(1);
        let dense = fields.optional_counts("mlp_only_layers", layers, 0..=1 << 12)?.unwrap_or_default();
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.sparse = (index + 1).is_multiple_of(step) && !dense.contains(&index);
        }
        Ok(())
    }
}

impl ExpertsShape {
    /// Reads how many experts there are under `count_key`, and how many compute a token.
    pub(crate) fn read_counts(fields: &Fields<'_>, count_key: &str) -> Result<(usize, usize), Error> {
        let count = fields.count(count_key, 1..=1 << 14)?;
        Ok((count, fields.count("num_experts_per_tok", 1..=count)?))
    }
}

/// The non-linearity that a field names.
pub(crate) fn activation(fields: &Fields<'_>, (key, default): (&str, Activation)) -> Result<Activation, Error> {
    match fields.optional_text(key)? {
        None => Ok(default),
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu") => Ok(Activation::Gelu),
        Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
        Some(_) => Err(fields.wrong(key, "silu, gelu or gelu_pytorch_tanh")),
    }
}
