//! How fast the products are: `cargo run --release -p mlxctl-backend-cpu --example throughput [THREADS [OUT COLUMNS
//! [INSTRUCTIONS]]]`; instructions are `Avx512`, `Avx2` or `Baseline`.
//!
//! Each line is one format of weights; its figures are, for 1, 2, 8, 64 and 512 rows of activations, the bytes of
//! weights read a second beside a plain read of as many bytes, and the arithmetic done a second. The plain read and the
//! product take turns in one loop and the fastest of each counts, so that a machine with other work disturbs both. With
//! one thread, Linux counts the time that it computed rather than the time that passed.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::time::Instant;

use mlxctl_backend::{Backend, LinearWeight};
use mlxctl_backend_cpu::{CpuBackend, InstructionSet};
use mlxctl_weights::{Affine, Dtype, MatrixView, Mode, Quantization, Tensor, quantize_affine};

/// Turns of the plain read and the product.
const TURNS: usize = 5;

/// Seconds that a turn lasts at least: the system counts computing time in ticks of some milliseconds.
const TURN: f64 = 0.06;

fn main() {
    let only = std::env::args().nth(4);
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse::<usize>().unwrap_or(0));
    let threads = arguments.next().and_then(NonZeroUsize::new);
    let threads = threads.or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let out = arguments.next().filter(|out| *out > 0).unwrap_or(32 << 10);
    let columns = arguments.next().filter(|columns| columns % 128 == 0 && *columns > 0).unwrap_or(1024);
    let values: Vec<u8> = (0..out * columns).flat_map(|i| ((i as f32 * 0.37).sin() * 0.05).to_le_bytes()).collect();
    let plain = Tensor { dtype: Dtype::F32, shape: vec![out, columns], data: values.into() };
    let bf16 = mlxctl_weights::cast_tensor(&plain, Dtype::BF16).expect("F32 casts to BF16");
    println!("{threads} threads, weights [{out}, {columns}]");
    for instruction_set in [InstructionSet::Avx512, InstructionSet::Avx2, InstructionSet::Baseline] {
        if only.as_ref().is_some_and(|only| *only != format!("{instruction_set:?}")) {
            continue;
        }
        let backend = CpuBackend::new(threads).with_instruction_set(instruction_set);
        println!("{instruction_set:?} ({})", backend.fingerprint());
        for bits in [4, 8] {
            let (weight, bytes) = quantized(&bf16, bits);
            measure(&backend, &format!("{bits} bits"), weight, bytes);
        }
        measure(&backend, "bf16", LinearWeight::Dense(bf16.clone()), bf16.data.len());
    }
}

fn quantized(plain: &Tensor, bits: u32) -> (LinearWeight, usize) {
    let [out, columns] = plain.shape[..] else { unreachable!("a matrix") };
    let view = MatrixView { rows: out, columns, dtype: plain.dtype, data: &plain.data };
    let affine = Affine::new(bits, 64).expect("a format of MLX");
    let made = quantize_affine(view, affine, 2).expect("whole groups");
    let bytes = made.weight.len() + made.scales.len() + made.biases.len();
    let part = |dtype, columns, data: Vec<u8>| Tensor { dtype, shape: vec![out, columns], data: data.into() };
    let weight = LinearWeight::Quantized {
        weight: part(Dtype::U32, columns * bits as usize / 32, made.weight),
        scales: part(plain.dtype, columns / 64, made.scales),
        biases: Some(part(plain.dtype, columns / 64, made.biases)),
        quantization: Quantization::new(Mode::Affine, bits, 64).expect("a format of MLX"),
    };
    (weight, bytes)
}

fn measure(backend: &CpuBackend, name: &str, weight: LinearWeight, bytes: usize) {
    let columns = match &weight {
        LinearWeight::Dense(tensor) => tensor.shape[1],
        LinearWeight::Quantized { weight, quantization, .. } => weight.shape[1] * 32 / quantization.bits() as usize,
    };
    let weight = backend.mount_linear(weight, None).expect("a weight of the right shape");
    let data = vec![1_u64; bytes / 8];
    for rows in [1, 2, 8, 64, 512] {
        let x = backend.from_host(&vec![0.5; rows * columns], columns).expect("whole rows");
        let (mut plain, mut product, mut outputs) = (f64::INFINITY, f64::INFINITY, 0);
        for _ in 0..TURNS {
            plain = plain.min(seconds(backend.threads(), || read(&data, backend.threads())));
            product = product.min(seconds(backend.threads(), || {
                outputs = backend.linear(&x, &weight).expect("a product").features();
            }));
        }
        let gflops = (2 * rows * outputs * columns) as f64 / product / 1e9;
        let (rate, plain_rate) = (bytes as f64 / product / 1e9, bytes as f64 / plain / 1e9);
        println!(
            "  {name:7} {rows:3} rows: {rate:6.2} GB/s, {:.2} of a plain read ({plain_rate:5.1}); {gflops:6.1} GFLOP/s",
            rate / plain_rate
        );
    }
}

fn read(data: &[u64], threads: usize) {
    let sum = |part: &[u64]| {
        black_box(part.iter().copied().fold(0_u64, u64::wrapping_add));
    };
    if threads == 1 {
        return sum(data);
    }
    std::thread::scope(|scope| {
        for part in data.chunks(data.len().div_ceil(threads)) {
            scope.spawn(move || sum(part));
        }
    });
}

/// Seconds of a run, of as many as fill a turn.
fn seconds(threads: usize, mut run: impl FnMut()) -> f64 {
    let computed = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
        text.split(' ').next()?.parse::<f64>().ok().map(|nanoseconds| nanoseconds / 1e9)
    };
    let (start, before, mut runs) = (Instant::now(), computed().filter(|_| threads == 1), 0.0);
    while start.elapsed().as_secs_f64() < TURN {
        run();
        runs += 1.0;
    }
    let passed = start.elapsed().as_secs_f64();
    before.zip(computed()).map_or(passed, |(before, after)| after - before) / runs
}
