//! Writing safetensors files whose bytes depend on their content alone. The builder lays a file out, then streams the
//! tensors in the order of the layout, so that memory stays bounded whatever the size of the model.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde_json::json;

use crate::shards::module_of;
use crate::{Dtype, Error, MAX_HEADER_BYTES, MAX_RANK, MAX_TENSORS, Tensor};

/// Where data starts, and what tensors whose size allows it start at: a cache line, an AVX-512 register.
const ALIGNMENT: usize = 64;

/// A tensor to come: what the header says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Dimensions, outermost first.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// The description of an existing tensor.
    pub fn of(name: &str, tensor: &Tensor) -> Self {
        Self { name: name.to_owned(), dtype: tensor.dtype, shape: tensor.shape.clone() }
    }

    /// Bytes of its data, or why they cannot be counted.
    pub fn bytes(&self) -> Result<u64, Error> {
        self.dtype.bytes_of(&self.shape).map(|bytes| bytes as u64).ok_or_else(|| Error::WriteOrder {
            tensor: self.name.clone(),
            expected: "a size that 64 bits can count".to_owned(),
            found: format!("{} of shape {:?}", self.dtype, self.shape),
        })
    }
}

/// A file laid out: its header, and the order in which its tensors must be written.
///
/// The header is padded with spaces so that the data starts at a multiple of 64 bytes. Tensors whose size is a
/// multiple of 64 come first, so each of them starts at one too; then the rest by descending alignment of their type,
/// so each of them is aligned for its type. Within these, by module, its weight first: what is made along with a long
/// weight (scales, biases) is short and waits for it. There are no holes.
#[derive(Debug, Clone)]
pub struct Layout {
    header: Vec<u8>,
    tensors: Vec<TensorSpec>,
    data_bytes: u64,
}

impl Layout {
    /// Lays out a file of these tensors, in any order, with this metadata (`{"format": "mlx"}` for models).
    ///
    /// Refuses repeated names, names the format reserves, and headers no reader would accept.
    pub fn new(mut tensors: Vec<TensorSpec>, metadata: &BTreeMap<String, String>) -> Result<Self, Error> {
        let mut names = BTreeSet::new();
        for tensor in &tensors {
            let refuse = |expected: &str, found: String| {
                Err(Error::WriteOrder { tensor: tensor.name.clone(), expected: expected.to_owned(), found })
            };
            if tensor.name == "__metadata__" {
                return refuse("a name that the format does not reserve", tensor.name.clone());
            }
            if !names.insert(tensor.name.as_str()) {
                return refuse("each name once", "it twice".to_owned());
            }
            if tensor.shape.len() > MAX_RANK {
                return refuse("at most 32 dimensions", tensor.shape.len().to_string());
            }
            tensor.bytes()?;
        }
        tensors.sort_by_cached_key(|tensor| {
            let whole_lines = tensor.bytes().is_ok_and(|bytes| bytes.is_multiple_of(ALIGNMENT as u64));
            let alignment = if whole_lines { ALIGNMENT } else { tensor.dtype.alignment() };
            let module = module_of(&tensor.name);
            let is_beside = tensor.name.strip_prefix(module) != Some(".weight");
            (std::cmp::Reverse(alignment), module.to_owned(), is_beside, tensor.name.clone())
        });

        // Put together by hand: the order of keys in the text is then that of the file, whatever features of
        // `serde_json` a build turns on.
        let mut entries = Vec::with_capacity(tensors.len() + 1);
        if !metadata.is_empty() {
            entries.push(format!("\"__metadata__\":{}", json!(metadata)));
        }
        let mut data_bytes = 0_u64;
        for tensor in &tensors {
            let end = data_bytes.checked_add(tensor.bytes()?).ok_or_else(|| Error::WriteOrder {
                tensor: tensor.name.clone(),
                expected: "a file whose size 64 bits can count".to_owned(),
                found: format!("more than {data_bytes} bytes"),
            })?;
            let (name, dtype, shape) = (json!(tensor.name), tensor.dtype.name(), json!(tensor.shape));
            entries.push(format!(
                "{name}:{{\"dtype\":\"{dtype}\",\"shape\":{shape},\"data_offsets\":[{data_bytes},{end}]}}"
            ));
            data_bytes = end;
        }
        let mut text = format!("{{{}}}", entries.join(",")).into_bytes();
        let padded = (8 + text.len()).next_multiple_of(ALIGNMENT) - 8;
        text.resize(padded, b' ');
        if text.len() as u64 > MAX_HEADER_BYTES || entries.len() > MAX_TENSORS {
            return Err(Error::Unfit {
                what: "a header",
                expected: format!("at most {MAX_HEADER_BYTES} bytes and {MAX_TENSORS} entries"),
                found: format!("{} bytes for {} tensors; write several files", text.len(), tensors.len()),
            });
        }
        let mut header = (text.len() as u64).to_le_bytes().to_vec();
        header.append(&mut text);
        Ok(Self { header, tensors, data_bytes })
    }

    /// The tensors in the order in which they must be written.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// Bytes of the whole file.
    pub fn file_bytes(&self) -> u64 {
        self.header.len() as u64 + self.data_bytes
    }
}

/// Writes one laid-out file into `W`, tensor after tensor.
#[derive(Debug)]
pub struct SafetensorsWriter<W> {
    out: W,
    tensors: std::vec::IntoIter<TensorSpec>,
    /// The tensor being written, and how many of its bytes are still to come.
    current: Option<(TensorSpec, u64)>,
}

impl<W: Write> SafetensorsWriter<W> {
    /// Writes the header.
    pub fn new(layout: Layout, mut out: W) -> Result<Self, Error> {
        out.write_all(&layout.header)?;
        Ok(Self { out, tensors: layout.tensors.into_iter(), current: None })
    }

    /// Writes bytes of the tensor `name`: all of them, or the next piece of them.
    ///
    /// Tensors come in the order of [`Layout::tensors`], each with exactly the bytes of its shape, little-endian.
    pub fn write(&mut self, name: &str, data: &[u8]) -> Result<(), Error> {
        if self.current.as_ref().is_none_or(|(tensor, _)| tensor.name != name) {
            self.advance_to(name)?;
        }
        let Some((_, left)) = &mut self.current else {
            return Err(out_of_order(name, "no further tensor", name));
        };
        let length = data.len() as u64;
        if length > *left {
            return Err(out_of_order(name, &format!("at most {left} more bytes"), &format!("{length}")));
        }
        self.out.write_all(data)?;
        *left -= length;
        Ok(())
    }

    /// Checks that every tensor is complete and gives the destination back. Flushing and syncing are the caller's.
    pub fn finish(mut self) -> Result<W, Error> {
        self.complete("the end of the file")?;
        // Empty tensors have nothing to write and need no call.
        for tensor in self.tensors {
            let bytes = tensor.bytes()?;
            if bytes > 0 {
                return Err(out_of_order(&tensor.name, &format!("its {bytes} bytes"), "the end of the file"));
            }
        }
        Ok(self.out)
    }

    /// Moves to the tensor `name`, which must be the next one that is not empty.
    fn advance_to(&mut self, name: &str) -> Result<(), Error> {
        self.complete(&format!("tensor `{name}`"))?;
        loop {
            let Some(tensor) = self.tensors.next() else {
                return Err(out_of_order(name, "no further tensor", name));
            };
            let bytes = tensor.bytes()?;
            if tensor.name == name {
                self.current = Some((tensor, bytes));
                return Ok(());
            }
            if bytes > 0 {
                return Err(out_of_order(name, &format!("tensor `{}` before it", tensor.name), name));
            }
        }
    }

    /// Checks that the tensor being written has all its bytes before `next` begins.
    fn complete(&mut self, next: &str) -> Result<(), Error> {
        match self.current.take() {
            Some((tensor, left)) if left > 0 => {
                Err(out_of_order(&tensor.name, &format!("{left} more bytes before the next tensor"), next))
            }
            _ => Ok(()),
        }
    }
}

fn out_of_order(tensor: &str, expected: &str, found: &str) -> Error {
    Error::WriteOrder { tensor: tensor.to_owned(), expected: expected.to_owned(), found: found.to_owned() }
}
