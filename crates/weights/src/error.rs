//! What can be wrong with weights. Every function of the crate answers with [`Error`].

use std::fmt;

use crate::Dtype;

/// A stretch of a file: `file, tensor name, bytes begin..end` counted from the start of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The name the caller gave the file.
    pub file: String,
    /// The tensor concerned, if it is about one.
    pub tensor: Option<String>,
    /// First byte and the byte after the last, from the start of the file.
    pub bytes: (u64, u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(tensor) = &self.tensor {
            write!(f, ": tensor `{}`", Excerpt(tensor))?;
        }
        write!(f, " (bytes {}..{})", self.bytes.0, self.bytes.1)
    }
}

/// Foreign text cut to a length that a terminal can show, without what a terminal would obey.
pub(crate) struct Excerpt<'a>(pub(crate) &'a str);

impl fmt::Display for Excerpt<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 120;
        for character in self.0.chars().take(SHOWN) {
            if matches!(character, '"' | '\'' | '\\') {
                write!(f, "{character}")?;
            } else {
                write!(f, "{}", character.escape_debug())?;
            }
        }
        if self.0.chars().nth(SHOWN).is_some() { f.write_str("…") } else { Ok(()) }
    }
}

/// Everything that can be wrong with a file of weights, its configuration, or a request to convert it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file ends before its header does.
    #[error("{place}: {what} needs {needed} bytes, the file has {found}; it is truncated or not safetensors")]
    Truncated {
        /// Where the missing bytes would lie.
        place: Place,
        /// What was being read.
        what: &'static str,
        /// Bytes the file would have to have at least.
        needed: u64,
        /// Bytes it has.
        found: u64,
    },
    /// The header claims more bytes than any real file needs.
    #[error("{place}: the header claims {claimed} bytes, at most {limit} are accepted; this is not safetensors")]
    HeaderTooLarge {
        /// The length field.
        place: Place,
        /// The claim.
        claimed: u64,
        /// The limit, [`crate::MAX_HEADER_BYTES`].
        limit: u64,
    },
    /// The header is not what the format prescribes.
    #[error("{place}: {reason}")]
    Header {
        /// The bytes concerned.
        place: Place,
        /// What was expected and found.
        reason: String,
    },
    /// One name for two tensors of a file.
    #[error("{place}: the header names this tensor twice")]
    DuplicateTensor {
        /// The second mention.
        place: Place,
    },
    /// One name for tensors of two files.
    #[error("tensor `{tensor}` is in both {first} and {second}; each tensor belongs to one file")]
    DuplicateAcrossFiles {
        /// The tensor.
        tensor: String,
        /// The file that was read first.
        first: String,
        /// The file that repeats it.
        second: String,
    },
    /// A tensor's length is not that of its shape.
    #[error("{place}: {dtype} of shape {shape:?} takes {expected} bytes, the header gives it {found}")]
    WrongLength {
        /// The tensor's bytes.
        place: Place,
        /// Its element type.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
        /// Bytes of that shape.
        expected: u64,
        /// Bytes between its offsets.
        found: u64,
    },
    /// A tensor ends behind the file.
    #[error("{place}: the tensor ends behind the file, which has {file_bytes} bytes; the file is truncated or damaged")]
    OutOfFile {
        /// The tensor's bytes.
        place: Place,
        /// Bytes of the file.
        file_bytes: u64,
    },
    /// Two tensors share bytes.
    #[error("{place}: the tensor overlaps `{}` (bytes {}..{})", Excerpt(other), other_bytes.0, other_bytes.1)]
    Overlap {
        /// The later tensor.
        place: Place,
        /// The tensor it overlaps.
        other: String,
        /// The bytes of the other.
        other_bytes: (u64, u64),
    },
    /// Bytes that belong to no tensor.
    #[error("{place}: these bytes belong to no tensor; a safetensors file has no holes")]
    Hole {
        /// The bytes.
        place: Place,
    },
    /// A tensor the model needs is absent.
    #[error("tensor `{name}` is in none of the {files} weight files ({})", near_names(near))]
    MissingTensor {
        /// The tensor.
        name: String,
        /// How many files were searched.
        files: usize,
        /// Names that are present and resemble it.
        near: Vec<String>,
    },
    /// A tensor has another shape than the configuration promises.
    #[error("{place}: expected shape {expected:?}, found {found:?}; the weights do not fit config.json")]
    WrongShape {
        /// The tensor.
        place: Place,
        /// What the configuration asks for.
        expected: Vec<usize>,
        /// What the file holds.
        found: Vec<usize>,
    },
    /// A tensor has an element type that cannot serve here.
    #[error("{place}: expected {expected}, found {found}")]
    WrongDtype {
        /// The tensor.
        place: Place,
        /// The types that would serve.
        expected: &'static str,
        /// What the file holds.
        found: Dtype,
    },
    /// config.json describes a quantisation that cannot be.
    #[error("config.json: {key}: {reason}")]
    Config {
        /// Path of the field, as in `quantization.lm_head.bits`.
        key: String,
        /// What was expected and found.
        reason: String,
    },
    /// config.json and the files disagree on how a module is quantised.
    #[error("module `{module}`: {reason}")]
    ModuleMismatch {
        /// The module's path.
        module: String,
        /// What was expected and found.
        reason: String,
    },
    /// Bits, group size or mode that do not exist together.
    #[error("no quantisation of mode {mode} with {bits} bits and groups of {group_size}; possible: {possible}")]
    UnknownFormat {
        /// The mode's name.
        mode: &'static str,
        /// Bits a weight.
        bits: u32,
        /// Weights a scale.
        group_size: u32,
        /// What exists.
        possible: &'static str,
    },
    /// A matrix that cannot be quantised or cast as asked.
    #[error("{what}: expected {expected}, found {found}")]
    Unfit {
        /// What was given.
        what: &'static str,
        /// What would serve.
        expected: String,
        /// What it was.
        found: String,
    },
    /// A call to the writer that would break the file's layout.
    #[error("writing tensor `{tensor}`: expected {expected}, found {found}")]
    WriteOrder {
        /// The tensor handed in (or missing).
        tensor: String,
        /// What the layout has next.
        expected: String,
        /// What came.
        found: String,
    },
    /// The destination refused bytes.
    #[error("writing weights failed")]
    Io(#[from] std::io::Error),
}

fn near_names(near: &[String]) -> String {
    if near.is_empty() {
        "no name resembles it".to_owned()
    } else {
        let names: Vec<String> = near.iter().map(|name| format!("`{}`", Excerpt(name))).collect();
        format!("near: {}", names.join(", "))
    }
}
