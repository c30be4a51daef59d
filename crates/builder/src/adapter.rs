//! LoRA adapters in mlx-lm's format, merged into the weights they were trained on.
//!
//! A folder holds `adapter_config.json` and `adapters.safetensors`, in it `<module>.lora_a` and `<module>.lora_b`: for
//! a linear layer `[in, rank]` and `[rank, out]`, for an embedding `[tokens, rank]` and `[rank, features]`. Their
//! product times the scale is what training changed. It is computed in F32 and rounded to the type of the weight
//! before it is added, as mlx-lm's `fuse` does.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use mlxctl_modelspec::{Adapter, From, ModelSpec};
use mlxctl_weights::{Checkpoint, Dtype, Tensor, cast};
use serde_json::Value;

use crate::Error;

const CONFIG: &str = "adapter_config.json";
const WEIGHTS: &str = "adapters.safetensors";
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// What all merged adapters of a recipe change, by the name of the weight.
#[derive(Default)]
pub(crate) struct Changes(BTreeMap<String, Vec<Change>>);

/// The product of two thin matrices, times a scale, that is added to a weight `[rows, columns]`.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    scale: f32,
    rank: usize,
    /// `[rank, rows]` of a linear layer, `[rows, rank]` of an embedding.
    left: Tensor,
    /// `[columns, rank]` of a linear layer, `[rank, columns]` of an embedding.
    right: Tensor,
    is_embedding: bool,
}

impl Changes {
    /// Reads the adapters that the recipe merges and holds them against the model.
    pub(crate) fn read(spec: &ModelSpec, folder: &Path, checkpoint: &Checkpoint) -> Result<Self, Error> {
        let mut changes = Self::default();
        for adapter in spec.adapters.iter().filter(|adapter| adapter.merge) {
            changes.add(adapter, folder, checkpoint)?;
        }
        Ok(changes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is added to this weight, in order.
    pub(crate) fn of(&self, weight: &str) -> &[Change] {
        self.0.get(weight).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, adapter: &Adapter, folder: &Path, checkpoint: &Checkpoint) -> Result<(), Error> {
        let key = format!("adapters ({})", adapter.name);
        let From::Path(path) = &adapter.from else {
            return Err(Error::NotYet { key, what: "merging an adapter that is no directory".to_owned() });
        };
        let folder = folder.join(path);
        let scale = read_scale(&folder, &key)?;
        let path = folder.join(WEIGHTS);
        if !path.is_file() && folder.join("adapter_model.safetensors").is_file() {
            let what = "an adapter in PEFT's format (adapter_model.safetensors)".to_owned();
            return Err(Error::NotYet { key, what });
        }
        let bytes = mlxctl_store::map_file(&path)?;
        let held = Checkpoint::from_files(vec![(path.display().to_string(), bytes)])?;
        let wrong = |reason: String| Error::Source { path: path.clone(), reason, hint: None };
        for (name, tensor) in held.iter() {
            let (module, part) = name.rsplit_once('.').unwrap_or(("", name));
            if !matches!(part, "lora_a" | "lora_b") {
                return Err(wrong(format!("tensor `{name}` is neither a lora_a nor a lora_b")));
            }
            let other = if part == "lora_a" { "lora_b" } else { "lora_a" };
            let Some(other) = held.get(&format!("{module}.{other}")) else {
                return Err(wrong(format!("`{module}` has {part} and no {other}")));
            };
            if part == "lora_b" {
                let change = Change::new(module, other, tensor, scale, checkpoint).map_err(&wrong)?;
                self.0.entry(format!("{module}.weight")).or_default().push(change);
            }
        }
        if held.is_empty() {
            return Err(wrong("the adapter holds no tensors".to_owned()));
        }
        Ok(())
    }
}

/// The scale of an adapter of type `lora`.
fn read_scale(folder: &Path, key: &str) -> Result<f32, Error> {
    let path: PathBuf = folder.join(CONFIG);
    let at = |source| Error::Path { key: "adapters", path: path.clone(), source };
    let wrong = |reason: String| Error::Source { path: path.clone(), reason, hint: None };
    let size = std::fs::metadata(&path).map_err(at)?.len();
    if size > MAX_CONFIG_BYTES {
        return Err(wrong(format!("it has {size} bytes, more than the {MAX_CONFIG_BYTES} allowed")));
    }
    let config: Value =
        serde_json::from_slice(&std::fs::read(&path).map_err(at)?).map_err(|error| wrong(error.to_string()))?;
    match config.get("fine_tune_type").map(|kind| kind.as_str().unwrap_or_default()) {
        None | Some("lora") => {}
        Some(kind) => {
            let what = format!("merging an adapter of fine_tune_type {kind:?}, other than \"lora\",");
            return Err(Error::NotYet { key: key.to_owned(), what });
        }
    }
    let scale = config.get("lora_parameters").and_then(|parameters| parameters.get("scale")).and_then(Value::as_f64);
    let scale = scale.map(|scale| scale as f32).filter(|scale| scale.is_finite());
    scale.ok_or_else(|| wrong("expected a number at lora_parameters.scale".to_owned()))
}

impl Change {
    /// Finds out which way the factors of `module` lie, or says why they do not fit its weight.
    fn new(module: &str, a: &Tensor, b: &Tensor, scale: f32, checkpoint: &Checkpoint) -> Result<Self, String> {
        let Some(weight) = checkpoint.get(&format!("{module}.weight")) else {
            return Err(format!("the adapter changes `{module}`, and the model has no weight of that name"));
        };
        if [a, b, weight].iter().any(|tensor| !tensor.dtype.is_weight_float()) {
            return Err(format!(
                "`{module}`: expected floats, found {}, {} and a weight of {}",
                a.dtype, b.dtype, weight.dtype
            ));
        }
        let misfit = || {
            format!("`{module}`: lora_a {:?} and lora_b {:?} do not fit a weight {:?}", a.shape, b.shape, weight.shape)
        };
        let (&[first, rank], &[rank_too, last], &[rows, columns]) = (&a.shape[..], &b.shape[..], &weight.shape[..])
        else {
            return Err(misfit());
        };
        let is_linear = (first, last) == (columns, rows);
        let is_embedding = (first, last) == (rows, columns) && (!is_linear || module.contains("embed"));
        if rank != rank_too || !(is_linear || is_embedding) {
            return Err(misfit());
        }
        let (left, right) = if is_embedding { (a, b) } else { (b, a) };
        Ok(Self { scale, rank, left: left.clone(), right: right.clone(), is_embedding })
    }

    /// Adds the change to some rows of the weight, which are `data` in type `dtype`.
    pub(crate) fn add_to(&self, data: &mut [u8], dtype: Dtype, rows: Range<usize>) -> Result<(), Error> {
        let row_bytes = data.len().checked_div(rows.len()).unwrap_or(0);
        let columns = row_bytes / dtype.size();
        let right = floats(&self.right)?;
        let right = if self.is_embedding { right } else { transposed(&right, columns, self.rank) };
        let left = floats(&self.left)?;
        let (stride, step) = if self.is_embedding { (self.rank, 1) } else { (1, left.len() / self.rank.max(1)) };
        let mut sums = vec![0.0_f32; columns];
        for (row, data) in rows.zip(data.chunks_exact_mut(row_bytes.max(1))) {
            sums.fill(0.0);
            for (index, right) in right.chunks_exact(columns.max(1)).enumerate() {
                let factor = self.scale * left[row * stride + index * step];
                for (sum, value) in sums.iter_mut().zip(right) {
                    *sum += factor * value;
                }
            }
            let bytes: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
            let rounded = widened(dtype, &cast(Dtype::F32, dtype, &bytes)?)?;
            let added: Vec<u8> = widened(dtype, data)?
                .iter()
                .zip(rounded)
                .flat_map(|(weight, sum)| (weight + sum).to_le_bytes())
                .collect();
            data.copy_from_slice(&cast(Dtype::F32, dtype, &added)?);
        }
        Ok(())
    }
}

fn floats(tensor: &Tensor) -> Result<Vec<f32>, Error> {
    widened(tensor.dtype, &tensor.data)
}

fn widened(dtype: Dtype, data: &[u8]) -> Result<Vec<f32>, Error> {
    Ok(cast(dtype, Dtype::F32, data)?.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}
