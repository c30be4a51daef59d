//! From names and shapes to mounted weights: each module a family asks for is looked up, checked and handed to the
//! device, and what was used is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use mlxctl_backend::{Backend, LinearWeight};
use mlxctl_weights::{Checkpoint, QuantizationConfig, Tensor};

use crate::Error;
use crate::config::Fields;
use crate::wrapped::Naming;

/// Mounts the modules of one model.
pub(crate) struct Mount<'a, B> {
    backend: &'a B,
    checkpoint: &'a Checkpoint,
    naming: Naming,
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
            naming: Naming::of(|name| checkpoint.contains(name)),
            quantization: QuantizationConfig::from_config(fields.whole())?,
            used: BTreeSet::new(),
            totals: Totals::default(),
            types: BTreeMap::new(),
        })
    }

    /// The linear layer or embedding at `path`, `[out, columns]`, quantised or not, with its bias if it has one.
    pub(crate) fn linear(&mut self, path: &str, out: usize, columns: usize, bias: bool) -> Result<B::Linear, Error> {
        let [whole] = self.parts(path, [out], columns, bias)?;
        Ok(whole)
    }

    /// Linear layers whose rows one module at `path` holds, one after the other: `sizes` are their outputs.
    pub(crate) fn parts<const N: usize>(
        &mut self,
        path: &str,
        sizes: [usize; N],
        columns: usize,
        bias: bool,
    ) -> Result<[B::Linear; N], Error> {
        let out = sizes.iter().fold(0_usize, |out, size| out.saturating_add(*size));
        let weight = self.weight(path, &[out], columns)?;
        let bias = if bias { Some(self.float_vector(&format!("{path}.bias"), out)?) } else { None };
        let mut start = 0;
        let ranges = sizes.map(|size| {
            start += size;
            start - size..start
        });
        let mut parts = Vec::with_capacity(N);
        for range in ranges {
            let bias = bias.as_ref().map(|bias| rows_of(bias, out, range.clone()));
            parts.push(self.mount(path, weight_rows(&weight, out, range), bias)?);
        }
        // As many were pushed as there are sizes.
        parts.try_into().map_err(|_| Error::NotConfig { reason: format!("`{path}` has no parts") })
    }

    /// The linear layers that one module at `path` holds as `[count, out, columns]`.
    pub(crate) fn stack(
        &mut self,
        path: &str,
        count: usize,
        out: usize,
        columns: usize,
    ) -> Result<Vec<B::Linear>, Error> {
        let weight = self.weight(path, &[count, out], columns)?;
        let rows = count * out;
        (0..count)
            .map(|index| self.mount(path, weight_rows(&weight, rows, index * out..(index + 1) * out), None))
            .collect()
    }

    /// The name in the files of what the family calls `name`.
    pub(crate) fn name(&self, name: &str) -> String {
        self.naming.name(name)
    }

    /// Whether the checkpoint has a tensor that the family calls `name`.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.checkpoint.contains(&self.naming.name(name))
    }

    /// The weight of the module at `path`, `[outer…, columns]`, as the file holds it.
    fn weight(&mut self, path: &str, outer: &[usize], columns: usize) -> Result<LinearWeight, Error> {
        let path = &self.naming.name(path);
        let name = |part: &str| format!("{path}.{part}");
        let shape = |width: usize| [outer, &[width]].concat();
        let (weight, weight_type) = match self.quantization.for_module(path, columns, self.checkpoint)? {
            None => {
                let weight = self.checkpoint.require_float(&name("weight"), &shape(columns))?.clone();
                self.take(&name("weight"), &weight);
                let weight_type = weight.dtype.to_string();
                (LinearWeight::Dense(weight), weight_type)
            }
            Some(quantization) => {
                // `for_module` has checked that whole groups fill the columns.
                let words = quantization.packed_columns(columns).unwrap_or_default();
                let groups = quantization.groups(columns).unwrap_or_default();
                let weight = self.checkpoint.require(&name("weight"), &shape(words))?.clone();
                let scales = self.checkpoint.require(&name("scales"), &shape(groups))?.clone();
                let biases = if quantization.mode().has_biases() {
                    Some(self.checkpoint.require(&name("biases"), &shape(groups))?.clone())
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
        let weights = outer.iter().fold(columns as u64, |weights, size| weights.saturating_mul(*size as u64));
        self.totals.parameters += weights;
        *self.types.entry(weight_type).or_default() += weights;
        Ok(weight)
    }

    fn mount(&self, path: &str, weight: LinearWeight, bias: Option<Tensor>) -> Result<B::Linear, Error> {
        self.backend.mount_linear(weight, bias).map_err(|source| Error::Mount { module: path.to_owned(), source })
    }

    /// The vector of parameters called `name`; `offset` is added to each.
    pub(crate) fn vector(&mut self, name: &str, length: usize, offset: f32) -> Result<B::Vector, Error> {
        let tensor = self.float_vector(name, length)?;
        self.backend.mount_vector(&tensor, offset).map_err(|source| Error::Mount { module: name.to_owned(), source })
    }

    /// Ends the mounting: a tensor that was not used and that `is_spare` does not excuse is an error.
    pub(crate) fn finish(mut self, is_spare: impl Fn(&str) -> bool) -> Result<Totals, Error> {
        let is_spare = |name: &str| is_spare(name) || self.naming.leaves_out(name);
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
        let name = self.naming.name(name);
        let tensor = self.checkpoint.require_float(&name, &[length])?.clone();
        self.take(&name, &tensor);
        self.totals.parameters += length as u64;
        Ok(tensor)
    }

    fn take(&mut self, name: &str, tensor: &Tensor) {
        self.used.insert(name.to_owned());
        self.totals.bytes += tensor.data.len() as u64;
    }
}

/// Rows of a weight whose outer dimensions hold `count` of them, as a matrix; borrowed like the whole.
fn weight_rows(weight: &LinearWeight, count: usize, rows: Range<usize>) -> LinearWeight {
    let part = |tensor: &Tensor| rows_of(tensor, count, rows.clone());
    match weight {
        LinearWeight::Dense(tensor) => LinearWeight::Dense(part(tensor)),
        LinearWeight::Quantized { weight, scales, biases, quantization } => LinearWeight::Quantized {
            weight: part(weight),
            scales: part(scales),
            biases: biases.as_ref().map(part),
            quantization: *quantization,
        },
    }
}

/// Rows of a tensor that has `count` of them: `[rows, width]`, or `[rows]` of a vector. The shape has been checked
/// against the data, so that `rows` lie within it.
fn rows_of(tensor: &Tensor, count: usize, rows: Range<usize>) -> Tensor {
    let row_bytes = tensor.data.len() / count.max(1);
    let data = tensor.data.slice(rows.start * row_bytes..rows.end * row_bytes);
    let width = tensor.shape.last().copied().filter(|_| tensor.shape.len() > 1);
    let shape = std::iter::once(rows.len()).chain(width).collect();
    Tensor { dtype: tensor.dtype, shape, data }
}
