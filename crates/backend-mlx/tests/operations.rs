//! The operations: right by the checks that every device must pass, and safe where MLX alone is not.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use mlxctl_backend::conformance::{self, Promises};
use mlxctl_backend::{Attention, Backend, Batch, BlockId, Error, KvLayer, KvLayout, LinearWeight};
use mlxctl_backend_mlx::{Device, Mlx, Options, Precision};
use mlxctl_weights::{Dtype, Mode, Quantization, Tensor};

fn open() -> Mlx {
    Mlx::open(Options { device: Some(Device::Cpu), precision: Some(Precision::Float32) }).unwrap()
}

fn floats(shape: &[usize]) -> Tensor {
    let bytes = shape.iter().product::<usize>() * 4;
    Tensor { dtype: Dtype::F32, shape: shape.to_vec(), data: Bytes::from(vec![0; bytes]) }
}

/// Sums of a few hundred f32 products, whose order MLX chooses by their shape.
#[test]
fn every_operation_computes_what_it_is_defined_as() {
    conformance::check(&open(), Promises { tolerance: 2e-6, batch_invariant: false });
}

/// MLX checks no index and its C interface ends the process on an error: neither may reach a caller.
#[test]
fn what_mlx_would_not_survive_is_an_error() {
    let mlx = open();
    let table = mlx.mount_linear(LinearWeight::Dense(floats(&[5, 8])), None).unwrap();
    let x = mlx.from_host(&[1.0; 14], 7).unwrap();
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
        scales: floats(&[2, columns / 64]),
        biases: Some(floats(&[2, columns / 64])),
        quantization: Quantization::new(Mode::Affine, bits, 64).unwrap(),
    };
    assert!(mlx.mount_linear(quantized(128, 4), None).is_ok());
    assert!(mlx.mount_linear(quantized(64, 8), None).is_ok());
    assert!(mlx.mount_linear(quantized(128, 8), None).is_err());
    assert!(mlx.mount_linear(LinearWeight::Dense(words.clone()), None).is_err());
    assert!(mlx.mount_vector(&floats(&[2, 2]), 0.0).is_err());
    let short_bias = Some(floats(&[1]));
    assert!(mlx.mount_linear(LinearWeight::Dense(floats(&[2, 2])), short_bias).is_err());
}
