//! Transfers, sums, gates, norms and row selection.

use mlxctl_weights::Dtype;

use super::{Promises, assert_close, assert_same_bits, numbers, tensor, values, widen};
use crate::{Activation, Backend};

pub(super) fn check<B: Backend>(backend: &B, promises: Promises) {
    let (rows, features) = (5, 48);
    let (a, b) = (numbers(1, rows * features), numbers(2, rows * features));
    let x = backend.from_host(&a, features).unwrap();
    let y = backend.from_host(&b, features).unwrap();
    assert_same_bits("a round trip", &backend.to_host(&x).unwrap(), &a);
    assert!(backend.to_host(&backend.from_host(&[], features).unwrap()).unwrap().is_empty(), "no rows stay no rows");

    let sum: Vec<f64> = a.iter().zip(&b).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
    assert_close("add", &backend.to_host(&backend.add(&x, &y).unwrap()).unwrap(), &sum, promises);
    let scaled: Vec<f64> = a.iter().map(|a| f64::from(*a) * -2.5).collect();
    assert_close("scale", &backend.to_host(&backend.scale(&x, -2.5).unwrap()).unwrap(), &scaled, promises);
    let picked: Vec<f32> = [4, 0, 4].iter().flat_map(|row| &a[row * features..][..features]).copied().collect();
    assert_same_bits("rows", &backend.to_host(&backend.rows(&x, &[4, 0, 4]).unwrap()).unwrap(), &picked);

    let wide: Vec<f32> = a.iter().map(|a| a * 4.0).collect();
    let gates = backend.from_host(&wide, features).unwrap();
    for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
        let expected: Vec<f64> =
            wide.iter().zip(&b).map(|(gate, up)| activate(activation, f64::from(*gate)) * f64::from(*up)).collect();
        let found = backend.to_host(&backend.gate(&gates, &y, activation).unwrap()).unwrap();
        assert_close(&format!("gate with {activation:?}"), &found, &expected, promises);
    }
    for activation in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
        let expected: Vec<f64> = wide.iter().map(|x| activate(activation, f64::from(*x))).collect();
        let found = backend.to_host(&backend.activate(&gates, activation).unwrap()).unwrap();
        assert_close(&format!("activate with {activation:?}"), &found, &expected, promises);
    }
    let capped: Vec<f64> = wide.iter().map(|x| 1.5 * (f64::from(*x) / 1.5).tanh()).collect();
    assert_close("soft_cap", &backend.to_host(&backend.soft_cap(&gates, 1.5).unwrap()).unwrap(), &capped, promises);
    layer_norms(backend, promises, &wide, (rows, features));

    let extreme = [-1e4_f32, -100.0, 100.0, 1e4];
    let gates = backend.from_host(&extreme, 4).unwrap();
    let ones = backend.from_host(&[1.0; 4], 4).unwrap();
    let found = backend.to_host(&backend.gate(&gates, &ones, Activation::Silu).unwrap()).unwrap();
    assert_close("gate of extremes", &found, &[0.0, 0.0, 100.0, 1e4], promises);

    norms(backend, promises, &a, &b, (rows, features));
}

fn layer_norms<B: Backend>(backend: &B, promises: Promises, a: &[f32], (rows, features): (usize, usize)) {
    // Rows whose mean is far from 0.
    let a: Vec<f32> = a.iter().map(|a| a + 3.0).collect();
    let x = backend.from_host(&a, features).unwrap();
    let (weight, bias) = (
        tensor(Dtype::F32, &[features], &numbers(4, features)),
        tensor(Dtype::BF16, &[features], &numbers(5, features)),
    );
    let [mounted_weight, mounted_bias] = [&weight, &bias].map(|vector| backend.mount_vector(vector, 0.0).unwrap());
    for mounted_bias in [None, Some(&mounted_bias)] {
        let epsilon = 1e-2_f32;
        let expected: Vec<f64> = widen(&a)
            .chunks(features)
            .flat_map(|row| {
                let mean = row.iter().sum::<f64>() / row.len() as f64;
                let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
                let factor = 1.0 / (variance + f64::from(epsilon)).sqrt();
                let parameters = values(&weight).into_iter().zip(values(&bias));
                row.iter()
                    .zip(parameters)
                    .map(|(x, (weight, bias))| {
                        (x - mean) * factor * weight + if mounted_bias.is_some() { bias } else { 0.0 }
                    })
                    .collect::<Vec<_>>()
            })
            .collect();
        let found = backend.to_host(&backend.layer_norm(&x, &mounted_weight, mounted_bias, epsilon).unwrap()).unwrap();
        assert_close("layer_norm", &found, &expected, promises);
        if promises.batch_invariant {
            for row in 0..rows {
                let alone = backend.from_host(&a[row * features..][..features], features).unwrap();
                let alone = backend.layer_norm(&alone, &mounted_weight, mounted_bias, epsilon).unwrap();
                let found = &found[row * features..][..features];
                assert_same_bits("layer_norm", &backend.to_host(&alone).unwrap(), found);
            }
        }
    }
}

fn norms<B: Backend>(backend: &B, promises: Promises, a: &[f32], b: &[f32], (rows, features): (usize, usize)) {
    let x = backend.from_host(a, features).unwrap();
    let y = backend.from_host(b, features).unwrap();
    for (length, dtype, offset) in [(features, Dtype::F32, 0.0), (16, Dtype::BF16, 0.0), (24, Dtype::F16, 1.0)] {
        let weight = tensor(dtype, &[length], &numbers(3, length));
        let mounted = backend.mount_vector(&weight, offset).unwrap();
        let weight: Vec<f64> = values(&weight).iter().map(|weight| weight + f64::from(offset)).collect();
        let epsilon = 1e-2_f32;
        let what = format!("rms_norm over runs of {length}");
        let found = backend.to_host(&backend.rms_norm(&x, &mounted, epsilon).unwrap()).unwrap();
        assert_close(&what, &found, &norm(&widen(a), &weight, epsilon), promises);
        if promises.batch_invariant {
            for row in 0..rows {
                let alone = backend.from_host(&a[row * features..][..features], features).unwrap();
                let alone = backend.to_host(&backend.rms_norm(&alone, &mounted, epsilon).unwrap()).unwrap();
                assert_same_bits(&what, &alone, &found[row * features..][..features]);
            }
        }
        let (sum, normed) = backend.add_rms_norm(&x, &y, &mounted, epsilon).unwrap();
        let exact: Vec<f64> = a.iter().zip(b).map(|(a, b)| f64::from(*a) + f64::from(*b)).collect();
        assert_close("add_rms_norm, the sum", &backend.to_host(&sum).unwrap(), &exact, promises);
        let exact = norm(&exact, &weight, epsilon);
        assert_close("add_rms_norm, the norm", &backend.to_host(&normed).unwrap(), &exact, promises);
    }
}

fn norm(x: &[f64], weight: &[f64], epsilon: f32) -> Vec<f64> {
    x.chunks(weight.len())
        .flat_map(|run| {
            let mean = run.iter().map(|x| x * x).sum::<f64>() / run.len() as f64;
            let factor = 1.0 / (mean + f64::from(epsilon)).sqrt();
            run.iter().zip(weight).map(move |(x, weight)| x * factor * weight).collect::<Vec<_>>()
        })
        .collect()
}

pub(super) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2)),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
        }
    }
}

/// The error function by its Maclaurin series: good to 1e-9 for the arguments below 3 that occur here.
fn erf(x: f64) -> f64 {
    let mut power = x;
    let mut sum = x;
    for n in 1..80 {
        power *= -x * x / f64::from(n);
        sum += power / f64::from(2 * n + 1);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}
