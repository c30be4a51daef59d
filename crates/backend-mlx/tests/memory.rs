//! What a step needs of memory. Alone in its process, because MLX counts for the whole of it.

#![allow(clippy::unwrap_used)]

use mlx_rs::memory::{active_memory, peak_memory, reset_peak_memory};
use mlxctl_backend::{Attention, Backend, Batch, BlockId, KvLayer, KvLayout};
use mlxctl_backend_mlx::{Device, Mlx, Options, Precision};

/// MLX's arrays do not change: a write makes a new one, which takes over the old one's memory only where nobody else
/// holds it. Otherwise each token would copy the pool of every layer.
#[test]
fn storing_a_token_does_not_copy_the_pool() {
    let mlx = Mlx::open(Options { device: Some(Device::Cpu), precision: Some(Precision::Float32) }).unwrap();
    let layer = KvLayer { heads: 4, key_dim: 64, value_dim: 64 };
    let layout = KvLayout { layers: vec![layer; 2], block_size: 16 };
    let blocks = 1024;
    let mut pool = mlx.kv_pool(&layout, blocks).unwrap();
    let pool_bytes = blocks * layout.block_size * layout.features() * 4;
    assert!(active_memory().unwrap() >= pool_bytes, "the pool is there from the start");

    reset_peak_memory().unwrap();
    for position in 0..40 {
        let mut batch = Batch::default();
        batch.push(&[0], position, &[BlockId(7), BlockId(1000), BlockId(3)], true);
        let row = mlx.from_host(&[0.5; 256], 256).unwrap();
        let mut x = row.clone();
        for layer in 0..2 {
            let attention = Attention { layer, heads: 4, scale: 0.125, window: None, soft_cap: None };
            x = mlx.attention(&x, &row, &row, &batch, &mut pool, &attention).unwrap();
        }
        mlx.to_host(&x).unwrap();
    }
    let beyond = peak_memory().unwrap() - pool_bytes;
    // A sequence of 40 tokens gathered, in two layers, is far less than this; a copy of one layer's keys is more.
    assert!(beyond < pool_bytes / 8, "{beyond} bytes beyond the pool of {pool_bytes}");
}
