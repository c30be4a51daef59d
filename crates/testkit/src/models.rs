//! Tiny random models of every family, made from a seed by the formula of `tools/parity/tiny.py`, so that tests need
//! no files of weights and logits computed there by mlx-lm hold here.
//!
//! Files are written as MLX's own writer leaves them: no padding, so that most tensors are misaligned.

use bytes::Bytes;
use mlxctl_weights::{Affine, Checkpoint, Dtype, MatrixView, Mode, Quantization, Tensor, cast, quantize_affine};
use serde_json::{Map, Value, json};

/// A model that does not exist until asked for.
#[derive(Debug, Clone)]
pub struct TinyModel {
    /// Its config.json. A `quantization` block is obeyed as mlx-lm does when it converts.
    pub config: Value,
    /// Type of weights, scales and biases: F32, F16 or BF16.
    pub dtype: Dtype,
    /// Another seed, other weights.
    pub seed: u64,
    /// Files to spread the tensors over.
    pub files: usize,
    /// Names and shapes of the tensors; those of a Llama with this configuration where there are none.
    pub shapes: Option<Vec<(String, Vec<usize>)>>,
}

impl TinyModel {
    /// A model in one file.
    pub fn new(config: Value, dtype: Dtype, seed: u64) -> Self {
        Self { config, dtype, seed, files: 1, shapes: None }
    }

    /// The model of a golden case: an object with `config`, `dtype`, `seed` and `tensors`, as
    /// `tools/parity/families.py` writes it.
    ///
    /// # Panics
    /// Where a field is absent.
    pub fn golden(case: &Value) -> Self {
        let dtype = match case["dtype"].as_str() {
            Some("float32") => Dtype::F32,
            Some("float16") => Dtype::F16,
            _ => Dtype::BF16,
        };
        let seed = case["seed"].as_u64().expect("a golden case has a seed");
        let tensors = case["tensors"].as_object().expect("a golden case lists its tensors");
        let sizes = |shape: &Value| {
            let sizes = shape.as_array().into_iter().flatten().filter_map(Value::as_u64);
            sizes.map(|size| size as usize).collect()
        };
        let shapes = tensors.iter().map(|(name, shape)| (name.clone(), sizes(shape))).collect();
        Self { shapes: Some(shapes), ..Self::new(case["config"].clone(), dtype, seed) }
    }

    /// A Qwen3 of two layers, 64 features and 48 tokens.
    pub fn qwen3() -> Self {
        let config = json!({
            "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96,
            "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "rms_norm_eps": 1e-6, "vocab_size": 48,
            "max_position_embeddings": 512, "rope_theta": 1e6, "tie_word_embeddings": true,
        });
        Self::new(config, Dtype::BF16, 1)
    }

    /// The bytes of its config.json.
    pub fn config_json(&self) -> Vec<u8> {
        self.config.to_string().into_bytes()
    }

    /// Its tensors in the order of the files, quantised where the configuration says so.
    ///
    /// # Panics
    /// Where the configuration lacks a size.
    pub fn tensors(&self) -> Vec<(String, Tensor)> {
        let tensors = self.shapes.clone().unwrap_or_else(|| shapes(&self.config)).into_iter().map(|(name, shape)| {
            let plain: Vec<u8> = values(&name, &shape, self.seed).into_iter().flat_map(f32::to_le_bytes).collect();
            let data = cast(Dtype::F32, self.dtype, &plain).expect("F32 casts to every type of weights");
            (name, Tensor { dtype: self.dtype, shape, data: Bytes::from(data) })
        });
        quantize(&self.config, tensors.collect())
    }

    /// Its weight files with their names, as the hub names them.
    pub fn weight_files(&self) -> Vec<(String, Bytes)> {
        let tensors = self.tensors();
        if self.files == 1 {
            return vec![("model.safetensors".to_owned(), file(&tensors))];
        }
        let share = tensors.len().div_ceil(self.files);
        let files = tensors.chunks(share).enumerate();
        files
            .map(|(index, part)| (format!("model-{:05}-of-{:05}.safetensors", index + 1, self.files), file(part)))
            .collect()
    }

    /// The files, opened.
    ///
    /// # Panics
    /// Where the reader refuses what is written here.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::from_files(self.weight_files()).expect("a file of tiny weights is valid")
    }
}

/// Quantises the matrices that the `quantization` block of a configuration names, and leaves those out whose rows are
/// not whole groups.
///
/// # Panics
/// Where the block names a format that does not exist.
pub fn quantize(config: &Value, tensors: Vec<(String, Tensor)>) -> Vec<(String, Tensor)> {
    let Some(block) = config.get("quantization") else { return tensors };
    let mut result = Vec::new();
    for (name, tensor) in tensors {
        let path = name.trim_end_matches(".weight");
        let own = match block.get(path) {
            None | Some(Value::Bool(true)) => block,
            Some(Value::Bool(false)) => &Value::Null,
            Some(own) => own,
        };
        let number = |key: &str| own.get(key).and_then(Value::as_u64).unwrap_or_default() as u32;
        let (bits, group_size) = (number("bits"), number("group_size"));
        let width = tensor.shape.last().copied().unwrap_or_default();
        let fits = tensor.shape.len() >= 2 && group_size > 0 && width.is_multiple_of(group_size as usize);
        if !fits {
            result.push((name, tensor));
            continue;
        }
        let (rows, columns) = tensor.rows_and_columns();
        let affine = Affine::new(bits, group_size).expect("a format of MLX");
        let view = MatrixView { rows, columns, dtype: tensor.dtype, data: &tensor.data };
        let made = quantize_affine(view, affine, 1).expect("whole groups of floats");
        let format = Quantization::new(Mode::Affine, bits, group_size).expect("a format of MLX");
        let words = format.packed_columns(columns).expect("whole groups");
        let groups = columns / group_size as usize;
        let outer = &tensor.shape[..tensor.shape.len() - 1];
        let part = |dtype, width: usize, data: Vec<u8>| Tensor {
            dtype,
            shape: [outer, &[width]].concat(),
            data: Bytes::from(data),
        };
        result.push((format!("{path}.weight"), part(Dtype::U32, words, made.weight)));
        result.push((format!("{path}.scales"), part(tensor.dtype, groups, made.scales)));
        result.push((format!("{path}.biases"), part(tensor.dtype, groups, made.biases)));
    }
    result
}

/// A safetensors file of these tensors in this order, its data at an odd offset.
pub fn file(tensors: &[(String, Tensor)]) -> Bytes {
    let mut header = Map::new();
    header.insert("__metadata__".to_owned(), json!({"format": "mlx"}));
    let mut end = 0;
    for (name, tensor) in tensors {
        let begin = end;
        end += tensor.data.len();
        let entry = json!({"dtype": tensor.dtype.name(), "shape": tensor.shape, "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = Value::Object(header).to_string();
    if header.len().is_multiple_of(2) {
        header.push(' ');
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    for (_, tensor) in tensors {
        bytes.extend_from_slice(&tensor.data);
    }
    Bytes::from(bytes)
}

/// Names and shapes of the tensors that a configuration asks for.
fn shapes(config: &Value) -> Vec<(String, Vec<usize>)> {
    let optional = |key: &str| config.get(key).and_then(Value::as_u64).map(|number| number as usize);
    let size = |key: &str| optional(key).unwrap_or_else(|| panic!("the configuration has no `{key}`"));
    let flag = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    let (hidden, inner, vocabulary) = (size("hidden_size"), size("intermediate_size"), size("vocab_size"));
    let heads = size("num_attention_heads");
    let kv_heads = optional("num_key_value_heads").unwrap_or(heads);
    let head_dim = optional("head_dim").unwrap_or(hidden / heads);
    let mut tensors = vec![("model.embed_tokens.weight".to_owned(), vec![vocabulary, hidden])];
    let linear = |tensors: &mut Vec<_>, path: String, out: usize, columns: usize, bias: bool| {
        tensors.push((format!("{path}.weight"), vec![out, columns]));
        if bias {
            tensors.push((format!("{path}.bias"), vec![out]));
        }
    };
    for layer in 0..size("num_hidden_layers") {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let (attention_bias, mlp_bias) = (flag("attention_bias"), flag("mlp_bias"));
        tensors.push((name("input_layernorm.weight"), vec![hidden]));
        linear(&mut tensors, name("self_attn.q_proj"), heads * head_dim, hidden, attention_bias);
        linear(&mut tensors, name("self_attn.k_proj"), kv_heads * head_dim, hidden, attention_bias);
        linear(&mut tensors, name("self_attn.v_proj"), kv_heads * head_dim, hidden, attention_bias);
        linear(&mut tensors, name("self_attn.o_proj"), hidden, heads * head_dim, attention_bias);
        if config["model_type"] == "qwen3" {
            tensors.push((name("self_attn.q_norm.weight"), vec![head_dim]));
            tensors.push((name("self_attn.k_norm.weight"), vec![head_dim]));
        }
        tensors.push((name("post_attention_layernorm.weight"), vec![hidden]));
        linear(&mut tensors, name("mlp.gate_proj"), inner, hidden, mlp_bias);
        linear(&mut tensors, name("mlp.up_proj"), inner, hidden, mlp_bias);
        linear(&mut tensors, name("mlp.down_proj"), hidden, inner, mlp_bias);
    }
    tensors.push(("model.norm.weight".to_owned(), vec![hidden]));
    if !flag("tie_word_embeddings") {
        linear(&mut tensors, "lm_head".to_owned(), vocabulary, hidden, false);
    }
    tensors
}

/// The elements of one tensor.
fn values(name: &str, shape: &[usize], seed: u64) -> Vec<f32> {
    let numbers = numbers(name, shape.iter().product(), seed);
    match shape {
        [_, columns] | [_, _, columns] => {
            let factor = if name.contains("embed_tokens") { 1.0 } else { amplitude(*columns) };
            numbers.map(|number| number * factor).collect()
        }
        _ if name.ends_with("bias") => numbers.map(|number| number / 4.0).collect(),
        _ => numbers.map(|number| number / 4.0 + 1.0).collect(),
    }
}

/// `count` multiples of 2⁻²³ in [−1, 1): SplitMix64 over a counter that starts at a hash of the name.
fn numbers(name: &str, count: usize, seed: u64) -> impl Iterator<Item = f32> {
    const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
    let start = name.bytes().fold(0xCBF2_9CE4_8422_2325, hash).wrapping_add(seed.wrapping_mul(STEP));
    (1..=count as u64).map(move |index| {
        let x = start.wrapping_add(index.wrapping_mul(STEP));
        let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let x = x ^ (x >> 31);
        ((x >> 40) as i32 - (1 << 23)) as f32 / (1 << 23) as f32
    })
}

/// The largest power of two whose square times `columns` is at most 4: outputs keep the size of inputs.
fn amplitude(columns: usize) -> f32 {
    let mut value = 1.0_f32;
    while value * value * columns as f32 > 4.0 {
        value /= 2.0;
    }
    value
}
