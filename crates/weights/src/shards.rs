//! Which tensor goes into which file of a model too large for one. Planning is pure: the builder plans, then lays out
//! and writes each file.

use serde_json::{Map, Value, json};

use crate::{Error, TensorSpec};

/// One file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// `model.safetensors`, or `model-00001-of-0000N.safetensors` where there are several.
    pub file_name: String,
    /// Its tensors, by module and name.
    pub tensors: Vec<TensorSpec>,
}

/// The files of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardPlan {
    /// The files, in order. At least one.
    pub shards: Vec<Shard>,
    /// Bytes of all tensors together.
    pub total_bytes: u64,
}

impl ShardPlan {
    /// What belongs into `model.safetensors.index.json`; `None` for a single file, which needs no index.
    pub fn index(&self) -> Option<Value> {
        if self.shards.len() < 2 {
            return None;
        }
        let mut files: Vec<(&str, &str)> = self
            .shards
            .iter()
            .flat_map(|shard| shard.tensors.iter().map(|tensor| (tensor.name.as_str(), shard.file_name.as_str())))
            .collect();
        files.sort_unstable();
        let weight_map: Map<String, Value> =
            files.into_iter().map(|(tensor, file)| (tensor.to_owned(), Value::from(file))).collect();
        Some(json!({"metadata": {"total_size": self.total_bytes}, "weight_map": weight_map}))
    }
}

/// Distributes tensors over files of at most `max_bytes` bytes of data each, by module and name whatever the order given.
///
/// The tensors of one module (weight, scales, biases) stay together, so that what quantises it has all of them in one
/// file; a module or a tensor larger than `max_bytes` gets files of its own.
pub fn plan_shards(mut tensors: Vec<TensorSpec>, max_bytes: u64) -> Result<ShardPlan, Error> {
    tensors.sort_by(|a, b| (module_of(&a.name), &a.name).cmp(&(module_of(&b.name), &b.name)));
    let mut total_bytes = 0_u64;
    let mut shards: Vec<Vec<TensorSpec>> = vec![Vec::new()];
    let mut filled = 0_u64;
    let mut rest = tensors.into_iter().peekable();
    while let Some(first) = rest.next() {
        let module = module_of(&first.name).to_owned();
        let mut group = vec![first];
        while let Some(tensor) = rest.next_if(|tensor| module_of(&tensor.name) == module) {
            group.push(tensor);
        }
        let mut bytes = 0_u64;
        for tensor in &group {
            bytes = bytes.saturating_add(tensor.bytes()?);
        }
        total_bytes = total_bytes.saturating_add(bytes);
        let parts =
            if bytes > max_bytes { group.into_iter().map(|tensor| vec![tensor]).collect() } else { vec![group] };
        for part in parts {
            let mut bytes = 0;
            for tensor in &part {
                bytes += tensor.bytes()?;
            }
            if filled > 0 && filled.saturating_add(bytes) > max_bytes {
                shards.push(Vec::new());
                filled = 0;
            }
            filled = filled.saturating_add(bytes);
            if let Some(shard) = shards.last_mut() {
                shard.extend(part);
            }
        }
    }
    let count = shards.len();
    let shards = shards
        .into_iter()
        .enumerate()
        .map(|(index, tensors)| {
            let file_name = if count == 1 {
                "model.safetensors".to_owned()
            } else {
                format!("model-{:05}-of-{count:05}.safetensors", index + 1)
            };
            Shard { file_name, tensors }
        })
        .collect();
    Ok(ShardPlan { shards, total_bytes })
}

/// The path of the module a tensor belongs to: its name without the last part, or all of a name that has one part.
pub(crate) fn module_of(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(module, _)| module)
}
