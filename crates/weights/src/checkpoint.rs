//! A checkpoint: the tensors of one or many files under their names. The models ask it for what the configuration
//! promises; the builder walks it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{Dtype, Error, Place, Tensor, read_safetensors};

/// Tensors by name, gathered from every file of a model.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    files: Vec<String>,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, Held>,
}

#[derive(Debug, Clone)]
struct Held {
    tensor: Tensor,
    /// Index into `files`.
    file: usize,
    /// Of the data, from the start of the file.
    bytes: (u64, u64),
}

impl Checkpoint {
    /// Reads and checks files given as `(name for messages, bytes)`; a tensor in two of them is an error.
    ///
    /// The caller chooses the files (mlx-lm takes `model*.safetensors` and reads no index). Metadata of the first
    /// file that has a key wins.
    pub fn from_files(files: Vec<(String, Bytes)>) -> Result<Self, Error> {
        let mut checkpoint = Checkpoint::default();
        for (name, bytes) in files {
            let read = read_safetensors(&bytes, &name)?;
            let file = checkpoint.files.len();
            checkpoint.files.push(name);
            for (tensor_name, tensor) in read.tensors {
                if let Some(held) = checkpoint.tensors.get(&tensor_name) {
                    return Err(Error::DuplicateAcrossFiles {
                        first: checkpoint.files[held.file].clone(),
                        second: checkpoint.files[file].clone(),
                        tensor: tensor_name,
                    });
                }
                // The tensor is a slice of the file, so the distance between their starts is its offset. An empty
                // slice points nowhere in particular.
                let begin =
                    if tensor.data.is_empty() { 0 } else { tensor.data.as_ptr() as u64 - bytes.as_ptr() as u64 };
                let held = Held { bytes: (begin, begin + tensor.data.len() as u64), tensor, file };
                checkpoint.tensors.insert(tensor_name, held);
            }
            for (key, value) in read.metadata {
                checkpoint.metadata.entry(key).or_insert(value);
            }
        }
        Ok(checkpoint)
    }

    /// The tensor of this name, if there is one.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).map(|held| &held.tensor)
    }

    /// Whether a tensor of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor of this name; absent, the error lists names that resemble it.
    pub fn tensor(&self, name: &str) -> Result<&Tensor, Error> {
        self.get(name).ok_or_else(|| Error::MissingTensor {
            name: name.to_owned(),
            files: self.files.len(),
            near: self.near(name),
        })
    }

    /// The tensor of this name, which must have this shape.
    pub fn require(&self, name: &str, shape: &[usize]) -> Result<&Tensor, Error> {
        let tensor = self.tensor(name)?;
        if tensor.shape == shape {
            return Ok(tensor);
        }
        Err(Error::WrongShape { place: self.place(name), expected: shape.to_vec(), found: tensor.shape.clone() })
    }

    /// The tensor of this name and shape, which must be F32, F16 or BF16.
    pub fn require_float(&self, name: &str, shape: &[usize]) -> Result<&Tensor, Error> {
        let tensor = self.require(name, shape)?;
        if tensor.dtype.is_weight_float() {
            return Ok(tensor);
        }
        Err(self.wrong_dtype(name, "F32, F16 or BF16", tensor.dtype))
    }

    /// Names in byte order.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Names and tensors, in byte order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, held)| (name.as_str(), &held.tensor))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor at all.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Names of the files, in the order given.
    pub fn files(&self) -> &[String] {
        &self.files
    }

    /// The merged `__metadata__` of the files.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Bytes of all tensors together.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|held| held.tensor.data.len() as u64).sum()
    }

    /// Where a tensor lies, for messages; an absent one has no file and no bytes.
    pub fn place(&self, name: &str) -> Place {
        let (file, bytes) =
            self.tensors.get(name).map_or_else(Default::default, |held| (self.files[held.file].clone(), held.bytes));
        Place { file, tensor: Some(name.to_owned()), bytes }
    }

    pub(crate) fn wrong_dtype(&self, name: &str, expected: &'static str, found: Dtype) -> Error {
        Error::WrongDtype { place: self.place(name), expected, found }
    }

    /// Up to three names with the longest common ending: prefixes are what differs between exporters.
    fn near(&self, name: &str) -> Vec<String> {
        let common = |other: &str| name.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
        let mut scored: Vec<(usize, &str)> = self.names().map(|other| (common(other), other)).collect();
        scored.retain(|(score, _)| *score > name.len() / 2);
        scored.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        scored.into_iter().take(3).map(|(_, other)| other.to_owned()).collect()
    }
}
