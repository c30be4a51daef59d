//! The decoder that the families share: norm, attention, norm, gated MLP, layer after layer, each around a residual.
//! A family fills in a [`Shape`]; what differs between families is a field of it.

use mlxctl_backend::{Activation, Attention, Backend, Batch, KvLayer, KvLayout, Rope};
use mlxctl_weights::Checkpoint;

use crate::config::Fields;
use crate::model::{Details, Model};
use crate::mount::{Mount, Totals};
use crate::{Error, rope};

/// Tokens a block of the KV pool has room for.
const BLOCK_SIZE: usize = 32;

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
    pub(crate) epsilon: f32,
    /// Whether the embedding is the head too; `None` where config.json leaves it to the weights.
    pub(crate) tied: Option<bool>,
    /// Whether the projections of the attention have biases.
    pub(crate) attention_bias: bool,
    /// Whether the projections of the MLP have biases.
    pub(crate) mlp_bias: bool,
    /// Whether queries and keys are normed head by head.
    pub(crate) qk_norm: bool,
    pub(crate) activation: Activation,
    pub(crate) rope: Rope,
    /// How far each layer sees, one entry a layer.
    pub(crate) windows: Vec<Option<usize>>,
}

/// What a family takes where config.json leaves a field out; none where it must be there or follows from others.
pub(crate) struct Defaults {
    pub(crate) theta: Option<f64>,
    pub(crate) head_dim: Option<usize>,
}

impl Shape {
    /// Reads the fields that the families have in common. Without a default, `head_dim` may be left out where
    /// `hidden_size` tells it.
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
        let activation = match fields.optional_text("hidden_act")?.unwrap_or("silu") {
            "silu" | "swish" => Activation::Silu,
            "gelu" => Activation::Gelu,
            "gelu_pytorch_tanh" | "gelu_new" => Activation::GeluTanh,
            _ => return Err(fields.wrong("hidden_act", "silu, gelu or gelu_pytorch_tanh")),
        };
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
            epsilon: fields.number("rms_norm_eps", 0.0..=1.0)? as f32,
            tied: fields.optional_flag("tie_word_embeddings")?,
            attention_bias: fields.flag("attention_bias")?,
            mlp_bias: false,
            qk_norm: false,
            activation,
            rope: rope::rope(fields, head_dim, defaults.theta)?,
            windows: vec![None; layers],
        })
    }

    /// Reads `layer_types` and gives the layers called `sliding_attention` the window of `sliding_window`. False where
    /// there is no such field.
    pub(crate) fn read_layer_types(&mut self, fields: &Fields<'_>) -> Result<bool, Error> {
        let Some(types) = fields.optional_texts("layer_types", self.windows.len())? else { return Ok(false) };
        for (window, layer_type) in self.windows.iter_mut().zip(types) {
            *window = match layer_type {
                "full_attention" => None,
                "sliding_attention" => Some(fields.count("sliding_window", 1..=1 << 30)?),
                _ => return Err(fields.wrong("layer_types", "a list of full_attention and sliding_attention")),
            };
        }
        Ok(true)
    }
}

/// A loaded decoder.
pub(crate) struct Decoder<B: Backend> {
    shape: Shape,
    totals: Totals,
    embedding: B::Linear,
    layers: Vec<Layer<B>>,
    norm: B::Vector,
    /// None where the embedding serves.
    head: Option<B::Linear>,
}

struct Layer<B: Backend> {
    input_norm: B::Vector,
    q: B::Linear,
    k: B::Linear,
    v: B::Linear,
    o: B::Linear,
    qk_norms: Option<(B::Vector, B::Vector)>,
    attention: Attention,
    mlp_norm: B::Vector,
    gate: B::Linear,
    up: B::Linear,
    down: B::Linear,
}

impl<B: Backend> Decoder<B> {
    /// Mounts the weights, under the names that hub files and mlx-lm give them.
    pub(crate) fn load(
        backend: &B,
        fields: &Fields<'_>,
        checkpoint: &Checkpoint,
        mut shape: Shape,
    ) -> Result<Box<dyn Model<B>>, Error> {
        let mut mount = Mount::new(backend, fields, checkpoint)?;
        let embedding = mount.linear("model.embed_tokens", shape.vocabulary, shape.hidden, false)?;
        // Filled layer by layer: a configuration with more of them than the weights hold ends at the first one absent.
        let mut layers = Vec::new();
        for index in 0..shape.windows.len() {
            layers.push(Layer::load(&mut mount, &shape, index)?);
        }
        let norm = mount.vector("model.norm.weight", shape.hidden)?;
        let tied = shape.tied.unwrap_or_else(|| !checkpoint.contains("lm_head.weight"));
        shape.tied = Some(tied);
        let head = if tied { None } else { Some(mount.linear("lm_head", shape.vocabulary, shape.hidden, false)?) };
        // Exporters of old wrote the rotary frequencies, and some write the head although it is the embedding.
        let totals =
            mount.finish(|name| name.ends_with("rotary_emb.inv_freq") || (tied && name.starts_with("lm_head.")))?;
        Ok(Box::new(Self { shape, totals, embedding, layers, norm, head }))
    }
}

impl<B: Backend> Layer<B> {
    fn load(mount: &mut Mount<'_, B>, shape: &Shape, index: usize) -> Result<Self, Error> {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let hidden = shape.hidden;
        let q_features = shape.heads * shape.head_dim;
        let kv_features = shape.kv_heads * shape.head_dim;
        let bias = shape.attention_bias;
        let qk_norms = if shape.qk_norm {
            let q_norm = mount.vector(&path("self_attn.q_norm.weight"), shape.head_dim)?;
            Some((q_norm, mount.vector(&path("self_attn.k_norm.weight"), shape.head_dim)?))
        } else {
            None
        };
        Ok(Self {
            input_norm: mount.vector(&path("input_layernorm.weight"), hidden)?,
            q: mount.linear(&path("self_attn.q_proj"), q_features, hidden, bias)?,
            k: mount.linear(&path("self_attn.k_proj"), kv_features, hidden, bias)?,
            v: mount.linear(&path("self_attn.v_proj"), kv_features, hidden, bias)?,
            o: mount.linear(&path("self_attn.o_proj"), hidden, q_features, bias)?,
            qk_norms,
            attention: Attention {
                layer: index,
                heads: shape.heads,
                scale: (shape.head_dim as f64).powf(-0.5) as f32,
                window: shape.windows[index],
                soft_cap: None,
            },
            mlp_norm: mount.vector(&path("post_attention_layernorm.weight"), hidden)?,
            gate: mount.linear(&path("mlp.gate_proj"), shape.intermediate, hidden, shape.mlp_bias)?,
            up: mount.linear(&path("mlp.up_proj"), shape.intermediate, hidden, shape.mlp_bias)?,
            down: mount.linear(&path("mlp.down_proj"), hidden, shape.intermediate, shape.mlp_bias)?,
        })
    }

    /// What attention gives for the normed input, before the output projection.
    fn attend(
        &self,
        backend: &B,
        normed: &B::Tensor,
        shape: &Shape,
        batch: &Batch,
        kv: &mut B::Kv,
    ) -> mlxctl_backend::Result<B::Tensor> {
        let (mut q, mut k, v) = backend.qkv(normed, &self.q, &self.k, &self.v)?;
        if let Some((q_norm, k_norm)) = &self.qk_norms {
            q = backend.rms_norm(&q, q_norm, shape.epsilon)?;
            k = backend.rms_norm(&k, k_norm, shape.epsilon)?;
        }
        let q = backend.rope(&q, &shape.rope, batch)?;
        let k = backend.rope(&k, &shape.rope, batch)?;
        backend.attention(&q, &k, &v, batch, kv, &self.attention)
    }
}

impl<B: Backend> Model<B> for Decoder<B> {
    fn forward(&self, backend: &B, batch: &Batch, kv: &mut B::Kv) -> Result<B::Tensor, Error> {
        let shape = &self.shape;
        if let Some(token) = batch.tokens.iter().find(|&&token| token as usize >= shape.vocabulary) {
            let reason = format!("token {token} is not in the vocabulary of {}", shape.vocabulary);
            return Err(Error::Batch { reason });
        }
        // The blocks are for the pool to check, which knows their number and size.
        batch.check(usize::MAX, usize::MAX).map_err(|reason| Error::Batch { reason })?;
        let mut x = backend.embed(&self.embedding, &batch.tokens)?;
        let Some(first) = self.layers.first() else {
            return Err(Error::Batch { reason: "the model has no layers".to_owned() });
        };
        let mut normed = backend.rms_norm(&x, &first.input_norm, shape.epsilon)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let next = self.layers.get(index + 1);
            let mut attended = layer.attend(backend, &normed, shape, batch, kv)?;
            if next.is_none() && batch.logits.len() < batch.tokens.len() {
                // Behind the last attention nothing passes from row to row: the rest is for the rows asked for.
                if batch.logits.is_empty() {
                    return Ok(backend.from_host(&[], shape.vocabulary)?);
                }
                attended = backend.rows(&attended, &batch.logits)?;
                x = backend.rows(&x, &batch.logits)?;
            }
            let delta = backend.linear(&attended, &layer.o)?;
            (x, normed) = backend.add_rms_norm(&x, &delta, &layer.mlp_norm, shape.epsilon)?;
            let delta = backend.gated_mlp(&normed, &layer.gate, &layer.up, &layer.down, shape.activation)?;
            let norm = next.map_or(&self.norm, |next| &next.input_norm);
            (x, normed) = backend.add_rms_norm(&x, &delta, norm, shape.epsilon)?;
        }
        Ok(backend.linear(&normed, self.head.as_ref().unwrap_or(&self.embedding))?)
    }

    fn kv_layout(&self) -> KvLayout {
        let shape = &self.shape;
        let layer = KvLayer { heads: shape.kv_heads, key_dim: shape.head_dim, value_dim: shape.head_dim };
        KvLayout { layers: vec![layer; self.layers.len()], block_size: BLOCK_SIZE }
    }

    fn vocabulary(&self) -> usize {
        self.shape.vocabulary
    }

    fn max_context(&self) -> usize {
        self.shape.context
    }

    fn details(&self) -> Details {
        let shape = &self.shape;
        Details {
            family: shape.family,
            model_type: shape.model_type.clone(),
            parameters: self.totals.parameters,
            weight_bytes: self.totals.bytes,
            hidden: shape.hidden,
            intermediate: shape.intermediate,
            layers: self.layers.len(),
            heads: shape.heads,
            kv_heads: shape.kv_heads,
            head_dim: shape.head_dim,
            vocabulary: shape.vocabulary,
            context: shape.context,
            tied: shape.tied.unwrap_or(false),
            weight_type: self.totals.weight_type.clone(),
        }
    }
}
