//! Reading one safetensors file: header checks, then tensors that borrow the file's bytes.
//!
//! The runtime calls this on mapped blobs of strangers, so every size is checked before it is used and every error
//! names the file, the tensor and the bytes. The `safetensors` crate reads the same format, but keeps the last of two
//! equal names and its errors name neither place nor file; the checks here are therefore our own, and its reader is
//! the peer that the tests compare with.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::Excerpt;
use crate::{Dtype, Error, Place};

/// Longest header accepted, in bytes: the limit of the reference implementation.
pub const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Most dimensions of a tensor; MLX and numpy know no more than these.
pub const MAX_RANK: usize = 32;

/// Most entries of a header, so that memory stays a small multiple of it; the largest models have a tenth of these.
pub const MAX_TENSORS: usize = 1 << 20;

const LENGTH_BYTES: u64 = 8;

/// A tensor whose elements lie, little-endian and row-major, in a shared stretch of a file.
///
/// `data.len()` is the size of `shape` in `dtype`. Its address may be misaligned for `dtype`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Type of the elements.
    pub dtype: Dtype,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements: a counted reference into the file, never a copy.
    pub data: Bytes,
}

impl Tensor {
    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// Whether the data starts at a multiple of its type's alignment.
    pub fn is_aligned(&self) -> bool {
        (self.data.as_ptr() as usize).is_multiple_of(self.dtype.alignment())
    }

    /// The tensor as rows of its last dimension, `[rows, columns]`; a vector is one row, a scalar one element.
    pub fn rows_and_columns(&self) -> (usize, usize) {
        match self.shape.split_last() {
            None => (1, 1),
            Some((&columns, outer)) => (outer.iter().product(), columns),
        }
    }
}

/// One checked file.
#[derive(Debug, Clone)]
pub struct SafeTensors {
    /// The name the caller gave the file.
    pub file: String,
    /// The header's `__metadata__`; empty where it has none.
    pub metadata: BTreeMap<String, String>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, Tensor>,
    /// Bytes before the first tensor.
    pub header_bytes: u64,
}

/// Checks the file called `name` (for messages) and gives its tensors, all of them borrowing `file`.
///
/// Refuses a header beyond the file or [`MAX_HEADER_BYTES`], malformed JSON, repeated names, unknown types, lengths
/// that are not shape × type, offsets beyond the file, overlaps and holes. Misaligned data is legal. Memory use is
/// proportional to the header that is really there, never to what it claims.
/// Format: <https://huggingface.co/docs/safetensors>.
pub fn read_safetensors(file: &Bytes, name: &str) -> Result<SafeTensors, Error> {
    let file_bytes = file.len() as u64;
    let place = |tensor: Option<&str>, begin: u64, end: u64| Place {
        file: name.to_owned(),
        tensor: tensor.map(str::to_owned),
        bytes: (begin, end),
    };
    let Some(length_field) = file.first_chunk::<8>() else {
        return Err(Error::Truncated {
            place: place(None, 0, file_bytes),
            what: "the header length",
            needed: LENGTH_BYTES,
            found: file_bytes,
        });
    };
    let claimed = u64::from_le_bytes(*length_field);
    if claimed > MAX_HEADER_BYTES {
        return Err(Error::HeaderTooLarge { place: place(None, 0, LENGTH_BYTES), claimed, limit: MAX_HEADER_BYTES });
    }
    let data_start = LENGTH_BYTES + claimed;
    if data_start > file_bytes {
        return Err(Error::Truncated {
            place: place(None, LENGTH_BYTES, data_start),
            what: "the header",
            needed: data_start,
            found: file_bytes,
        });
    }
    let header = &file[LENGTH_BYTES as usize..data_start as usize];
    let header = std::str::from_utf8(header).map_err(|error| {
        let at = LENGTH_BYTES + error.valid_up_to() as u64;
        Error::Header { place: place(None, at, data_start), reason: "the header is not UTF-8".to_owned() }
    })?;
    if !header.starts_with('{') {
        return Err(Error::Header {
            place: place(None, LENGTH_BYTES, data_start),
            reason: "a safetensors header starts with `{`".to_owned(),
        });
    }
    let parsed: RawHeader<'_> = serde_json::from_str(header).map_err(|error| Error::Header {
        place: place(None, LENGTH_BYTES, data_start),
        reason: format!("the header is not a JSON object of tensors: {}", Excerpt(&error.to_string())),
    })?;

    let mut metadata = BTreeMap::new();
    let mut tensors = BTreeMap::new();
    let mut spans = Vec::with_capacity(parsed.entries.len());
    let mut metadata_seen = false;
    for (tensor, raw) in parsed.entries {
        // The raw text is a slice of the header, so its distance from the header's start is its position.
        let at = LENGTH_BYTES + (raw.get().as_ptr() as u64 - header.as_ptr() as u64);
        let entry = || place(Some(&tensor), at, at + raw.get().len() as u64);
        let bad = |reason: String| Error::Header { place: entry(), reason };
        if tensor == "__metadata__" {
            // MLX writes null where it is given no metadata.
            let strings: Option<Metadata> = serde_json::from_str(raw.get()).map_err(|error| {
                bad(format!("the metadata is not an object of strings: {}", Excerpt(&error.to_string())))
            })?;
            if std::mem::replace(&mut metadata_seen, true) {
                return Err(Error::DuplicateTensor { place: entry() });
            }
            metadata = strings.map_or_else(BTreeMap::new, |strings| strings.0);
            continue;
        }
        let info: Info = serde_json::from_str(raw.get()).map_err(|error| {
            bad(format!("expected {{dtype, shape, data_offsets}}: {}", Excerpt(&error.to_string())))
        })?;
        let dtype = Dtype::from_name(&info.dtype)
            .ok_or_else(|| bad(format!("element type `{}` is not supported", Excerpt(&info.dtype))))?;
        let shape = info
            .shape
            .0
            .iter()
            .map(|&dimension| usize::try_from(dimension).ok())
            .collect::<Option<Vec<usize>>>()
            .ok_or_else(|| bad(format!("shape {:?} is larger than this machine can address", info.shape.0)))?;
        let expected = dtype
            .bytes_of(&shape)
            .ok_or_else(|| bad(format!("{dtype} of shape {shape:?} has more bytes than 64 bits can count")))?;
        let [begin, end] = info.data_offsets;
        let (Some(first), Some(last)) = (data_start.checked_add(begin), data_start.checked_add(end)) else {
            return Err(bad(format!("data_offsets [{begin}, {end}] are beyond any file")));
        };
        if end < begin {
            return Err(bad(format!("data_offsets [{begin}, {end}] end before they begin")));
        }
        let bytes = || place(Some(&tensor), first, last);
        if end - begin != expected as u64 {
            return Err(Error::WrongLength {
                place: bytes(),
                dtype,
                shape,
                expected: expected as u64,
                found: end - begin,
            });
        }
        if last > file_bytes {
            return Err(Error::OutOfFile { place: bytes(), file_bytes });
        }
        let data = file.slice(first as usize..last as usize);
        if tensors.insert(tensor.clone(), Tensor { dtype, shape, data }).is_some() {
            return Err(Error::DuplicateTensor { place: entry() });
        }
        spans.push((first, last, tensor));
    }

    spans.sort_unstable();
    let mut covered = data_start;
    let mut previous: Option<&(u64, u64, String)> = None;
    for span @ (first, last, tensor) in &spans {
        if *first < covered {
            // `covered` exceeds the start of the data only once a tensor has been passed.
            let (other, other_bytes) = previous.map_or((String::new(), (0, 0)), |(b, e, n)| (n.clone(), (*b, *e)));
            return Err(Error::Overlap { place: place(Some(tensor), *first, *last), other, other_bytes });
        }
        if *first > covered {
            return Err(Error::Hole { place: place(None, covered, *first) });
        }
        covered = *last;
        previous = Some(span);
    }
    if covered < file_bytes {
        return Err(Error::Hole { place: place(None, covered, file_bytes) });
    }
    Ok(SafeTensors { file: name.to_owned(), metadata, tensors, header_bytes: data_start })
}

/// The header's entries in file order, unparsed, so that a repeated name stays visible and an error in an entry can
/// name it.
struct RawHeader<'a> {
    entries: Vec<(String, &'a RawValue)>,
}

impl<'de> Deserialize<'de> for RawHeader<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = RawHeader<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry::<String, &'de RawValue>()? {
                    if entries.len() == MAX_TENSORS {
                        return Err(de::Error::custom(format_args!("more than {MAX_TENSORS} entries")));
                    }
                    entries.push(entry);
                }
                Ok(RawHeader { entries })
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// One tensor's entry. Unknown fields are ignored, as the reference implementation does; repeated ones are refused.
#[derive(Deserialize)]
struct Info {
    dtype: String,
    shape: Shape,
    data_offsets: [u64; 2],
}

/// Dimensions, at most [`MAX_RANK`] of them, so that a header of zeros cannot ask for memory.
struct Shape(Vec<u64>);

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dimensions;
        impl<'de> Visitor<'de> for Dimensions {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {MAX_RANK} dimensions")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
                let mut dimensions = Vec::new();
                while dimensions.len() < MAX_RANK {
                    let Some(dimension) = sequence.next_element()? else { return Ok(Shape(dimensions)) };
                    dimensions.push(dimension);
                }
                if sequence.next_element::<IgnoredAny>()?.is_some() {
                    return Err(de::Error::invalid_length(MAX_RANK + 1, &self));
                }
                Ok(Shape(dimensions))
            }
        }
        deserializer.deserialize_seq(Dimensions)
    }
}

/// The `__metadata__` object: strings only, no key twice.
struct Metadata(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Strings;
        impl<'de> Visitor<'de> for Strings {
            type Value = Metadata;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut strings = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, String>()? {
                    if strings.insert(key, value).is_some() {
                        return Err(de::Error::custom("a key is there twice"));
                    }
                }
                Ok(Metadata(strings))
            }
        }
        deserializer.deserialize_map(Strings)
    }
}
