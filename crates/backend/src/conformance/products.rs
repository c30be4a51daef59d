//! Linear layers and embeddings over every format of weights, and what is composed of them.

use mlxctl_weights::{Affine, Dtype, MatrixView, Mode, Quantization, Tensor, quantize_affine};

use super::{Promises, assert_close, assert_same_bits, misaligned, numbers, tensor, values, widen};
use crate::conformance::elementwise::activate;
use crate::{Activation, Backend, Expert, LinearWeight, Routes};

/// A weight and its exact values, `[out, columns]`.
struct Weight {
    what: String,
    stored: LinearWeight,
    exact: Vec<f64>,
    out: usize,
    columns: usize,
}

pub(super) fn check<B: Backend>(backend: &B, promises: Promises) {
    let mut seed = 100;
    for (out, columns) in [(7, 19), (33, 64)] {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            seed += 1;
            check_weight(backend, promises, &dense(dtype, out, columns, seed));
        }
    }
    for bits in [2, 3, 4, 5, 6, 8] {
        for (group_size, dtype) in [(32, Dtype::F16), (64, Dtype::BF16), (128, Dtype::F32)] {
            seed += 1;
            check_weight(backend, promises, &affine(bits, group_size, dtype, 13, 256, seed));
        }
    }
    composed(backend, promises);
    experts(backend, promises);
}

/// Three experts over five rows: one takes none, one row goes to none, one row to two.
fn experts<B: Backend>(backend: &B, promises: Promises) {
    let (rows, hidden, inner) = (5, 24, 40);
    let taken: [&[(usize, f32)]; 3] = [&[(0, 0.25), (2, 1.5)], &[], &[(1, 0.5), (2, -0.75), (4, 1.0)]];
    let weights: Vec<[Weight; 3]> = (0..3)
        .map(|index| {
            [(inner, hidden, 0), (inner, hidden, 1), (hidden, inner, 2)]
                .map(|(out, columns, part)| dense(Dtype::F32, out, columns, 700 + 3 * index + part))
        })
        .collect();
    let mounted: Vec<_> = weights
        .iter()
        .map(|weights| {
            let [gate, up, down] =
                [0, 1, 2].map(|part: usize| backend.mount_linear(weights[part].stored.clone(), None).unwrap());
            Expert { gate, up, down }
        })
        .collect();
    let x = numbers(720, rows * hidden);
    let mut expected = vec![0.0; rows * hidden];
    for (weights, taken) in weights.iter().zip(taken) {
        for &(row, share) in taken {
            let product = |x: &[f64], weight: &Weight| -> Vec<f64> {
                weight.exact.chunks(weight.columns).map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum()).collect()
            };
            let own = widen(&x[row * hidden..][..hidden]);
            let gates = product(&own, &weights[0]).into_iter().map(|gate| activate(Activation::Silu, gate));
            let inner: Vec<f64> = gates.zip(product(&own, &weights[1])).map(|(gate, up)| gate * up).collect();
            for (sum, answer) in expected[row * hidden..].iter_mut().zip(product(&inner, &weights[2])) {
                *sum += f64::from(share) * answer;
            }
        }
    }
    let run = |x: &[f32], by_expert: Vec<Vec<(usize, f32)>>| {
        let routes = Routes { rows: x.len() / hidden, features: hidden, by_expert };
        let x = backend.from_host(x, hidden).unwrap();
        backend.to_host(&backend.experts(&x, &mounted, &routes, Activation::Silu).unwrap()).unwrap()
    };
    let found = run(&x, taken.map(<[_]>::to_vec).to_vec());
    assert_close("experts", &found, &expected, promises);
    assert!(found[3 * hidden..4 * hidden].iter().all(|value| *value == 0.0), "a row without an expert is 0");
    if promises.batch_invariant {
        let alone = run(&x[2 * hidden..3 * hidden], vec![vec![(0, 1.5)], vec![], vec![(0, -0.75)]]);
        assert_same_bits("experts", &alone, &found[2 * hidden..3 * hidden]);
    }
}

fn dense(dtype: Dtype, out: usize, columns: usize, seed: u64) -> Weight {
    let weight = tensor(dtype, &[out, columns], &numbers(seed, out * columns));
    let exact = values(&weight);
    Weight { what: format!("{dtype} [{out}, {columns}]"), stored: LinearWeight::Dense(weight), exact, out, columns }
}

fn affine(bits: u32, group_size: u32, dtype: Dtype, out: usize, columns: usize, seed: u64) -> Weight {
    let plain = tensor(dtype, &[out, columns], &numbers(seed, out * columns));
    let view = MatrixView { rows: out, columns, dtype, data: &plain.data };
    let made = quantize_affine(view, Affine::new(bits, group_size).unwrap(), 1).unwrap();
    let quantization = Quantization::new(Mode::Affine, bits, group_size).unwrap();
    let groups = columns / group_size as usize;
    let words = quantization.packed_columns(columns).unwrap();
    let codes = made.weight.clone();
    let part = |dtype, width, data| Tensor { dtype, shape: vec![out, width], data: misaligned(data) };
    let weight = part(Dtype::U32, words, made.weight);
    let (scales, biases) = (part(dtype, groups, made.scales), part(dtype, groups, made.biases));
    let (scale_values, bias_values) = (values(&scales), values(&biases));
    let exact = (0..out * columns)
        .map(|index| {
            // Codes lie one behind the other from the lowest bit up, and rows are whole bytes.
            let first = index * bits as usize;
            let code: u32 = (0..bits as usize)
                .map(|bit| u32::from(codes[(first + bit) / 8] >> ((first + bit) % 8) & 1) << bit)
                .sum();
            let group = index / group_size as usize;
            f64::from(code) * scale_values[group] + bias_values[group]
        })
        .collect();
    Weight {
        what: format!("{bits} bits in groups of {group_size} with {dtype} scales"),
        stored: LinearWeight::Quantized { weight, scales, biases: Some(biases), quantization },
        exact,
        out,
        columns,
    }
}

fn product(x: &[f64], weight: &[f64], columns: usize) -> Vec<f64> {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum();
    x.chunks(columns).flat_map(|x| weight.chunks(columns).map(move |weight| dot(x, weight))).collect()
}

fn check_weight<B: Backend>(backend: &B, promises: Promises, weight: &Weight) {
    let Weight { what, exact, out, columns, .. } = weight;
    let (out, columns) = (*out, *columns);
    let bias = tensor(Dtype::BF16, &[out], &numbers(7, out));
    let plain = backend.mount_linear(weight.stored.clone(), None).unwrap();
    let biased = backend.mount_linear(weight.stored.clone(), Some(bias.clone())).unwrap();
    for rows in [1, 2, 3, 4, 5, 9, 33] {
        let x = numbers(rows as u64, rows * columns);
        let input = backend.from_host(&x, columns).unwrap();
        let expected = product(&widen(&x), exact, columns);
        let found = backend.to_host(&backend.linear(&input, &plain).unwrap()).unwrap();
        assert_close(&format!("linear, {what}, {rows} rows"), &found, &expected, promises);
        let bias = values(&bias);
        let expected: Vec<f64> =
            expected.chunks(out).flat_map(|row| row.iter().zip(&bias).map(|(a, b)| a + b)).collect();
        let with_bias = backend.to_host(&backend.linear(&input, &biased).unwrap()).unwrap();
        assert_close(&format!("linear with bias, {what}, {rows} rows"), &with_bias, &expected, promises);
        if promises.batch_invariant {
            for row in 0..rows {
                let alone = backend.from_host(&x[row * columns..][..columns], columns).unwrap();
                let alone = backend.to_host(&backend.linear(&alone, &plain).unwrap()).unwrap();
                assert_same_bits(&format!("linear, {what}, row {row} of {rows}"), &alone, &found[row * out..][..out]);
            }
        }
    }
    let none = backend.linear(&backend.from_host(&[], columns).unwrap(), &plain).unwrap();
    assert!(backend.to_host(&none).unwrap().is_empty(), "linear, {what}: no rows give no rows");

    let tokens = [out as u32 - 1, 0, 3, 3];
    let expected: Vec<f64> =
        tokens.iter().flat_map(|token| &exact[*token as usize * columns..][..columns]).copied().collect();
    let found = backend.to_host(&backend.embed(&plain, &tokens).unwrap()).unwrap();
    assert_close(&format!("embed, {what}"), &found, &expected, promises);
}

/// The fused operations against the small ones.
fn composed<B: Backend>(backend: &B, promises: Promises) {
    let (features, inner) = (64, 96);
    let (gate, up) = (dense(Dtype::BF16, inner, features, 21), affine(4, 32, Dtype::BF16, inner, features, 22));
    let down = affine(8, 32, Dtype::F16, features, inner, 23);
    let mount = |weight: &Weight| backend.mount_linear(weight.stored.clone(), None).unwrap();
    let x = numbers(24, 3 * features);
    let input = backend.from_host(&x, features).unwrap();
    let gates = product(&widen(&x), &gate.exact, features);
    let ups = product(&widen(&x), &up.exact, features);
    let hidden: Vec<f64> = gates.iter().zip(&ups).map(|(g, u)| activate(Activation::Silu, *g) * u).collect();
    let expected = product(&hidden, &down.exact, inner);
    let (gate, up, down) = (mount(&gate), mount(&up), mount(&down));
    let found = backend.gated_mlp(&input, &gate, &up, &down, Activation::Silu).unwrap();
    assert_close("gated_mlp", &backend.to_host(&found).unwrap(), &expected, promises);
    let (q, k, v) = backend.qkv(&input, &gate, &up, &gate).unwrap();
    assert_close("qkv, q", &backend.to_host(&q).unwrap(), &gates, promises);
    assert_close("qkv, k", &backend.to_host(&k).unwrap(), &ups, promises);
    assert_close("qkv, v", &backend.to_host(&v).unwrap(), &gates, promises);
}
