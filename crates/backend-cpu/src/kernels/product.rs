//! `x · weightᵀ`: the product that a linear layer is. A task computes some outputs for all rows, by the kernel that
//! suits the instruction set and the shape; kernels with fused arithmetic agree to the bit.

use std::ops::Range;

use super::widened::multiply_widened;
use crate::InstructionSet;
use crate::scatter::Scatter;
use crate::weight::Matrix;

/// The part of a product that one task computes.
pub(crate) struct Product<'a> {
    /// `[rows, columns]`, in the order in which rows of the matrix are widened.
    pub(crate) x: &'a [f32],
    pub(crate) matrix: &'a Matrix,
    /// Added to the outputs, `[matrix.rows]`.
    pub(crate) bias: Option<&'a [f32]>,
    /// The outputs of this task; no other task of the operation has any of them.
    pub(crate) outputs: Range<usize>,
    /// `[rows, matrix.rows]`.
    pub(crate) out: &'a Scatter<'a>,
}

impl Product<'_> {
    /// Rows of activations.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.x.len().checked_div(self.matrix.columns).unwrap_or(0)
    }

    /// Keeps the sum of a row and an output of this task.
    #[inline(always)]
    pub(crate) fn store(&self, row: usize, output: usize, sum: f32) {
        // SAFETY: `output` belongs to this task alone, so this place does.
        #[allow(unsafe_code)]
        let place = unsafe { self.out.part(row * self.matrix.rows + output, 1) };
        place[0] = match self.bias {
            Some(bias) => sum + bias[output],
            None => sum,
        };
    }
}

/// Computes a task's outputs for every row.
#[allow(unsafe_code)]
pub(crate) fn multiply(instruction_set: InstructionSet, product: &Product<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        use super::lanes::{avx2::Avx2, avx512::Avx512};
        use super::tiles;

        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(product: &Product<'_>) {
            // SAFETY: these are the instructions of `Avx2`.
            unsafe { tiles::multiply::<Avx2>(product) }
        }
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512(product: &Product<'_>) {
            // SAFETY: these are the instructions of `Avx512`.
            unsafe { tiles::multiply::<Avx512>(product) }
        }
        if tiles::suits(product.matrix) {
            match instruction_set {
                // SAFETY: a backend takes this value only from a processor that has these instructions.
                InstructionSet::Avx2 => return unsafe { avx2(product) },
                // SAFETY: as above.
                InstructionSet::Avx512 => return unsafe { avx512(product) },
                InstructionSet::Baseline => {}
            }
        }
    }
    multiply_widened(instruction_set, product);
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;
    use mlxctl_weights::Dtype;
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::widen::{order_activations, units};
    use crate::weight::{Affine, Storage};

    /// A matrix of any stored format, its bytes at an odd address; scales and biases are small and finite.
    fn matrix() -> impl Strategy<Value = Matrix> {
        let formats = prop_oneof![
            (Just(0), Just(1), prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::BF16)]),
            (
                prop_oneof![4 => Just(4_usize), 4 => Just(8), 1 => Just(2), 1 => Just(3), 1 => Just(5), 1 => Just(6)],
                prop_oneof![Just(32_usize), Just(64), Just(128)],
                prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::BF16)]
            ),
        ];
        (formats, 1_usize..23, 1_usize..20, any::<u64>()).prop_map(|((bits, group_size, dtype), rows, runs, seed)| {
            let columns = if bits == 0 { runs * 16 } else { runs * group_size };
            let mut state = seed | 1;
            let mut next = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state
            };
            let mut floats = |count: usize| {
                let plain: Vec<u8> =
                    (0..count).flat_map(|_| ((next() >> 40) as f32 / 8388608.0 - 1.0).to_le_bytes()).collect();
                let mut bytes = vec![0];
                bytes.extend(mlxctl_weights::cast(Dtype::F32, dtype, &plain).unwrap());
                Bytes::from(bytes).slice(1..)
            };
            let storage = if bits == 0 {
                Storage::Dense { data: floats(rows * columns), dtype }
            } else {
                let groups = rows * columns / group_size;
                let (scales, biases) = (floats(groups), floats(groups));
                let codes: Vec<u8> = (0..=rows * columns * bits / 8).map(|_| (next() >> 32) as u8).collect();
                Storage::Affine(Affine {
                    codes: Bytes::from(codes).slice(1..),
                    scales,
                    biases,
                    dtype,
                    bits,
                    group_size,
                })
            };
            Matrix { rows, columns, storage }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn every_kernel_gives_the_bits_of_its_scalar_twin(matrix in matrix(), rows in 1_usize..30) {
            let x: Vec<f32> = (0..rows * matrix.columns).map(|i| (i as f32 * 0.7).sin()).collect();
            let x = if units(&matrix) { let mut out = vec![0.0; x.len()]; order_activations(&x, &mut out); out } else { x };
            let bias: Vec<f32> = (0..matrix.rows).map(|i| i as f32).collect();
            let run = |kernel: fn(InstructionSet, &Product<'_>), instruction_set| {
                let mut out = vec![f32::NAN; rows * matrix.rows];
                let scatter = Scatter::new(&mut out);
                let bias = Some(&bias[..]);
                // Two tasks, so that a part that begins in the middle is among them.
                for outputs in [0..matrix.rows / 3, matrix.rows / 3..matrix.rows] {
                    kernel(instruction_set, &Product { x: &x, matrix: &matrix, bias, outputs, out: &scatter });
                }
                out.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>()
            };
            for instruction_set in [InstructionSet::Avx2, InstructionSet::Avx512] {
                if instruction_set.is_available() {
                    // The twin is plain Rust; only its arithmetic, fused, is the instruction set's.
                    let twin = run(multiply_widened, InstructionSet::Avx2);
                    prop_assert_eq!(run(multiply, instruction_set), twin, "{:?}", instruction_set);
                }
            }
        }
    }
}
