//! Quantisation formats, and how config.json tells which module uses which. The models ask [`QuantizationConfig`] for
//! each of their modules; the builder writes the same block for what it quantised.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::error::Excerpt;
use crate::{Checkpoint, Dtype, Error};

/// How codes turn into weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// weight = code · scale + bias, scale and bias in the model's float type.
    Affine,
    /// OCP microscaling: E2M1 codes, one power-of-two scale for 32 weights.
    Mxfp4,
    /// OCP microscaling: E4M3 codes, one power-of-two scale for 32 weights.
    Mxfp8,
    /// E2M1 codes, one E4M3 scale for 16 weights.
    Nvfp4,
}

impl Mode {
    const ALL: [Mode; 4] = [Mode::Affine, Mode::Mxfp4, Mode::Mxfp8, Mode::Nvfp4];

    /// The name in config.json.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Affine => "affine",
            Mode::Mxfp4 => "mxfp4",
            Mode::Mxfp8 => "mxfp8",
            Mode::Nvfp4 => "nvfp4",
        }
    }

    /// The mode of this name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Whether each group has a bias beside its scale.
    pub const fn has_biases(self) -> bool {
        matches!(self, Mode::Affine)
    }

    /// Bits and group size where config.json leaves them out, as MLX chooses them.
    const fn defaults(self) -> (u32, u32) {
        match self {
            Mode::Affine => (4, 64),
            Mode::Mxfp4 => (4, 32),
            Mode::Mxfp8 => (8, 32),
            Mode::Nvfp4 => (4, 16),
        }
    }

    const fn possible(self) -> &'static str {
        match self {
            Mode::Affine => "2, 3, 4, 5, 6 or 8 bits with groups of 32, 64 or 128",
            Mode::Mxfp4 => "4 bits with groups of 32",
            Mode::Mxfp8 => "8 bits with groups of 32",
            Mode::Nvfp4 => "4 bits with groups of 16",
        }
    }
}

/// One format: mode, bits a weight and weights a scale, known to exist together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Quantization {
    mode: Mode,
    bits: u32,
    group_size: u32,
}

impl Quantization {
    /// The format, if MLX has it.
    pub fn new(mode: Mode, bits: u32, group_size: u32) -> Result<Self, Error> {
        let exists = match mode {
            Mode::Affine => matches!(bits, 2 | 3 | 4 | 5 | 6 | 8) && matches!(group_size, 32 | 64 | 128),
            _ => (bits, group_size) == mode.defaults(),
        };
        if exists {
            Ok(Self { mode, bits, group_size })
        } else {
            Err(Error::UnknownFormat { mode: mode.name(), bits, group_size, possible: mode.possible() })
        }
    }

    /// Every format there is.
    pub fn every() -> impl Iterator<Item = Self> {
        Mode::ALL.into_iter().flat_map(|mode| {
            [2, 3, 4, 5, 6, 8].into_iter().flat_map(move |bits| {
                [16, 32, 64, 128].into_iter().filter_map(move |group_size| Self::new(mode, bits, group_size).ok())
            })
        })
    }

    /// How codes turn into weights.
    pub const fn mode(self) -> Mode {
        self.mode
    }

    /// Bits a weight.
    pub const fn bits(self) -> u32 {
        self.bits
    }

    /// Weights a scale.
    pub const fn group_size(self) -> u32 {
        self.group_size
    }

    /// Type of the scales of a matrix of `weights`: that of the weights in mode affine, bytes in every other.
    pub const fn scale_dtype(self, weights: Dtype) -> Dtype {
        if self.mode.has_biases() { weights } else { Dtype::U8 }
    }

    /// Width in 32-bit words of a packed row of `columns` weights; `None` unless whole groups fill the row.
    pub const fn packed_columns(self, columns: usize) -> Option<usize> {
        if columns.is_multiple_of(self.group_size as usize) {
            // Every group size is a multiple of 16 and every group of 32 is `bits` words; groups of 16 have 4 bits.
            Some(columns / 16 * self.bits as usize / 2)
        } else {
            None
        }
    }

    /// Scales (and biases, if the mode has any) of a row of `columns` weights; `None` unless whole groups fill the row.
    pub const fn groups(self, columns: usize) -> Option<usize> {
        if columns.is_multiple_of(self.group_size as usize) { Some(columns / self.group_size as usize) } else { None }
    }

    /// As config.json holds it: `{"group_size", "bits", "mode"}`, the keys in mlx-lm's order.
    pub fn to_json(self) -> Value {
        json!({"group_size": self.group_size, "bits": self.bits, "mode": self.mode.name()})
    }
}

/// What config.json says of one module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Entry {
    /// Never quantised (`false`).
    Plain,
    /// Quantised like the rest (`true`).
    Default,
    /// Quantised in a way of its own.
    Own(Quantization),
}

/// The quantisation block of a config.json: a default format and the modules that differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuantizationConfig {
    default: Option<Quantization>,
    modules: BTreeMap<String, Entry>,
}

impl QuantizationConfig {
    /// Reads `quantization`, else `quantization_config`, of a config.json; with neither, nothing is quantised.
    ///
    /// As in mlx-lm, `quantization` wins where both are there, and a module's own object takes missing fields from
    /// MLX's defaults for its mode, not from the block around it. A `quant_method` of another tool is refused by name,
    /// except `mxfp4` and `mxfp8`, whose bytes are those of MLX.
    pub fn from_config(config: &Value) -> Result<Self, Error> {
        if let Some(block) = config.get("quantization").filter(|block| !block.is_null()) {
            return Self::from_block(block, "quantization");
        }
        let key = "quantization_config";
        let Some(block) = config.get(key).filter(|block| !block.is_null()) else { return Ok(Self::default()) };
        let Some(method) = block.get("quant_method").filter(|method| !method.is_null()) else {
            return Self::from_block(block, key);
        };
        match method.as_str().and_then(Mode::from_name) {
            Some(mode @ (Mode::Mxfp4 | Mode::Mxfp8)) => {
                let (bits, group_size) = mode.defaults();
                Ok(Self { default: Some(Quantization::new(mode, bits, group_size)?), modules: BTreeMap::new() })
            }
            _ => Err(Error::Config {
                key: format!("{key}.quant_method"),
                reason: format!(
                    "expected a quantisation of MLX (`quantization` with bits and group_size), `mxfp4` or `mxfp8`, \
                     found {}; convert the model with mlx-lm first",
                    Excerpt(&method.to_string())
                ),
            }),
        }
    }

    /// A configuration for writing: one default, nothing that differs yet.
    pub fn new(default: Quantization) -> Self {
        Self { default: Some(default), modules: BTreeMap::new() }
    }

    /// Gives `module` a format of its own, or (with `None`) leaves it unquantised.
    pub fn set_module(&mut self, module: &str, quantization: Option<Quantization>) {
        let entry = quantization.map_or(Entry::Plain, Entry::Own);
        self.modules.insert(module.to_owned(), entry);
    }

    /// The format of modules that have no entry of their own; `None` where config.json has no block.
    pub fn default_format(&self) -> Option<Quantization> {
        self.default
    }

    /// The block as config.json holds it (write it as `quantization` and again as `quantization_config`), modules in
    /// byte order; `None` where nothing is quantised.
    pub fn to_json(&self) -> Option<Value> {
        let mut block = self.default?.to_json();
        if let Value::Object(fields) = &mut block {
            for (module, entry) in &self.modules {
                let value = match entry {
                    Entry::Plain => Value::Bool(false),
                    Entry::Default => Value::Bool(true),
                    Entry::Own(quantization) => quantization.to_json(),
                };
                fields.insert(module.clone(), value);
            }
        }
        Some(block)
    }

    /// The format of the module at `path` (the path of its weight without `.weight`), `None` if it is not quantised.
    /// `columns` is the length of its unpacked rows, as the configuration gives it.
    ///
    /// A module without an entry is quantised if the checkpoint has `<path>.scales`, in the format that its shapes
    /// tell for that many columns: the block's default may not be its own. The packed weight, scales and biases of a
    /// quantised module are checked: types, and shapes that fit `columns`, bits and group size.
    pub fn for_module(
        &self,
        path: &str,
        columns: usize,
        checkpoint: &Checkpoint,
    ) -> Result<Option<Quantization>, Error> {
        let mismatch = |reason: String| Error::ModuleMismatch { module: path.to_owned(), reason };
        let has_scales = checkpoint.contains(&format!("{path}.scales"));
        let entry = match self.modules.get(path) {
            None if !has_scales => return Ok(None),
            entry => entry.copied(),
        };
        let quantization = match entry {
            Some(Entry::Plain) if has_scales => {
                return Err(mismatch(
                    "config.json says it is not quantised, but the weights hold its scales".to_owned(),
                ));
            }
            Some(Entry::Plain) => return Ok(None),
            Some(Entry::Own(quantization)) => Some(quantization),
            Some(Entry::Default) => self.default,
            None if self.default.is_none() => {
                return Err(mismatch(
                    "the weights hold its scales, but config.json has no `quantization` block".to_owned(),
                ));
            }
            None => None,
        };
        if !has_scales {
            return Err(mismatch(format!("config.json says it is quantised, but the weights hold no `{path}.scales`")));
        }
        if checkpoint.contains(&format!("{path}.global_scale")) {
            return Err(mismatch("a global scale over the group scales is not supported".to_owned()));
        }
        check_tensors(path, columns, quantization, checkpoint).map(Some)
    }

    fn from_block(block: &Value, key: &str) -> Result<Self, Error> {
        let Value::Object(fields) = block else {
            return Err(Error::Config {
                key: key.to_owned(),
                reason: format!("expected an object, found {}", Excerpt(&block.to_string())),
            });
        };
        let default = format_of(fields, key)?;
        let mut modules = BTreeMap::new();
        for (name, value) in fields {
            let entry = match value {
                // Fields of the block itself; below, notes that other tools leave beside them.
                _ if matches!(name.as_str(), "bits" | "group_size" | "mode" | "quant_method") => continue,
                Value::Bool(false) | Value::Null => Entry::Plain,
                Value::Bool(true) => Entry::Default,
                Value::Object(own) => Entry::Own(format_of(own, &format!("{key}.{}", Excerpt(name)))?),
                _ => continue,
            };
            modules.insert(name.clone(), entry);
        }
        Ok(Self { default: Some(default), modules })
    }
}

/// Reads `mode`, `bits` and `group_size`, absent or null ones from MLX's defaults.
fn format_of(fields: &Map<String, Value>, key: &str) -> Result<Quantization, Error> {
    let field = |name: &str| fields.get(name).filter(|value| !value.is_null());
    let wrong = |name: &str, expected: &str, found: &Value| Error::Config {
        key: format!("{key}.{name}"),
        reason: format!("expected {expected}, found {}", Excerpt(&found.to_string())),
    };
    let mode = match field("mode") {
        None => Mode::Affine,
        Some(value) => value
            .as_str()
            .and_then(Mode::from_name)
            .ok_or_else(|| wrong("mode", "affine, mxfp4, mxfp8 or nvfp4", value))?,
    };
    let number = |name: &str, default: u32| match field(name) {
        None => Ok(default),
        Some(value) => value
            .as_u64()
            .and_then(|number| u32::try_from(number).ok())
            .ok_or_else(|| wrong(name, "a small whole number", value)),
    };
    let (bits, group_size) = mode.defaults();
    let (bits, group_size) = (number("bits", bits)?, number("group_size", group_size)?);
    Quantization::new(mode, bits, group_size)
        .map_err(|error| Error::Config { key: key.to_owned(), reason: error.to_string() })
}

/// Checks that weight, scales and biases of `path` fit each other and the format, which is inferred where none is
/// declared.
fn check_tensors(
    path: &str,
    columns: usize,
    declared: Option<Quantization>,
    checkpoint: &Checkpoint,
) -> Result<Quantization, Error> {
    let mismatch = |reason: String| Error::ModuleMismatch { module: path.to_owned(), reason };
    let [weight_name, scales_name, biases_name] = ["weight", "scales", "biases"].map(|part| format!("{path}.{part}"));
    let weight = checkpoint.tensor(&weight_name)?;
    let scales = checkpoint.tensor(&scales_name)?;
    if weight.dtype != Dtype::U32 {
        return Err(checkpoint.wrong_dtype(&weight_name, "packed U32 words", weight.dtype));
    }
    let (Some((&words, outer)), Some((&groups, scales_outer))) = (weight.shape.split_last(), scales.shape.split_last())
    else {
        return Err(mismatch("packed weight and scales need at least one dimension".to_owned()));
    };
    let fits = |quantization: &Quantization| {
        quantization.packed_columns(columns) == Some(words)
            && quantization.groups(columns) == Some(groups)
            && quantization.mode.has_biases() != (scales.dtype == Dtype::U8)
    };
    let candidate = match declared {
        Some(quantization) => Some(quantization).filter(fits),
        None => Quantization::every().find(fits),
    };
    let Some(quantization) = candidate.filter(|_| outer == scales_outer) else {
        let format = declared.map_or_else(
            || "any format of MLX".to_owned(),
            |q| format!("{} {} bits in groups of {}", q.mode.name(), q.bits, q.group_size),
        );
        return Err(mismatch(format!(
            "weight {:?} and {} scales {:?} do not fit rows of {columns} weights in {format}",
            weight.shape, scales.dtype, scales.shape
        )));
    };
    if quantization.mode.has_biases() {
        if !scales.dtype.is_weight_float() {
            return Err(checkpoint.wrong_dtype(&scales_name, "F32, F16 or BF16", scales.dtype));
        }
        let biases = checkpoint.require(&biases_name, &scales.shape)?;
        if biases.dtype != scales.dtype {
            return Err(checkpoint.wrong_dtype(&biases_name, "the type of the scales", biases.dtype));
        }
    } else if checkpoint.contains(&biases_name) {
        return Err(mismatch(format!(
            "mode {} has no biases, but the weights hold `{biases_name}`",
            quantization.mode.name()
        )));
    }
    Ok(quantization)
}
