//! Quantised bytes, dequantised bytes and casts equal those of MLX 0.32.2 on a CPU. The vectors are files, written by
//! `golden/generate.py`, so that no test needs MLX.

use bytes::Bytes;
use mlxctl_weights::{
    Affine, Checkpoint, Dtype, MatrixView, Mode, Quantization, QuantizedView, Tensor, cast, cast_tensor, dequantize,
    dequantize_affine, quantize, quantize_affine,
};

const TYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::BF16];

fn golden(name: &str, file: &'static [u8]) -> Checkpoint {
    Checkpoint::from_files(vec![(name.to_owned(), Bytes::from_static(file))]).expect("the golden file is valid")
}

fn weights() -> Checkpoint {
    golden("weights", include_bytes!("golden/weights.safetensors"))
}

fn affine() -> Checkpoint {
    golden("affine", include_bytes!("golden/affine.safetensors"))
}

/// Every width, group size and type, with the key of its golden tensors.
fn every_format() -> impl Iterator<Item = (Dtype, Affine, String)> {
    TYPES.into_iter().flat_map(|dtype| {
        [2, 3, 4, 5, 6, 8].into_iter().flat_map(move |bits| {
            [32, 64, 128].into_iter().map(move |group| {
                (dtype, Affine::new(bits, group).expect("the format exists"), format!("{dtype}.{bits}.{group}"))
            })
        })
    })
}

fn assert_same(what: &str, ours: &[u8], expected: &Tensor) {
    let row = expected.data.len() / expected.shape[0];
    let different: Vec<usize> = (0..expected.shape[0])
        .filter(|r| ours[r * row..(r + 1) * row] != expected.data[r * row..(r + 1) * row])
        .collect();
    assert!(ours.len() == expected.data.len() && different.is_empty(), "{what}: rows {different:?} differ from MLX");
}

#[test]
fn quantised_bytes_equal_those_of_mlx_in_every_width_group_and_type() {
    let (weights, golden) = (weights(), affine());
    for (dtype, format, key) in every_format() {
        let matrix = weights.tensor(dtype.name()).unwrap();
        let (rows, columns) = matrix.rows_and_columns();
        for threads in [1, 2, 5, 1000] {
            let ours =
                quantize_affine(MatrixView { rows, columns, dtype, data: &matrix.data }, format, threads).unwrap();
            for (part, bytes) in [("weight", ours.weight), ("scales", ours.scales), ("biases", ours.biases)] {
                let name = format!("{key}.{part}");
                assert_same(&name, &bytes, golden.tensor(&name).unwrap());
            }
        }
    }
}

#[test]
fn misaligned_weights_quantise_alike() {
    let matrix = weights().tensor("F32").unwrap().clone();
    let (rows, columns) = matrix.rows_and_columns();
    let mut shifted = vec![0; matrix.data.len() + 1];
    shifted[1..].copy_from_slice(&matrix.data);
    let format = Affine::new(4, 64).unwrap();
    let view = |data| MatrixView { rows, columns, dtype: Dtype::F32, data };
    assert_eq!(
        quantize_affine(view(&shifted[1..]), format, 2).unwrap(),
        quantize_affine(view(&matrix.data), format, 2).unwrap()
    );
}

#[test]
fn dequantised_bytes_equal_those_of_mlx() {
    let (weights, golden) = (weights(), affine());
    for (dtype, format, key) in every_format() {
        let (rows, columns) = weights.tensor(dtype.name()).unwrap().rows_and_columns();
        let part = |part: &str| golden.tensor(&format!("{key}.{part}")).unwrap();
        let (weight, scales, biases) = (&part("weight").data, &part("scales").data, &part("biases").data);
        for threads in [1, 3] {
            let plain =
                dequantize_affine(QuantizedView { rows, columns, dtype, weight, scales, biases }, format, threads)
                    .unwrap();
            // Hardware disagrees on the bits of NaN, so the generator left out rows that have one.
            let row_is_finite = |row: usize| {
                [scales, biases].into_iter().all(|parameters| {
                    let bytes = parameters.len() / rows;
                    let wide = cast(dtype, Dtype::F32, &parameters[row * bytes..(row + 1) * bytes]).unwrap();
                    wide.as_chunks::<4>().0.iter().all(|&value| f32::from_le_bytes(value).is_finite())
                })
            };
            let kept: Vec<u8> = plain
                .chunks(columns * dtype.size())
                .enumerate()
                .filter(|(row, _)| row_is_finite(*row))
                .flat_map(|(_, bytes)| bytes)
                .copied()
                .collect();
            assert!(kept.len() > plain.len() / 2);
            assert_eq!(crc32(&kept).to_le_bytes(), part("crc").data[..], "{key}");
        }
    }
}

/// The modes without biases, with the key of their golden tensors.
fn every_microscaling_format() -> impl Iterator<Item = (Dtype, Quantization, String)> {
    TYPES.into_iter().flat_map(|dtype| {
        Quantization::every()
            .filter(|format| format.mode() != Mode::Affine)
            .map(move |format| (dtype, format, format!("{dtype}.{}", format.mode().name())))
    })
}

#[test]
fn microscaled_bytes_equal_those_of_mlx_in_every_mode_and_type() {
    let golden = golden("microscaling", include_bytes!("golden/microscaling.safetensors"));
    for (dtype, format, key) in every_microscaling_format() {
        let matrix = golden.tensor(dtype.name()).unwrap();
        let (rows, columns) = matrix.rows_and_columns();
        let expected = |part: &str| golden.tensor(&format!("{key}.{part}")).unwrap();
        for threads in [1, 3, 1000] {
            let ours = quantize(MatrixView { rows, columns, dtype, data: &matrix.data }, format, threads).unwrap();
            assert_same(&format!("{key}.scales"), &ours.scales, expected("scales"));
            assert_same(&format!("{key}.weight"), &ours.weight, expected("weight"));
            assert!(ours.biases.is_empty());
            let view = QuantizedView { rows, columns, dtype, weight: &ours.weight, scales: &ours.scales, biases: &[] };
            let plain = dequantize(view, format, threads).unwrap();
            let is_sound = |row: &[u8]| {
                let wide = cast(dtype, Dtype::F32, row).unwrap();
                wide.as_chunks::<4>().0.iter().all(|&value| !f32::from_le_bytes(value).is_nan())
            };
            let kept: Vec<u8> =
                plain.chunks(columns * dtype.size()).filter(|row| is_sound(row)).flatten().copied().collect();
            assert!(kept.len() > plain.len() / 2);
            assert_eq!(crc32(&kept).to_le_bytes(), expected("crc").data[..], "{key}");
        }
    }
}

#[test]
fn every_format_is_reached_by_one_way_in() {
    let (weights, golden) = (weights(), affine());
    for (dtype, affine, key) in every_format() {
        let matrix = weights.tensor(dtype.name()).unwrap();
        let (rows, columns) = matrix.rows_and_columns();
        let ours = quantize(MatrixView { rows, columns, dtype, data: &matrix.data }, affine.into(), 2).unwrap();
        assert_same(&key, &ours.weight, golden.tensor(&format!("{key}.weight")).unwrap());
        let (weight, scales, biases) = (&ours.weight, &ours.scales, &ours.biases);
        let view = QuantizedView { rows, columns, dtype, weight, scales, biases };
        assert_eq!(dequantize(view, affine.into(), 2).unwrap(), dequantize_affine(view, affine, 1).unwrap());
    }
    let mxfp4 = Quantization::new(Mode::Mxfp4, 4, 32).unwrap();
    let matrix = MatrixView { rows: 1, columns: 48, dtype: Dtype::F32, data: &[0; 192] };
    assert!(quantize(matrix, mxfp4, 1).unwrap_err().to_string().contains("multiple of 32 columns"));
}

#[test]
fn casts_equal_those_of_mlx() {
    let golden = golden("cast", include_bytes!("golden/cast.safetensors"));
    for from in TYPES {
        let input = golden.tensor(from.name()).unwrap();
        for to in TYPES.into_iter().filter(|&to| to != from) {
            let expected = golden.tensor(&format!("{from}.{to}")).unwrap();
            let ours = cast_tensor(input, to).unwrap();
            assert_eq!((ours.dtype, &ours.shape), (to, &input.shape));
            for (index, (ours, expected)) in
                ours.data.chunks(to.size()).zip(expected.data.chunks(to.size())).enumerate()
            {
                assert_eq!(ours, expected, "{from} to {to}, element {index}");
            }
        }
        assert_eq!(cast_tensor(input, from).unwrap().data.as_ptr(), input.data.as_ptr(), "no copy without a cast");
    }
}

#[test]
fn matrices_that_do_not_fit_are_refused() {
    let format = Affine::new(4, 64).unwrap();
    let message = |rows, columns, dtype, data: &[u8]| {
        quantize_affine(MatrixView { rows, columns, dtype, data }, format, 1).unwrap_err().to_string()
    };
    assert!(message(1, 96, Dtype::F32, &[0; 384]).contains("rows of a multiple of 64 columns, found 1 rows of 96"));
    assert!(message(2, 64, Dtype::F16, &[0; 255]).contains("expected 128 times 2 bytes, found 255 bytes"));
    assert!(message(1, 64, Dtype::I32, &[0; 256]).contains("expected F32, F16 or BF16, found I32"));
    assert!(message(usize::MAX, 1 << 20, Dtype::F32, &[]).contains("found 18446744073709551615 rows"));
    assert!(
        message(1 << 57, 64, Dtype::F32, &[]).contains("expected 9223372036854775808 times 4 bytes, found 0 bytes")
    );
    for (bits, group) in [(0, 64), (7, 64), (4, 16), (4, 256), (16, 64)] {
        assert!(Affine::new(bits, group).unwrap_err().to_string().contains("2, 3, 4, 5, 6 or 8 bits"));
    }
    let empty = quantize_affine(MatrixView { rows: 0, columns: 64, dtype: Dtype::F32, data: &[] }, format, 4).unwrap();
    assert!(empty.weight.is_empty() && empty.scales.is_empty());
}

/// CRC-32 as zlib computes it (polynomial 0xEDB88320, reflected).
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}
