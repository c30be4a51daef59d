//! The attention block: projections, norms and rotation of queries and keys, and attention over the pool.

use mlxctl_backend::{Attention, Backend, Batch, Result, Rope};

use crate::Error;
use crate::mount::Mount;
use crate::norm::Norm;
use crate::shape::{NormKind, QkNorm, Rotation, Shape};

/// The attention of one layer.
pub(crate) struct AttentionBlock<B: Backend> {
    q: B::Linear,
    k: B::Linear,
    v: B::Linear,
    output: B::Linear,
    norms: Option<(Norm<B>, Norm<B>)>,
    attention: Attention,
    rotation: Rotation,
}

impl<B: Backend> AttentionBlock<B> {
    /// Mounts `self_attn` of layer `index`.
    pub(crate) fn load(mount: &mut Mount<'_, B>, shape: &Shape, index: usize) -> std::result::Result<Self, Error> {
        let path = |part: &str| format!("model.layers.{index}.self_attn.{part}");
        let own = &shape.attention;
        let q_features = shape.heads * shape.head_dim;
        let kv_features = shape.kv_heads * shape.head_dim;
        let norms = match own.norm {
            QkNorm::None => None,
            QkNorm::Heads => Some((shape.head_dim, shape.head_dim)),
            QkNorm::Projections => Some((q_features, kv_features)),
        };
        let norms = match norms {
            None => None,
            Some((q_length, k_length)) => {
                let kind = match shape.norm {
                    NormKind::Rms { .. } => shape.norm,
                    NormKind::Layer { .. } => NormKind::Layer { bias: false },
                };
                let q_norm = Norm::load(mount, &path("q_norm"), q_length, (kind, shape.epsilon))?;
                Some((q_norm, Norm::load(mount, &path("k_norm"), k_length, (kind, shape.epsilon))?))
            }
        };
        let (hidden, bias) = (shape.hidden, own.input_bias);
        let [q, k, v] = if own.fused {
            mount.parts(&path("qkv_proj"), [q_features, kv_features, kv_features], hidden, bias)?
        } else {
            [
                mount.linear(&path("q_proj"), q_features, hidden, bias)?,
                mount.linear(&path("k_proj"), kv_features, hidden, bias)?,
                mount.linear(&path("v_proj"), kv_features, hidden, bias)?,
            ]
        };
        let layer = shape.layers[index];
        Ok(Self {
            q,
            k,
            v,
            output: mount.linear(&path("o_proj"), hidden, q_features, own.output_bias)?,
            norms,
            attention: Attention {
                layer: index,
                heads: shape.heads,
                scale: own.scale,
                window: layer.window,
                soft_cap: own.soft_cap,
            },
            rotation: layer.rotation,
        })
    }

    /// What attention gives for the normed input, before [`AttentionBlock::project`].
    pub(crate) fn attend(
        &self,
        backend: &B,
        normed: &B::Tensor,
        shape: &Shape,
        batch: &Batch,
        kv: &mut B::Kv,
    ) -> Result<B::Tensor> {
        let (mut q, mut k, v) = backend.qkv(normed, &self.q, &self.k, &self.v)?;
        if let Some((q_norm, k_norm)) = &self.norms {
            q = q_norm.apply(backend, &q)?;
            k = k_norm.apply(backend, &k)?;
        }
        if let Some(rope) = self.rope(shape) {
            q = backend.rope(&q, rope, batch)?;
            k = backend.rope(&k, rope, batch)?;
        }
        backend.attention(&q, &k, &v, batch, kv, &self.attention)
    }

    /// The output projection.
    pub(crate) fn project(&self, backend: &B, attended: &B::Tensor) -> Result<B::Tensor> {
        backend.linear(attended, &self.output)
    }

    fn rope<'a>(&self, shape: &'a Shape) -> Option<&'a Rope> {
        match self.rotation {
            Rotation::Global => Some(&shape.attention.rope),
            Rotation::Local => shape.attention.local_rope.as_ref(),
            Rotation::None => None,
        }
    }
}
