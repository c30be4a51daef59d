//! Mounted weights: borrowed bytes with their shape, checked once so that the kernels need not ask again.

use bytes::Bytes;
use mlxctl_backend::{Error, LinearWeight, Result};
use mlxctl_weights::{Dtype, Mode, Tensor};

use crate::kernels::widen::widen;

/// A linear layer's or an embedding's weight, mounted.
#[derive(Debug)]
pub struct Linear {
    pub(crate) matrix: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

/// A vector of parameters: small, so it is kept as f32.
#[derive(Debug)]
pub struct Vector {
    pub(crate) values: Vec<f32>,
}

/// `[rows, columns]` in the bytes of a file.
#[derive(Debug)]
pub(crate) struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) storage: Storage,
}

#[derive(Debug)]
pub(crate) enum Storage {
    /// F32, F16 or BF16; `rows · columns` elements.
    Dense { data: Bytes, dtype: Dtype },
    /// MLX's affine format.
    Affine(Affine),
}

#[derive(Debug)]
pub(crate) struct Affine {
    /// `rows · columns · bits / 8` bytes.
    pub(crate) codes: Bytes,
    /// `rows · columns / group_size` elements of `dtype`.
    pub(crate) scales: Bytes,
    /// As `scales`.
    pub(crate) biases: Bytes,
    pub(crate) dtype: Dtype,
    /// 2, 3, 4, 5, 6 or 8.
    pub(crate) bits: usize,
    /// Divides `columns`.
    pub(crate) group_size: usize,
}

impl Linear {
    pub(crate) fn mount(weight: LinearWeight, bias: Option<&Tensor>) -> Result<Self> {
        let matrix = match weight {
            LinearWeight::Dense(tensor) => dense(tensor)?,
            LinearWeight::Quantized { weight, scales, biases, quantization } => {
                let (bits, group_size) = (quantization.bits() as usize, quantization.group_size() as usize);
                let Some(biases) = biases.filter(|_| quantization.mode() == Mode::Affine) else {
                    return Err(unsupported(
                        "weights in mode affine, with scales and biases",
                        format!("weights in mode {}", quantization.mode().name()),
                    ));
                };
                affine(weight, scales, biases, bits, group_size)?
            }
        };
        let bias = bias.map(|bias| vector(bias, 0.0)).transpose()?;
        if let Some(bias) = bias.as_ref().filter(|bias| bias.len() != matrix.rows) {
            return Err(unsupported(
                format!("a bias of {} elements", matrix.rows),
                format!("one of {} elements", bias.len()),
            ));
        }
        Ok(Self { matrix, bias })
    }
}

impl Vector {
    pub(crate) fn mount(tensor: &Tensor, offset: f32) -> Result<Self> {
        Ok(Self { values: vector(tensor, offset)? })
    }
}

fn dense(tensor: Tensor) -> Result<Matrix> {
    let Some([rows, columns]) = matrix_shape(&tensor).filter(|_| tensor.dtype.is_weight_float()) else {
        return Err(unsupported("a matrix of F32, F16 or BF16", describe(&tensor)));
    };
    Ok(Matrix { rows, columns, storage: Storage::Dense { data: tensor.data, dtype: tensor.dtype } })
}

fn affine(weight: Tensor, scales: Tensor, biases: Tensor, bits: usize, group_size: usize) -> Result<Matrix> {
    let Some([rows, words]) = matrix_shape(&weight).filter(|_| weight.dtype == Dtype::U32) else {
        return Err(unsupported("a matrix of packed U32 words", describe(&weight)));
    };
    let columns = words.checked_mul(32).map_or(0, |bits_of_row| bits_of_row / bits);
    let groups = columns / group_size;
    let is_whole = groups * group_size == columns && columns * bits == words * 32;
    for tensor in [&scales, &biases] {
        let fits = matrix_shape(tensor) == Some([rows, groups]) && tensor.dtype.is_weight_float();
        if !(fits && is_whole && tensor.dtype == scales.dtype) {
            return Err(unsupported(
                format!(
                    "scales and biases [{rows}, {groups}] of one float type for {bits} bits in groups of {group_size}"
                ),
                format!("{} with weights {}", describe(tensor), describe(&weight)),
            ));
        }
    }
    let (codes, dtype) = (weight.data, scales.dtype);
    let affine = Affine { codes, scales: scales.data, biases: biases.data, dtype, bits, group_size };
    Ok(Matrix { rows, columns, storage: Storage::Affine(affine) })
}

fn vector(tensor: &Tensor, offset: f32) -> Result<Vec<f32>> {
    if tensor.shape.len() != 1 || !tensor.dtype.is_weight_float() || !is_whole(tensor) {
        return Err(unsupported("a vector of F32, F16 or BF16", describe(tensor)));
    }
    let mut values = vec![0.0; tensor.elements()];
    widen(tensor.dtype, &tensor.data, &mut values);
    if offset != 0.0 {
        for value in &mut values {
            *value += offset;
        }
    }
    Ok(values)
}

/// The shape of a matrix whose bytes are all there.
fn matrix_shape(tensor: &Tensor) -> Option<[usize; 2]> {
    <[usize; 2]>::try_from(&tensor.shape[..]).ok().filter(|_| is_whole(tensor))
}

fn is_whole(tensor: &Tensor) -> bool {
    tensor.dtype.bytes_of(&tensor.shape) == Some(tensor.data.len())
}

fn describe(tensor: &Tensor) -> String {
    format!("{} {:?} in {} bytes", tensor.dtype, tensor.shape, tensor.data.len())
}

fn unsupported(expected: impl Into<String>, found: impl Into<String>) -> Error {
    Error::Unsupported { operation: "mounting a weight", expected: expected.into(), found: found.into() }
}
