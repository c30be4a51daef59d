//! The weights' way into the store: as they are, cast, or quantised, one tensor at a time.

use std::collections::BTreeMap;

use mlxctl_artifact::{Descriptor, LayerKind, LayerPath, ModelLayer, media_type};
use mlxctl_modelspec::{self as modelspec, ModelSpec, QuantizeMode, QuantizeScheme};
use mlxctl_store::Store;
use mlxctl_weights::{
    Affine, Checkpoint, Dtype, Layout, MatrixView, Mode, Quantization, QuantizationConfig, QuantizedTensors,
    SafetensorsWriter, Shard, Tensor, TensorSpec, cast, plan_shards, quantize_affine,
};

use crate::config::SourceConfig;
use crate::source::Source;
use crate::{BuildOptions, Error};

/// Data of one weight file at the most, as mlx-lm writes them.
const MAX_SHARD_BYTES: u64 = 5 << 30;

/// The weights in the store, and what has to be said of them.
pub(crate) struct Weights {
    /// One layer a file.
    pub layers: Vec<ModelLayer>,
    /// Numbers in the model, codes counted as the weights they stand for.
    pub parameters: u64,
    /// The type of most of the weights that are not quantised.
    pub dtype: Option<Dtype>,
    /// Set where the weights were converted: their own part of `config.json` and the index of several files.
    pub converted: Option<Converted>,
}

/// What a conversion changes beside the weights.
pub(crate) struct Converted {
    /// How the modules were quantised.
    pub quantization: Option<QuantizationConfig>,
    /// `model.safetensors.index.json` where there are several files.
    pub index: Option<serde_json::Value>,
}

/// Brings the weights into the store.
pub(crate) fn weights(
    spec: &ModelSpec,
    source: &Source,
    config: &SourceConfig,
    store: &Store,
    options: &BuildOptions<'_>,
) -> Result<Weights, Error> {
    let mut files = Vec::new();
    for (path, file) in source.weights() {
        files.push((path.to_string(), mlxctl_store::map_file(&file.path)?));
    }
    // Reading every header before anything is written finds a damaged file early.
    let checkpoint = Checkpoint::from_files(files)?;
    let parameters = parameters(&checkpoint, config);
    if spec.quantize.is_none() && spec.dtype.is_none() {
        let mut layers = Vec::new();
        for (path, file) in source.weights() {
            options.progress.file(path.as_str(), file.size);
            let blob = store.ingest_file(media_type::OCTET_STREAM, &file.path)?;
            options.progress.advanced(file.size);
            layers.push(ModelLayer::of_file(LayerKind::Weight, path.clone(), &blob));
        }
        return Ok(Weights { layers, parameters, dtype: main_dtype(&checkpoint), converted: None });
    }
    let conversion = Conversion::plan(spec, config, &checkpoint)?;
    let plan = plan_shards(conversion.outputs.values().flatten().cloned().collect(), MAX_SHARD_BYTES)?;
    let mut layers = Vec::new();
    for shard in &plan.shards {
        let blob = conversion.write(shard, &checkpoint, store, options)?;
        let path: LayerPath = shard.file_name.parse()?;
        layers.push(ModelLayer::of_file(LayerKind::Weight, path, &blob));
    }
    let dtype = conversion.dtype.or_else(|| main_dtype(&checkpoint));
    let converted = Converted { quantization: conversion.quantization, index: plan.index() };
    Ok(Weights { layers, parameters, dtype, converted: Some(converted) })
}

/// What becomes of every tensor.
struct Conversion {
    /// The tensors that each source tensor turns into.
    outputs: BTreeMap<String, Vec<TensorSpec>>,
    /// The format of each quantised weight, by the weight's name.
    formats: BTreeMap<String, Affine>,
    quantization: Option<QuantizationConfig>,
    dtype: Option<Dtype>,
}

impl Conversion {
    fn plan(spec: &ModelSpec, config: &SourceConfig, checkpoint: &Checkpoint) -> Result<Self, Error> {
        if config.is_quantized() {
            let key = if spec.quantize.is_some() { "quantize" } else { "dtype" };
            let reason = "the source is quantised already; leave this out to keep its weights as they are".to_owned();
            return Err(Error::Unfit { key: key.to_owned(), reason });
        }
        let dtype = spec.dtype.map(|dtype| match dtype {
            modelspec::Dtype::Bf16 => Dtype::BF16,
            modelspec::Dtype::F16 => Dtype::F16,
            modelspec::Dtype::F32 => Dtype::F32,
        });
        let default = spec
            .quantize
            .as_ref()
            .map(|quantize| {
                let scheme =
                    QuantizeScheme { mode: quantize.mode, bits: quantize.bits, group_size: quantize.group_size };
                format_of("quantize", scheme)
            })
            .transpose()?;
        let mut planned = Self {
            outputs: BTreeMap::new(),
            formats: BTreeMap::new(),
            quantization: default.map(|affine| QuantizationConfig::new(affine.into())),
            dtype,
        };
        for (name, tensor) in checkpoint.iter() {
            if is_left_out(name, config) {
                continue;
            }
            let float = tensor.dtype.is_weight_float();
            let target = if float { dtype.unwrap_or(tensor.dtype) } else { tensor.dtype };
            let outputs = match planned.format(spec, name, tensor)? {
                None => vec![TensorSpec { name: name.to_owned(), dtype: target, shape: tensor.shape.clone() }],
                Some(affine) => {
                    planned.formats.insert(name.to_owned(), affine);
                    quantized_specs(name, tensor, target, affine)
                }
            };
            planned.outputs.insert(name.to_owned(), outputs);
        }
        if default.is_some() && planned.formats.is_empty() {
            let reason =
                "no weight of the model can be quantised so: none is a float matrix whose rows the group size divides";
            return Err(Error::Unfit { key: "quantize".to_owned(), reason: reason.to_owned() });
        }
        Ok(planned)
    }

    /// How a tensor is quantised; `None` where it stays as it is. As in mlx-lm, every matrix of a linear layer or an
    /// embedding whose rows the group size divides is quantised.
    fn format(&mut self, spec: &ModelSpec, name: &str, tensor: &Tensor) -> Result<Option<Affine>, Error> {
        let (Some(quantize), Some(config)) = (&spec.quantize, &mut self.quantization) else { return Ok(None) };
        let Some(module) = name.strip_suffix(".weight") else { return Ok(None) };
        if !tensor.dtype.is_weight_float() || tensor.shape.len() != 2 {
            return Ok(None);
        }
        let Some(scheme) = quantize.for_module(module) else {
            config.set_module(module, None);
            return Ok(None);
        };
        let affine = format_of("quantize.overrides", scheme)?;
        if !tensor.shape[1].is_multiple_of(affine.group_size() as usize) {
            return Ok(None);
        }
        if config.default_format() != Some(affine.into()) {
            config.set_module(module, Some(affine.into()));
        }
        Ok(Some(affine))
    }

    /// Writes one file of the plan into the store.
    fn write(
        &self,
        shard: &Shard,
        checkpoint: &Checkpoint,
        store: &Store,
        options: &BuildOptions<'_>,
    ) -> Result<Descriptor, Error> {
        let metadata = BTreeMap::from([("format".to_owned(), "mlx".to_owned())]);
        let layout = Layout::new(shard.tensors.clone(), &metadata)?;
        let order: Vec<TensorSpec> = layout.tensors().to_vec();
        options.progress.file(&shard.file_name, layout.file_bytes());
        let mut writer = SafetensorsWriter::new(layout, store.ingest_writer(media_type::OCTET_STREAM)?)?;
        // The three tensors of a quantised weight lie side by side unless one is oddly sized: what is not asked for
        // yet waits here.
        let mut waiting: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for output in &order {
            let data = match waiting.remove(&output.name) {
                Some(data) => data,
                None => self.make(output, checkpoint, &mut waiting, options)?,
            };
            writer.write(&output.name, &data)?;
            options.progress.advanced(data.len() as u64);
        }
        Ok(writer.finish()?.finish()?)
    }

    /// The bytes of one output; the others made with it go to `waiting`.
    fn make(
        &self,
        output: &TensorSpec,
        checkpoint: &Checkpoint,
        waiting: &mut BTreeMap<String, Vec<u8>>,
        options: &BuildOptions<'_>,
    ) -> Result<Vec<u8>, Error> {
        let name = self.origin(&output.name);
        let tensor = checkpoint.tensor(&name)?;
        let Some(&affine) = self.formats.get(&name) else {
            return Ok(cast(tensor.dtype, output.dtype, &tensor.data)?);
        };
        let module = name.strip_suffix(".weight").unwrap_or(&name);
        let target = self.dtype.unwrap_or(tensor.dtype);
        let (rows, columns) = tensor.rows_and_columns();
        let cast_data;
        let data = if target == tensor.dtype {
            &tensor.data[..]
        } else {
            cast_data = cast(tensor.dtype, target, &tensor.data)?;
            &cast_data
        };
        let matrix = MatrixView { rows, columns, dtype: target, data };
        let QuantizedTensors { weight, scales, biases } = quantize_affine(matrix, affine, options.threads.get())?;
        waiting.insert(format!("{module}.weight"), weight);
        waiting.insert(format!("{module}.scales"), scales);
        waiting.insert(format!("{module}.biases"), biases);
        Ok(waiting.remove(&output.name).expect("an output of a quantised weight is one of the three"))
    }

    /// The source tensor that an output is made of.
    fn origin(&self, output: &str) -> String {
        let module = output.strip_suffix(".scales").or_else(|| output.strip_suffix(".biases"));
        match module.map(|module| format!("{module}.weight")) {
            Some(weight) if self.formats.contains_key(&weight) => weight,
            _ => output.to_owned(),
        }
    }
}

/// The affine format that a recipe asks for.
fn format_of(key: &str, scheme: QuantizeScheme) -> Result<Affine, Error> {
    if scheme.mode != QuantizeMode::Affine {
        return Err(Error::NotYet {
            key: format!("{key}.mode"),
            what: format!("quantising to {}", scheme.mode.name()),
        });
    }
    Ok(Affine::try_from(Quantization::new(Mode::Affine, scheme.bits.into(), scheme.group_size)?)?)
}

fn quantized_specs(name: &str, tensor: &Tensor, dtype: Dtype, affine: Affine) -> Vec<TensorSpec> {
    let module = name.strip_suffix(".weight").unwrap_or(name);
    let (rows, columns) = tensor.rows_and_columns();
    let groups = columns / affine.group_size() as usize;
    let words = columns * affine.bits() as usize / 32;
    vec![
        TensorSpec { name: format!("{module}.weight"), dtype: Dtype::U32, shape: vec![rows, words] },
        TensorSpec { name: format!("{module}.scales"), dtype, shape: vec![rows, groups] },
        TensorSpec { name: format!("{module}.biases"), dtype, shape: vec![rows, groups] },
    ]
}

/// Tensors that a conversion leaves behind, as mlx-lm does: tables that are computed anew, and the second copy of a
/// tied head.
fn is_left_out(name: &str, config: &SourceConfig) -> bool {
    name.ends_with("rotary_emb.inv_freq") || (config.ties_embeddings() && name == "lm_head.weight")
}

/// Numbers in the model. A quantised weight counts for the weights its codes stand for, its scales and biases for none.
fn parameters(checkpoint: &Checkpoint, config: &SourceConfig) -> u64 {
    let mut count = 0_u64;
    for (name, tensor) in checkpoint.iter() {
        let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
        let scales = checkpoint.get(&format!("{module}.scales")).filter(|_| config.is_quantized());
        count = count.saturating_add(match scales {
            Some(_) if name.ends_with(".scales") || name.ends_with(".biases") => 0,
            Some(scales) if name.ends_with(".weight") => {
                (scales.elements() as u64).saturating_mul(config.group_size(module))
            }
            _ => tensor.elements() as u64,
        });
    }
    count
}

/// The float type that holds the most bytes.
fn main_dtype(checkpoint: &Checkpoint) -> Option<Dtype> {
    let mut bytes: BTreeMap<&str, (usize, Dtype)> = BTreeMap::new();
    for (_, tensor) in checkpoint.iter().filter(|(_, tensor)| tensor.dtype.is_weight_float()) {
        let entry = bytes.entry(tensor.dtype.name()).or_insert((0, tensor.dtype));
        entry.0 += tensor.data.len();
    }
    bytes.into_values().max_by_key(|(bytes, dtype)| (*bytes, dtype.name())).map(|(_, dtype)| dtype)
}
