//! The decoder that the families share: attention and MLP, layer after layer, each around a residual. A family fills
//! in a [`Shape`] and has it loaded here.

use mlxctl_backend::{Backend, Batch, KvLayer, KvLayout};
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::attention::AttentionBlock;
use crate::config::Fields;
use crate::mlp::Mlp;
use crate::model::{Details, Model};
use crate::mount::{Mount, Totals};
use crate::norm::Norm;
use crate::shape::Shape;

/// Tokens a block of the KV pool has room for.
const BLOCK_SIZE: usize = 32;

/// A loaded decoder.
pub(crate) struct Decoder<B: Backend> {
    shape: Shape,
    totals: Totals,
    embedding: B::Linear,
    layers: Vec<Layer<B>>,
    norm: Norm<B>,
    /// None where the embedding serves.
    head: Option<B::Linear>,
}

struct Layer<B: Backend> {
    attention_input: Option<Norm<B>>,
    attention: AttentionBlock<B>,
    attention_output: Option<Norm<B>>,
    mlp_input: Option<Norm<B>>,
    mlp: Mlp<B>,
    mlp_output: Option<Norm<B>>,
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
        for index in 0..shape.layers.len() {
            layers.push(Layer::load(&mut mount, &shape, index)?);
        }
        let norm = Norm::load(&mut mount, "model.norm", shape.hidden, (shape.norm, shape.epsilon))?;
        let tied = shape.tied.unwrap_or_else(|| !mount.contains("lm_head.weight"));
        shape.tied = Some(tied);
        let head = if tied { None } else { Some(mount.linear("lm_head", shape.vocabulary, shape.hidden, false)?) };
        // Exporters of old wrote the rotary frequencies, and some write the head although it is the embedding.
        let head_name = mount.name("lm_head.");
        let totals =
            mount.finish(|name| name.ends_with("rotary_emb.inv_freq") || (tied && name.starts_with(&head_name)))?;
        Ok(Box::new(Self { shape, totals, embedding, layers, norm, head }))
    }
}

impl<B: Backend> Layer<B> {
    fn load(mount: &mut Mount<'_, B>, shape: &Shape, index: usize) -> Result<Self, Error> {
        let norm = |name: Option<&str>, mount: &mut Mount<'_, B>| match name {
            None => Ok(None),
            Some(name) => {
                let path = format!("model.layers.{index}.{name}");
                Norm::load(mount, &path, shape.hidden, (shape.norm, shape.epsilon)).map(Some)
            }
        };
        Ok(Self {
            attention_input: norm(shape.places.attention_input, mount)?,
            attention: AttentionBlock::load(mount, shape, index)?,
            attention_output: norm(shape.places.attention_output, mount)?,
            mlp_input: norm(shape.places.mlp_input, mount)?,
            mlp: Mlp::load(mount, shape, index)?,
            mlp_output: norm(shape.places.mlp_output, mount)?,
        })
    }
}

impl<B: Backend> Decoder<B> {
    /// What a block adds to the residual: its answer, normed where the family does, times the factor.
    fn added(&self, backend: &B, answer: B::Tensor, norm: Option<&Norm<B>>) -> Result<B::Tensor, Error> {
        let normed = match norm {
            Some(norm) => norm.apply(backend, &answer)?,
            None => answer,
        };
        scaled(backend, normed, self.shape.residual_scale)
    }

    fn logits(&self, backend: &B, normed: &B::Tensor) -> Result<B::Tensor, Error> {
        let logits = backend.linear(normed, self.head.as_ref().unwrap_or(&self.embedding))?;
        let logits = scaled(backend, logits, self.shape.logit_scale)?;
        match self.shape.logit_cap {
            Some(cap) => Ok(backend.soft_cap(&logits, cap)?),
            None => Ok(logits),
        }
    }
}

/// `x · factor`, where that is not 1.
fn scaled<B: Backend>(backend: &B, x: B::Tensor, factor: f32) -> Result<B::Tensor, Error> {
    if factor == 1.0 { Ok(x) } else { Ok(backend.scale(&x, factor)?) }
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
        let mut x = scaled(backend, backend.embed(&self.embedding, &batch.tokens)?, shape.embedding_scale)?;
        let Some(first) = self.layers.first() else {
            return Err(Error::Batch { reason: "the model has no layers".to_owned() });
        };
        let mut normed = match &first.attention_input {
            Some(norm) => norm.apply(backend, &x)?,
            None => x.clone(),
        };
        for (index, layer) in self.layers.iter().enumerate() {
            let next = self.layers.get(index + 1);
            let mut attended = layer.attention.attend(backend, &normed, shape, batch, kv)?;
            if next.is_none() && batch.logits.len() < batch.tokens.len() {
                // Behind the last attention nothing passes from row to row: the rest is for the rows asked for.
                if batch.logits.is_empty() {
                    return Ok(backend.from_host(&[], shape.vocabulary)?);
                }
                attended = backend.rows(&attended, &batch.logits)?;
                x = backend.rows(&x, &batch.logits)?;
                if shape.places.parallel {
                    normed = backend.rows(&normed, &batch.logits)?;
                }
            }
            let answer = layer.attention.project(backend, &attended)?;
            let delta = self.added(backend, answer, layer.attention_output.as_ref())?;
            let next_norm = next.map_or(Some(&self.norm), |next| next.attention_input.as_ref());
            if shape.places.parallel {
                let answer = layer.mlp.apply(backend, &normed, shape)?;
                let both = backend.add(&delta, &self.added(backend, answer, layer.mlp_output.as_ref())?)?;
                (x, normed) = Norm::after_sum(next_norm, backend, &x, &both)?;
                continue;
            }
            (x, normed) = Norm::after_sum(layer.mlp_input.as_ref(), backend, &x, &delta)?;
            let answer = layer.mlp.apply(backend, &normed, shape)?;
            let delta = self.added(backend, answer, layer.mlp_output.as_ref())?;
            (x, normed) = Norm::after_sum(next_norm, backend, &x, &delta)?;
        }
        self.logits(backend, &normed)
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
