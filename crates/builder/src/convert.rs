//! The weights' way into the store: as they are, or merged with adapters, cast, quantised and cut into files. Here is
//! decided what becomes of each tensor; `pieces` does it.

use std::collections::BTreeMap;

use mlxctl_artifact::{Descriptor, LayerKind, LayerPath, ModelLayer, media_type};
use mlxctl_modelspec::{self as modelspec, ModelSpec, QuantizeMode, QuantizeScheme};
use mlxctl_store::Store;
use mlxctl_weights::{
    Checkpoint, Dtype, Layout, Mode, Quantization, QuantizationConfig, SafetensorsWriter, Shard, Tensor, TensorSpec,
    plan_shards,
};

use crate::adapter::Changes;
use crate::config::SourceConfig;
use crate::mixed::Mixed;
use crate::pieces::{self, Output, Part, Work};
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
        files.push((path.to_string(), file.map(store)?));
    }
    // Reading every header before anything is written finds a damaged file early.
    let checkpoint = Checkpoint::from_files(files)?;
    let parameters = parameters(&checkpoint, config);
    let changes = Changes::read(spec, options.folder, &checkpoint)?;
    if spec.quantize.is_none() && spec.dtype.is_none() && spec.shard_size.is_none() && changes.is_empty() {
        let mut layers = Vec::new();
        for (path, file) in source.weights() {
            options.progress.file(path.as_str(), file.size);
            let blob = file.ingest(store)?;
            options.progress.advanced(file.size);
            layers.push(ModelLayer::of_file(LayerKind::Weight, path.clone(), &blob));
        }
        return Ok(Weights { layers, parameters, dtype: main_dtype(&checkpoint), converted: None });
    }
    let conversion = Conversion::plan(spec, config, &checkpoint, changes)?;
    let shard_bytes = spec.shard_size.unwrap_or(MAX_SHARD_BYTES);
    let plan = plan_shards(conversion.outputs.values().flatten().cloned().collect(), shard_bytes)?;
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
    formats: BTreeMap<String, Quantization>,
    changes: Changes,
    quantization: Option<QuantizationConfig>,
    mixed: Option<Mixed>,
    dtype: Option<Dtype>,
}

impl Conversion {
    fn plan(spec: &ModelSpec, config: &SourceConfig, checkpoint: &Checkpoint, changes: Changes) -> Result<Self, Error> {
        let refused =
            [("quantize", spec.quantize.is_some()), ("dtype", spec.dtype.is_some()), ("adapters", !changes.is_empty())];
        if let Some((key, _)) = refused.into_iter().find(|(_, asked)| *asked && config.is_quantized()) {
            let reason = "the source is quantised already; leave this out to keep its weights as they are".to_owned();
            return Err(Error::Unfit { key: key.to_owned(), reason });
        }
        let dtype = spec.dtype.map(|dtype| match dtype {
            modelspec::Dtype::Bf16 => Dtype::BF16,
            modelspec::Dtype::F16 => Dtype::F16,
            modelspec::Dtype::F32 => Dtype::F32,
        });
        let default = spec.quantize.as_ref().map(|quantize| format_of(quantize.scheme())).transpose()?;
        let recipe = spec.quantize.as_ref().and_then(|quantize| quantize.recipe);
        let modules = || checkpoint.names().filter_map(|name| name.strip_suffix(".weight"));
        let mut planned = Self {
            outputs: BTreeMap::new(),
            formats: BTreeMap::new(),
            changes,
            quantization: default.map(QuantizationConfig::new),
            mixed: recipe.map(|recipe| Mixed::of(recipe, modules())).transpose()?,
            dtype,
        };
        for (name, tensor) in checkpoint.iter() {
            if is_left_out(name, config) {
                continue;
            }
            let target = planned.target(tensor);
            let outputs = match planned.format(spec, name, tensor)? {
                None => vec![TensorSpec { name: name.to_owned(), dtype: target, shape: tensor.shape.clone() }],
                Some(format) => {
                    planned.formats.insert(name.to_owned(), format);
                    quantized_specs(name, tensor, target, format)
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

    /// The type a tensor is cast to: the recipe's where it holds weights.
    fn target(&self, tensor: &Tensor) -> Dtype {
        self.dtype.filter(|_| tensor.dtype.is_weight_float()).unwrap_or(tensor.dtype)
    }

    /// How a tensor is quantised; `None` where it stays as it is. As in mlx-lm, every matrix of a linear layer or an
    /// embedding whose rows the group size divides is quantised.
    fn format(&mut self, spec: &ModelSpec, name: &str, tensor: &Tensor) -> Result<Option<Quantization>, Error> {
        let (Some(quantize), Some(config)) = (&spec.quantize, &mut self.quantization) else { return Ok(None) };
        let Some(module) = name.strip_suffix(".weight") else { return Ok(None) };
        if !tensor.dtype.is_weight_float() || tensor.shape.len() != 2 {
            return Ok(None);
        }
        let base = quantize.scheme();
        let base = self.mixed.as_ref().map_or(base, |mixed| mixed.scheme(base, module));
        // A module that is not in config.json and has no scales is a plain one, to mlx-lm and to us.
        let Some(scheme) = quantize.over(base, module) else { return Ok(None) };
        let format = format_of(scheme)?;
        if !tensor.shape[1].is_multiple_of(format.group_size() as usize) {
            return Ok(None);
        }
        // Where a recipe chooses, mlx-lm writes down each choice.
        if self.mixed.is_some() || config.default_format() != Some(format) {
            config.set_module(module, Some(format));
        }
        Ok(Some(format))
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
        let outputs = order.iter().map(|spec| self.output(spec, checkpoint)).collect::<Result<Vec<_>, Error>>()?;
        let mut writer = SafetensorsWriter::new(layout, store.ingest_writer(media_type::OCTET_STREAM)?)?;
        pieces::write(&outputs, &mut writer, options)?;
        Ok(writer.finish()?.finish()?)
    }

    /// How an output is made.
    fn output<'a>(&'a self, spec: &'a TensorSpec, checkpoint: &'a Checkpoint) -> Result<Output<'a>, Error> {
        let beside = [(".scales", Part::Scales), (".biases", Part::Biases)].into_iter().find_map(|(ending, part)| {
            let weight = format!("{}.weight", spec.name.strip_suffix(ending)?);
            self.formats.contains_key(&weight).then_some((weight, part))
        });
        let (name, part) = beside.unwrap_or_else(|| (spec.name.clone(), Part::Weight));
        let tensor = checkpoint.tensor(&name)?;
        let format = self.formats.get(&name).copied();
        let work = Work { tensor, changes: self.changes.of(&name), dtype: self.target(tensor), format };
        Ok(Output { spec, work, part })
    }
}

/// The format that a recipe asks for.
fn format_of(scheme: QuantizeScheme) -> Result<Quantization, Error> {
    let mode = match scheme.mode {
        QuantizeMode::Affine => Mode::Affine,
        QuantizeMode::Mxfp4 => Mode::Mxfp4,
        QuantizeMode::Mxfp8 => Mode::Mxfp8,
        QuantizeMode::Nvfp4 => Mode::Nvfp4,
    };
    Ok(Quantization::new(mode, scheme.bits.into(), scheme.group_size)?)
}

fn quantized_specs(name: &str, tensor: &Tensor, dtype: Dtype, format: Quantization) -> Vec<TensorSpec> {
    let module = name.strip_suffix(".weight").unwrap_or(name);
    let (rows, columns) = tensor.rows_and_columns();
    let spec = |part: &str, dtype: Dtype, width: Option<usize>| TensorSpec {
        name: format!("{module}.{part}"),
        dtype,
        shape: vec![rows, width.expect("whole groups fill a row that is quantised")],
    };
    let scales = format.scale_dtype(dtype);
    let mut specs = vec![
        spec("weight", Dtype::U32, format.packed_columns(columns)),
        spec("scales", scales, format.groups(columns)),
    ];
    if format.mode().has_biases() {
        specs.push(spec("biases", scales, format.groups(columns)));
    }
    specs
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
