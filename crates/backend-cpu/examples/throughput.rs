//! How fast the products are: `cargo run --release -p mlxctl-backend-cpu --example throughput [THREADS]`.
//!
//! For one row the figure that counts is bytes of weights a second, beside a plain read of the same bytes in the same
//! run; for many rows it is arithmetic.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Instant;

use mlxctl_backend::{Backend, LinearWeight};
use mlxctl_backend_cpu::{CpuBackend, InstructionSet};
use mlxctl_weights::{Affine, Dtype, MatrixView, Mode, Quantization, Tensor, quantize_affine};

const OUT: usize = 16 << 10;
const COLUMNS: usize = 2048;

fn main() {
    let threads = std::env::args().nth(1).and_then(|threads| threads.parse().ok());
    let threads = threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let values: Vec<u8> = (0..OUT * COLUMNS).flat_map(|i| ((i as f32 * 0.37).sin() * 0.05).to_le_bytes()).collect();
    let plain = Tensor { dtype: Dtype::F32, shape: vec![OUT, COLUMNS], data: values.into() };
    let bf16 = mlxctl_weights::cast_tensor(&plain, Dtype::BF16).expect("F32 casts to BF16");
    println!("{threads} threads, weights [{OUT}, {COLUMNS}]");
    read(&plain.data, threads);
    for instruction_set in [InstructionSet::Baseline, InstructionSet::Avx2, InstructionSet::Avx512] {
        let backend = CpuBackend::new(threads).with_instruction_set(instruction_set);
        println!("{instruction_set:?} ({})", backend.fingerprint());
        measure(&backend, "f32", LinearWeight::Dense(plain.clone()), plain.data.len());
        measure(&backend, "bf16", LinearWeight::Dense(bf16.clone()), bf16.data.len());
        for bits in [4, 8, 6] {
            let (weight, bytes) = quantized(&bf16, bits);
            measure(&backend, &format!("{bits} bits"), weight, bytes);
        }
    }
}

fn quantized(plain: &Tensor, bits: u32) -> (LinearWeight, usize) {
    let view = MatrixView { rows: OUT, columns: COLUMNS, dtype: plain.dtype, data: &plain.data };
    let affine = Affine::new(bits, 64).expect("a format of MLX");
    let made = quantize_affine(view, affine, 2).expect("whole groups");
    let bytes = made.weight.len() + made.scales.len() + made.biases.len();
    let part = |dtype, columns, data: Vec<u8>| Tensor { dtype, shape: vec![OUT, columns], data: data.into() };
    let weight = LinearWeight::Quantized {
        weight: part(Dtype::U32, COLUMNS * bits as usize / 32, made.weight),
        scales: part(plain.dtype, COLUMNS / 64, made.scales),
        biases: Some(part(plain.dtype, COLUMNS / 64, made.biases)),
        quantization: Quantization::new(Mode::Affine, bits, 64).expect("a format of MLX"),
    };
    (weight, bytes)
}

fn measure(backend: &CpuBackend, name: &str, weight: LinearWeight, bytes: usize) {
    let weight = backend.mount_linear(weight, None).expect("a weight of the right shape");
    for rows in [1, 4, 64] {
        let x = backend.from_host(&vec![0.5; rows * COLUMNS], COLUMNS).expect("whole rows");
        let seconds = fastest(|| {
            black_box(backend.linear(&x, &weight).expect("a product"));
        });
        let gflops = (2 * rows * OUT * COLUMNS) as f64 / seconds / 1e9;
        println!("  {name:7} {rows:3} rows: {:6.1} GB/s {gflops:6.1} GFLOP/s", bytes as f64 / seconds / 1e9);
    }
}

fn read(data: &[u8], threads: NonZeroUsize) {
    let seconds = fastest(|| {
        std::thread::scope(|scope| {
            for part in data.chunks(data.len().div_ceil(threads.get())) {
                scope.spawn(move || {
                    let words = part.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word));
                    black_box(words.fold(0_u64, u64::wrapping_add));
                });
            }
        });
    });
    println!("  a plain read:     {:6.1} GB/s", data.len() as f64 / seconds / 1e9);
}

/// Seconds of the fastest of some runs.
fn fastest(mut run: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..15 {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
