//! Weights on the device: linear layers, embeddings and vectors of parameters.

use mlx_rs::ops::{dequantize, quantized_matmul};
use mlx_rs::{Array, with_stream};
use mlxctl_backend::{Error, LinearWeight, Result};
use mlxctl_weights::{Mode, Quantization, Tensor};

use crate::device::{Device, Mlx, device_error, integers};
use crate::lend;

const MOUNT: &str = "mounting a weight";

/// A linear layer or an embedding, `[out, in]`.
pub struct Linear {
    weight: Weight,
    /// `[out]`.
    bias: Option<Array>,
    /// Outputs of the layer, or rows of the embedding.
    rows: usize,
    /// The windows that the arrays above are parts of; see [`lend::Lent`].
    _windows: Vec<Array>,
}

enum Weight {
    Dense { weight: Array, transposed: Array },
    Quantized { weight: Array, scales: Array, biases: Array, group_size: i32, bits: i32 },
}

/// A vector of parameters, `[length]`.
pub struct Vector {
    pub(crate) array: Array,
}

impl Linear {
    /// `x · weightᵀ + bias`.
    pub(crate) fn apply(&self, x: &Array) -> mlx_rs::error::Result<Array> {
        let product = match &self.weight {
            Weight::Dense { transposed, .. } => x.matmul(transposed)?,
            Weight::Quantized { weight, scales, biases, group_size, bits } => {
                quantized_matmul(x, weight, scales, biases, true, *group_size, *bits)?
            }
        };
        match &self.bias {
            Some(bias) => product.add(bias),
            None => Ok(product),
        }
    }

    /// These rows of the matrix, `[tokens, in]`.
    pub(crate) fn rows(&self, mlx: &Mlx, tokens: &[u32]) -> Result<Array> {
        const EMBED: &str = "an embedding";
        // MLX does not check indices: one beyond the table would read whatever lies there.
        if let Some(&beyond) = tokens.iter().find(|&&token| token as usize >= self.rows) {
            return Err(Error::Unsupported {
                operation: EMBED,
                expected: format!("tokens below {}", self.rows),
                found: beyond.to_string(),
            });
        }
        let indices = integers(EMBED, tokens.iter().map(|&token| token as usize))?;
        mlx.run(EMBED, || match &self.weight {
            Weight::Dense { weight, .. } => weight.take_axis(&indices, 0),
            Weight::Quantized { weight, scales, biases, group_size, bits } => {
                let biases = biases.take_axis(&indices, 0)?;
                let scales = scales.take_axis(&indices, 0)?;
                dequantize(weight.take_axis(&indices, 0)?, scales, &biases, *group_size, *bits)
            }
        })
    }
}

impl Mlx {
    /// Mounts `[out, in]`, packed or not, with an optional bias `[out]`.
    pub(crate) fn linear_of(&self, weight: &LinearWeight, bias: Option<&Tensor>) -> Result<Linear> {
        let mut windows = Vec::new();
        let (weight, rows) = match weight {
            LinearWeight::Dense(tensor) => {
                let [rows, _] = matrix(tensor)?;
                let weight = self.floats(tensor, &mut windows)?;
                let transposed = self.run(MOUNT, || weight.transpose())?;
                (Weight::Dense { weight, transposed }, rows)
            }
            LinearWeight::Quantized { weight, scales, biases, quantization } => {
                self.quantized(weight, scales, biases.as_ref(), *quantization, &mut windows)?
            }
        };
        let bias =
            bias.map(
                |bias| {
                    if bias.shape == [rows] { self.floats(bias, &mut windows) } else { Err(mismatch(&[rows], bias)) }
                },
            );
        Ok(Linear { weight, bias: bias.transpose()?, rows, _windows: windows })
    }

    fn quantized(
        &self,
        weight: &Tensor,
        scales: &Tensor,
        biases: Option<&Tensor>,
        quantization: Quantization,
        windows: &mut Vec<Array>,
    ) -> Result<(Weight, usize)> {
        let (Mode::Affine, Some(biases)) = (quantization.mode(), biases) else {
            return Err(Error::Unsupported {
                operation: MOUNT,
                expected: "affine codes with scales and biases".to_owned(),
                found: format!("{} codes", quantization.mode().name()),
            });
        };
        let [rows, groups] = matrix(scales)?;
        let columns = groups.checked_mul(quantization.group_size() as usize);
        let packed = columns.and_then(|columns| quantization.packed_columns(columns)).unwrap_or(usize::MAX);
        if weight.dtype != mlxctl_weights::Dtype::U32 || weight.shape != [rows, packed] {
            return Err(mismatch(&[rows, packed], weight));
        }
        if biases.shape != scales.shape {
            return Err(mismatch(&scales.shape, biases));
        }
        let quantized = Weight::Quantized {
            weight: self.codes(weight, windows)?,
            scales: self.floats(scales, windows)?,
            biases: self.floats(biases, windows)?,
            group_size: quantization.group_size() as i32,
            bits: quantization.bits() as i32,
        };
        Ok((quantized, rows))
    }

    /// Mounts a vector of parameters, `offset` added to each in f32.
    pub(crate) fn vector_of(&self, tensor: &Tensor, offset: f32) -> Result<Vector> {
        if tensor.shape.len() != 1 {
            return Err(Error::Unsupported {
                operation: MOUNT,
                expected: "a vector".to_owned(),
                found: format!("a tensor of shape {:?}", tensor.shape),
            });
        }
        check_float(tensor)?;
        let array = lend::copied(tensor)?;
        let array = self.run(MOUNT, || {
            let array = array.as_dtype(mlx_rs::Dtype::Float32)?;
            let array = if offset == 0.0 { array } else { array.add(Array::from_f32(offset))? };
            let array = array.as_dtype(self.precision.dtype())?;
            array.eval()?;
            Ok(array)
        })?;
        Ok(Vector { array })
    }

    /// Floats in the precision of the device: lent where they have it already, else converted now.
    fn floats(&self, tensor: &Tensor, windows: &mut Vec<Array>) -> Result<Array> {
        check_float(tensor)?;
        let dtype = self.precision.dtype();
        if lend::dtype(tensor)? == dtype {
            return self.codes(tensor, windows);
        }
        let array = lend::copied(tensor)?;
        self.run(MOUNT, || {
            let array = array.as_dtype(dtype)?;
            // Otherwise the copy in the file's type would stay for as long as nothing asks for this weight.
            array.eval()?;
            Ok(array)
        })
    }

    /// The elements as they are in the file.
    fn codes(&self, tensor: &Tensor, windows: &mut Vec<Array>) -> Result<Array> {
        // Only Metal can use memory that is not its own.
        if self.device == Device::Gpu && cfg!(target_os = "macos") {
            let lent = with_stream(&self.stream, || lend::in_place(tensor))?;
            lent.array.eval().map_err(device_error(MOUNT))?;
            windows.extend(lent.window);
            Ok(lent.array)
        } else {
            lend::copied(tensor)
        }
    }
}

fn matrix(tensor: &Tensor) -> Result<[usize; 2]> {
    <[usize; 2]>::try_from(tensor.shape.as_slice()).map_err(|_| Error::Unsupported {
        operation: MOUNT,
        expected: "a matrix".to_owned(),
        found: format!("a tensor of shape {:?}", tensor.shape),
    })
}

fn check_float(tensor: &Tensor) -> Result<()> {
    if tensor.dtype.is_weight_float() {
        return Ok(());
    }
    Err(Error::Unsupported {
        operation: MOUNT,
        expected: "F32, F16 or BF16".to_owned(),
        found: tensor.dtype.to_string(),
    })
}

fn mismatch(expected: &[usize], found: &Tensor) -> Error {
    Error::Unsupported {
        operation: MOUNT,
        expected: format!("a tensor of shape {expected:?}"),
        found: format!("{:?} of {}", found.shape, found.dtype),
    }
}
