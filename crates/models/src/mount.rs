//! From names and shapes to mounted weights: each module a family asks for is looked up, checked and handed to the
//! device, and what was used is remembered.

use std::collections::{BTreeMap, BTreeSet};

use mlxctl_backend::{Backend, LinearWeight};
use mlxctl_weights::{Checkpoint, QuantizationConfig, Tensor};

use crate::Error;
use crate::config::Fields;

/// Mounts the modules of one model.
pub(crate) struct Mount<'a, B> {
    backend: &'a B,
    checkpoint: &'a Checkpoint,
    quantization: QuantizationConfig,
    used: BTreeSet<String>,
    totals: Totals,
    /// Weights of each type, to name the most frequent.
    types: BTreeMap<String, u64>,
}

/// What was mounted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Totals {
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
    pub(crate) weight_type: String,
}

impl<'a, B: Backend> Mount<'a, B> {
    pub(crate) fn new(backend: &'a B, fields: &Fields<'_>, checkpoint: &'a Checkpoint) -> Result<Self, Error> {
        Ok(Self {
            backend,
            checkpoint,
            quantization: QuantizationConfig::from_config(fields.whole())?,
            used: BTreeSet::new(),
            totals: Totals::default(),
            types: BTreeMap::new(),
        })
    }

    /// The linear layer or embedding at `path`, `[out, columns]`, quantised or not, with its bias if it has one.
    pub(crate) fn linear(&mut self, path: &str, out: usize, columns: usize, bias: bool) -> Result<B::Linear, Error> {
        let name = |part: &str| format!("{path}.{part}");
        let (weight, weight_type) = match self.quantization.for_module(path, columns, self.checkpoint)? {
            None => {
                let weight = self.checkpoint.require_float(&name("weight"), &[out, columns])?.clone();
                self.take(&name("weight"), &weight);
                let weight_type = weight.dtype.to_string();
                (LinearWeight::Dense(weight), weight_type)
            }
            Some(quantization) => {
                // `for_module` has checked that whole groups fill the columns.
                let words = quantization.packed_columns(columns).unwrap_or_default();
                let groups = quantization.groups(columns).unwrap_or_default();
                let weight = self.checkpoint.require(&name("weight"), &[out, words])?.clone();
                let scales = self.checkpoint.require(&name("scales"), &[out, groups])?.clone();
                let biases = if quantization.mode().has_biases() {
                    Some(self.checkpoint.require(&name("biases"), &[out, groups])?.clone())
                } else {
                    None
                };
                self.take(&name("weight"), &weight);
                self.take(&name("scales"), &scales);
                if let Some(biases) = &biases {
                    self.take(&name("biases"), biases);
                }
                let weight_type = format!(
                    "{}-bit {}, groups of {}",
                    quantization.bits(),
                    quantization.mode().name(),
                    quantization.group_size()
                );
                (LinearWeight::Quantized { weight, scales, biases, quantization }, weight_type)
            }
        };
        let weights = (out as u64).saturating_mul(columns as u64);
        self.totals.parameters += weights;
        *self.types.entry(weight_type).or_default() += weights;
        let bias = if bias { Some(self.float_vector(&name("bias"), out)?) } else { None };
        self.backend.mount_linear(weight, bias).map_err(|source| Error::Mount { module: path.to_owned(), source })
    }

    /// The vector of parameters called `name`.
    pub(crate) fn vector(&mut self, name: &str, length: usize) -> Result<B::Vector, Error> {
        let tensor = self.float_vector(name, length)?;
        self.backend.mount_vector(&tensor, 0.0).map_err(|source| Error::Mount { module: name.to_owned(), source })
    }

    /// Ends the mounting: a tensor that was not used and that `is_spare` does not excuse is an error.
    pub(crate) fn finish(mut self, is_spare: impl Fn(&str) -> bool) -> Result<Totals, Error> {
        let mut unused = self.checkpoint.names().filter(|name| !self.used.contains(*name) && !is_spare(name));
        let examples: Vec<String> = unused.by_ref().take(3).map(|name| format!("{name:?}")).collect();
        if !examples.is_empty() {
            let count = examples.len() + unused.count();
            return Err(Error::UnusedTensors { count, examples: examples.join(", ") });
        }
        let most = self.types.iter().max_by_key(|(_, weights)| **weights);
        self.totals.weight_type = most.map(|(name, _)| name.clone()).unwrap_or_default();
        Ok(self.totals)
    }

    fn float_vector(&mut self, name: &str, length: usize) -> Result<Tensor, Error> {
        let tensor = self.checkpoint.require_float(name, &[length])?.clone();
        self.take(name, &tensor);
        self.totals.parameters += length as u64;
        Ok(tensor)
    }

    fn take(&mut self, name: &str, tensor: &Tensor) {
        self.used.insert(name.to_owned());
        self.totals.bytes += tensor.data.len() as u64;
    }
}
