//! Each operation against its definition, computed here in f64 without MLX.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use mlxctl_backend::{Activation, Attention, Backend, Batch, BlockId, Error, KvLayer, KvLayout, LinearWeight, Rope};
use mlxctl_backend_mlx::{Device, Mlx, Options, Precision};
use mlxctl_weights::{Dtype, Mode, Quantization, Tensor};

fn open() -> Mlx {
    Mlx::open(Options { device: Some(Device::Cpu), precision: Some(Precision::Float32) })
        .expect("MLX has a CPU in every build")
}

/// Numbers in -1..1 that differ from one `seed` to another (a linear congruential generator, Knuth's constants).
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

fn floats(shape: &[usize], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor { dtype: Dtype::F32, shape: shape.to_vec(), data: Bytes::from(data) }
}

/// Rows of numbers: the keys or the values of a sequence.
type Rows = Vec<Vec<f32>>;

#[track_caller]
fn assert_close(found: &[f32], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        // A few hundred f32 products of numbers near 1.
        assert!((*found as f64 - expected).abs() < 2e-5, "at {index}: found {found}, expected {expected}");
    }
}

#[test]
fn a_linear_layer_multiplies_by_the_transposed_weight_and_adds_its_bias() {
    let mlx = open();
    let (x, weight, bias) = (numbers(1, 3 * 8), numbers(2, 5 * 8), numbers(3, 5));
    let mounted = mlx.mount_linear(LinearWeight::Dense(floats(&[5, 8], &weight)), Some(floats(&[5], &bias))).unwrap();
    let product = mlx.linear(&mlx.from_host(&x, 8).unwrap(), &mounted).unwrap();
    let mut expected = Vec::new();
    for row in x.chunks(8) {
        for (weights, bias) in weight.chunks(8).zip(&bias) {
            let sum: f64 = row.iter().zip(weights).map(|(a, b)| *a as f64 * *b as f64).sum();
            expected.push(sum + *bias as f64);
        }
    }
    assert_close(&mlx.to_host(&product).unwrap(), &expected);
    let rows = mlx.embed(&mounted, &[4, 0, 4]).unwrap();
    let expected: Vec<f64> = [4, 0, 4].iter().flat_map(|row| &weight[row * 8..][..8]).map(|x| *x as f64).collect();
    assert_close(&mlx.to_host(&rows).unwrap(), &expected);
}

/// 4 and 8 bits are read lowest bits first; weight = code · scale + bias of its group.
#[test]
fn packed_codes_mean_the_weights_that_they_were_made_from() {
    let mlx = open();
    for bits in [4, 8] {
        let (rows, columns, group) = (3, 128, 64);
        let codes: Vec<u32> =
            numbers(4, rows * columns).iter().map(|x| (x.abs() * 255.0) as u32 % (1 << bits)).collect();
        let per_word = 32 / bits as usize;
        let words: Vec<u8> = codes
            .chunks(per_word)
            .map(|codes| {
                codes.iter().rev().fold(0u32, |word, code| if bits == 32 { *code } else { word << bits | code })
            })
            .flat_map(u32::to_le_bytes)
            .collect();
        let (scales, biases) = (numbers(5, rows * 2), numbers(6, rows * 2));
        let scales: Vec<f32> = scales.iter().map(|scale| scale / (1 << bits) as f32).collect();
        let weight = LinearWeight::Quantized {
            weight: Tensor { dtype: Dtype::U32, shape: vec![rows, columns / per_word], data: words.into() },
            scales: floats(&[rows, 2], &scales),
            biases: Some(floats(&[rows, 2], &biases)),
            quantization: Quantization::new(Mode::Affine, bits, group as u32).unwrap(),
        };
        let mounted = mlx.mount_linear(weight, None).unwrap();
        let weights: Vec<f64> = codes
            .iter()
            .enumerate()
            .map(|(index, code)| *code as f64 * scales[index / group] as f64 + biases[index / group] as f64)
            .collect();
        let embedded = mlx.embed(&mounted, &[2, 1]).unwrap();
        let expected = [&weights[2 * columns..], &weights[columns..2 * columns]].concat();
        assert_close(&mlx.to_host(&embedded).unwrap(), &expected);
        let x = numbers(7, 2 * columns);
        let product = mlx.linear(&mlx.from_host(&x, columns).unwrap(), &mounted).unwrap();
        let expected: Vec<f64> = x
            .chunks(columns)
            .flat_map(|x| {
                weights.chunks(columns).map(|row| x.iter().zip(row).map(|(x, weight)| *x as f64 * weight).sum::<f64>())
            })
            .collect();
        assert_close(&mlx.to_host(&product).unwrap(), &expected);
    }
}

#[test]
fn a_norm_shorter_than_the_row_normalises_each_head() {
    let mlx = open();
    let (x, weight) = (numbers(8, 2 * 12), numbers(9, 4));
    let norm = mlx.mount_vector(&floats(&[4], &weight), 1.0).unwrap();
    let normed = mlx.rms_norm(&mlx.from_host(&x, 12).unwrap(), &norm, 1e-3).unwrap();
    let mut expected = Vec::new();
    for head in x.chunks(4) {
        let mean: f64 = head.iter().map(|x| (*x as f64).powi(2)).sum::<f64>() / 4.0;
        let root = (mean + 1e-3).sqrt();
        expected.extend(head.iter().zip(&weight).map(|(x, weight)| *x as f64 / root * (*weight as f64 + 1.0)));
    }
    assert_close(&mlx.to_host(&normed).unwrap(), &expected);
}

/// Rotates `head` at `position` as Su et al., arXiv:2104.09864, section 3.4.2 defines it.
fn rotated(head: &[f32], position: usize, rope: &Rope) -> Vec<f64> {
    let pairs = rope.inverse_frequencies.len();
    let mut result: Vec<f64> = head.iter().map(|x| *x as f64).collect();
    for (index, frequency) in rope.inverse_frequencies.iter().enumerate() {
        let (first, second) = if rope.interleaved { (2 * index, 2 * index + 1) } else { (index, index + pairs) };
        let (a, b) = (head[first] as f64, head[second] as f64);
        let (sin, cos) = (position as f64 * *frequency as f64).sin_cos();
        result[first] = (a * cos - b * sin) * rope.magnitude as f64;
        result[second] = (a * sin + b * cos) * rope.magnitude as f64;
    }
    result
}

#[test]
fn every_row_is_rotated_by_its_own_position() {
    let mlx = open();
    let mut batch = Batch::default();
    batch.push(&[1, 2, 3], 5, &[BlockId(0)], true);
    batch.push(&[4], 40, &[BlockId(1)], true);
    let x = numbers(10, 4 * 2 * 8);
    for interleaved in [false, true] {
        for (frequencies, magnitude) in [(vec![1.0, 0.3, 0.02, 0.001], 1.0), (vec![0.5, 0.25], 1.25)] {
            let rope = Rope { head_dim: 8, inverse_frequencies: frequencies, interleaved, magnitude };
            let result = mlx.rope(&mlx.from_host(&x, 16).unwrap(), &rope, &batch).unwrap();
            let expected: Vec<f64> = x
                .chunks(16)
                .zip([5, 6, 7, 40])
                .flat_map(|(row, position)| {
                    row.chunks(8).flat_map(|head| rotated(head, position, &rope)).collect::<Vec<_>>()
                })
                .collect();
            assert_close(&mlx.to_host(&result).unwrap(), &expected);
        }
    }
}

/// Softmax attention of one query over the keys it sees.
fn attended(query: &[f32], keys: &[&[f32]], values: &[&[f32]], attention: &Attention) -> Vec<f64> {
    let first = attention.window.map_or(0, |window| keys.len().saturating_sub(window));
    let scores = keys[first..].iter().map(|key| {
        let score: f64 =
            query.iter().zip(*key).map(|(q, k)| *q as f64 * *k as f64).sum::<f64>() * attention.scale as f64;
        attention.soft_cap.map_or(score, |cap| cap as f64 * (score / cap as f64).tanh()).exp()
    });
    let scores: Vec<f64> = scores.collect();
    let total: f64 = scores.iter().sum();
    (0..values[0].len())
        .map(|feature| {
            let parts = scores.iter().zip(&values[first..]).map(|(score, value)| score / total * value[feature] as f64);
            parts.sum()
        })
        .collect()
}

/// Two sequences over three steps, prefill in chunks and single tokens mixed; one of them in scattered blocks.
#[test]
fn a_ragged_batch_attends_to_what_the_pool_holds_of_each_sequence() {
    const HEADS: usize = 4;
    const KV_HEADS: usize = 2;
    const DIM: usize = 8;
    const VALUE_DIM: usize = 4;
    let mlx = open();
    for (window, soft_cap) in [(None, None), (Some(3), None), (None, Some(0.5)), (Some(3), Some(0.5))] {
        let layer = KvLayer { heads: KV_HEADS, key_dim: DIM, value_dim: VALUE_DIM };
        let layout = KvLayout { layers: vec![layer, layer], block_size: 2 };
        let mut pool = mlx.kv_pool(&layout, 12).unwrap();
        let attention = Attention { layer: 1, heads: HEADS, scale: 0.6, window, soft_cap };
        let blocks = [[7, 3, 9, 0, 11].map(BlockId), [4, 5, 6, 1, 2].map(BlockId)];
        let mut stored: [(Rows, Rows); 2] = Default::default();
        let mut expected = Vec::new();
        let mut found = Vec::new();
        for (step, lengths) in [[4, 1], [1, 5], [3, 1]].into_iter().enumerate() {
            let mut batch = Batch::default();
            for (sequence, &length) in lengths.iter().enumerate() {
                batch.push(&vec![0; length], stored[sequence].0.len(), &blocks[sequence], step != 1);
            }
            let rows = lengths.iter().sum::<usize>();
            let seed = 100 + 10 * step as u64;
            let (q, k, v) = (
                numbers(seed, rows * HEADS * DIM),
                numbers(seed + 1, rows * KV_HEADS * DIM),
                numbers(seed + 2, rows * KV_HEADS * VALUE_DIM),
            );
            for span in &batch.spans {
                let (keys, values) = &mut stored[usize::from(span.start > 0)];
                for row in span.start..span.start + span.length {
                    keys.push(k[row * KV_HEADS * DIM..][..KV_HEADS * DIM].to_vec());
                    values.push(v[row * KV_HEADS * VALUE_DIM..][..KV_HEADS * VALUE_DIM].to_vec());
                    for head in 0..HEADS {
                        let kv_head = head / (HEADS / KV_HEADS);
                        let query = &q[(row * HEADS + head) * DIM..][..DIM];
                        let keys: Vec<_> = keys.iter().map(|key| &key[kv_head * DIM..][..DIM]).collect();
                        let values: Vec<_> =
                            values.iter().map(|value| &value[kv_head * VALUE_DIM..][..VALUE_DIM]).collect();
                        expected.extend(attended(query, &keys, &values, &attention));
                    }
                }
            }
            let on_device = |data: &[f32], width| mlx.from_host(data, width).unwrap();
            let output = mlx.attention(
                &on_device(&q, HEADS * DIM),
                &on_device(&k, KV_HEADS * DIM),
                &on_device(&v, KV_HEADS * VALUE_DIM),
                &batch,
                &mut pool,
                &attention,
            );
            found.extend(mlx.to_host(&output.unwrap()).unwrap());
        }
        assert_close(&found, &expected);
    }
}

#[test]
fn gated_activations_follow_their_formulas() {
    let mlx = open();
    let (gate, up) = (numbers(20, 16).iter().map(|x| x * 4.0).collect::<Vec<_>>(), numbers(21, 16));
    // Φ by its definition, the integral of the normal density, in steps small enough for six digits.
    let normal = |x: f64| {
        let steps = 20_000;
        let width = (x + 10.0) / steps as f64;
        let density = |t: f64| (-t * t / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
        (0..steps).map(|step| density(-10.0 + (step as f64 + 0.5) * width) * width).sum::<f64>()
    };
    let tanh = |x: f64| 0.5 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh());
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let formulas: [(Activation, &dyn Fn(f64) -> f64); 3] =
        [(Activation::Silu, &sigmoid), (Activation::Gelu, &normal), (Activation::GeluTanh, &tanh)];
    for (activation, factor) in formulas {
        let [x, y] = [&gate, &up].map(|data| mlx.from_host(data, 4).unwrap());
        let found = mlx.to_host(&mlx.gate(&x, &y, activation).unwrap()).unwrap();
        let expected: Vec<f64> = gate.iter().zip(&up).map(|(x, y)| *x as f64 * factor(*x as f64) * *y as f64).collect();
        assert_close(&found, &expected);
    }
}

#[test]
fn rows_sums_and_factors() {
    let mlx = open();
    let x = mlx.from_host(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2).unwrap();
    assert_eq!(mlx.to_host(&mlx.rows(&x, &[2, 0]).unwrap()).unwrap(), [5.0, 6.0, 1.0, 2.0]);
    assert_eq!(mlx.to_host(&mlx.rows(&x, &[]).unwrap()).unwrap(), [0.0; 0]);
    assert_eq!(mlx.to_host(&mlx.add(&x, &x).unwrap()).unwrap(), [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]);
    assert_eq!(mlx.to_host(&mlx.scale(&x, -0.5).unwrap()).unwrap(), [-0.5, -1.0, -1.5, -2.0, -2.5, -3.0]);
}

/// MLX checks no index and its C interface ends the process on an error: neither may reach a caller.
#[test]
fn what_mlx_would_not_survive_is_an_error() {
    let mlx = open();
    let table = mlx.mount_linear(LinearWeight::Dense(floats(&[5, 8], &numbers(2, 40))), None).unwrap();
    let x = mlx.from_host(&numbers(1, 14), 7).unwrap();
    assert!(matches!(mlx.linear(&x, &table), Err(Error::Device { operation: "a linear layer", .. })));
    assert!(matches!(mlx.embed(&table, &[0, 5]), Err(Error::Unsupported { found, .. }) if found == "5"));
    assert!(mlx.rows(&x, &[2]).is_err());
    assert!(mlx.from_host(&[1.0; 5], 2).is_err());

    let layer = KvLayer { heads: 1, key_dim: 7, value_dim: 7 };
    let mut pool = mlx.kv_pool(&KvLayout { layers: vec![layer], block_size: 2 }, 3).unwrap();
    let attention = Attention { layer: 0, heads: 1, scale: 1.0, window: None, soft_cap: None };
    for (position, block, layer) in [(1, 0, 0), (0, 3, 0), (usize::MAX, 0, 0), (0, 0, 1)] {
        let mut batch = Batch::default();
        batch.push(&[0, 0], position, &[BlockId(block)], true);
        let attention = Attention { layer, ..attention.clone() };
        let refused = mlx.attention(&x, &x, &x, &batch, &mut pool, &attention);
        assert!(matches!(refused, Err(Error::Unsupported { .. })), "position {position}, block {block}, layer {layer}");
    }
    assert!(mlx.kv_pool(&KvLayout { layers: vec![layer], block_size: 2 }, usize::MAX).is_err());
    // Far more than any machine has: MLX's own refusal comes back.
    let wide = KvLayer { heads: 1 << 14, key_dim: 1 << 14, value_dim: 1 << 14 };
    let huge = mlx.kv_pool(&KvLayout { layers: vec![wide], block_size: 1 << 10 }, 1 << 20);
    assert!(matches!(huge, Err(Error::OutOfMemory { .. })));
    let sum = mlx.add(&x, &x).unwrap();
    assert_eq!(mlx.to_host(&sum).unwrap().len(), 14, "the device still works");
}

#[test]
fn weights_of_other_shapes_and_types_are_refused() {
    let mlx = open();
    let words = Tensor { dtype: Dtype::U32, shape: vec![2, 16], data: vec![0; 128].into() };
    let quantized = |columns: usize, bits| LinearWeight::Quantized {
        weight: words.clone(),
        scales: floats(&[2, columns / 64], &vec![0.0; 2 * columns / 64]),
        biases: Some(floats(&[2, columns / 64], &vec![0.0; 2 * columns / 64])),
        quantization: Quantization::new(Mode::Affine, bits, 64).unwrap(),
    };
    assert!(mlx.mount_linear(quantized(128, 4), None).is_ok());
    assert!(mlx.mount_linear(quantized(64, 8), None).is_ok());
    assert!(mlx.mount_linear(quantized(128, 8), None).is_err());
    assert!(mlx.mount_linear(LinearWeight::Dense(words.clone()), None).is_err());
    assert!(mlx.mount_vector(&floats(&[2, 2], &[0.0; 4]), 0.0).is_err());
    let short_bias = Some(floats(&[1], &[0.0]));
    assert!(mlx.mount_linear(LinearWeight::Dense(floats(&[2, 2], &[0.0; 4])), short_bias).is_err());
}
