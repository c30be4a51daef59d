//! Norms as the families have them, mounted.

use mlxctl_backend::{Backend, Result};

use crate::Error;
use crate::mount::Mount;
use crate::shape::NormKind;

/// A norm's parameters.
pub(crate) enum Norm<B: Backend> {
    Rms { weight: B::Vector, epsilon: f32 },
    Layer { weight: B::Vector, bias: Option<B::Vector>, epsilon: f32 },
}

impl<B: Backend> Norm<B> {
    /// Mounts the norm at `path`, over `length` features.
    pub(crate) fn load(
        mount: &mut Mount<'_, B>,
        path: &str,
        length: usize,
        (kind, epsilon): (NormKind, f32),
    ) -> std::result::Result<Self, Error> {
        let name = format!("{path}.weight");
        Ok(match kind {
            NormKind::Rms { offset } => Self::Rms { weight: mount.vector(&name, length, offset)?, epsilon },
            NormKind::Layer { bias } => Self::Layer {
                weight: mount.vector(&name, length, 0.0)?,
                bias: if bias { Some(mount.vector(&format!("{path}.bias"), length, 0.0)?) } else { None },
                epsilon,
            },
        })
    }

    /// `x` normed.
    pub(crate) fn apply(&self, backend: &B, x: &B::Tensor) -> Result<B::Tensor> {
        match self {
            Self::Rms { weight, epsilon } => backend.rms_norm(x, weight, *epsilon),
            Self::Layer { weight, bias, epsilon } => backend.layer_norm(x, weight, bias.as_ref(), *epsilon),
        }
    }

    /// `(x + delta, norm(x + delta))`, where there is no norm the sum twice.
    pub(crate) fn after_sum(
        norm: Option<&Self>,
        backend: &B,
        x: &B::Tensor,
        delta: &B::Tensor,
    ) -> Result<(B::Tensor, B::Tensor)> {
        if let Some(Self::Rms { weight, epsilon }) = norm {
            return backend.add_rms_norm(x, delta, weight, *epsilon);
        }
        let sum = backend.add(x, delta)?;
        let normed = match norm {
            Some(norm) => norm.apply(backend, &sum)?,
            None => sum.clone(),
        };
        Ok((sum, normed))
    }
}
