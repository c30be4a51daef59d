//! Every operation against its definition, for every instruction set this machine has and several thread counts.

#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;

use mlxctl_backend::conformance::{Promises, check};
use mlxctl_backend::{Activation, Backend, LinearWeight};
use mlxctl_backend_cpu::{CpuBackend, InstructionSet, KvType};
use mlxctl_weights::{Dtype, Tensor};

fn backend(threads: usize, instruction_set: InstructionSet) -> CpuBackend {
    CpuBackend::new(NonZeroUsize::new(threads).unwrap()).with_instruction_set(instruction_set)
}

#[test]
fn every_operation_is_exact_to_rounding_and_invariant_to_the_batch() {
    for instruction_set in [InstructionSet::Baseline, InstructionSet::Avx2, InstructionSet::Avx512] {
        for threads in [1, 3] {
            check(&backend(threads, instruction_set), Promises { tolerance: 2e-6, batch_invariant: true });
        }
    }
}

#[test]
fn keys_and_values_in_bf16_cost_their_rounding_and_no_invariance() {
    let backend = backend(2, InstructionSet::detect()).with_kv_type(KvType::Bf16);
    // bf16 keeps eight bits, and errors of keys grow with the scores.
    check(&backend, Promises { tolerance: 2e-2, batch_invariant: true });
}

#[test]
fn operations_that_share_a_dispatch_give_the_bits_of_those_that_do_not() {
    let numbers = |seed: usize, count: usize| (0..count).map(move |i| ((i * 7 + seed * 13) as f32 * 0.61).sin());
    let (columns, rows) = (48, 5);
    let weight = |backend: &CpuBackend, seed, out: usize, columns: usize| {
        let data: Vec<u8> = numbers(seed, out * columns).flat_map(f32::to_le_bytes).collect();
        let tensor = Tensor { dtype: Dtype::F32, shape: vec![out, columns], data: data.into() };
        backend.mount_linear(LinearWeight::Dense(tensor), None).unwrap()
    };
    for instruction_set in [InstructionSet::Baseline, InstructionSet::Avx2, InstructionSet::Avx512] {
        let backend = backend(3, instruction_set);
        let x = backend.from_host(&numbers(9, rows * columns).collect::<Vec<_>>(), columns).unwrap();
        // Sizes that no task size divides, so that tasks of different weights lie side by side.
        let [q, k, v] = [(1, 1000), (2, 333), (3, 17)].map(|(seed, out)| weight(&backend, seed, out, columns));
        let together = backend.qkv(&x, &q, &k, &v).unwrap();
        for (found, weight) in [(&together.0, &q), (&together.1, &k), (&together.2, &v)] {
            assert_eq!(found.data(), backend.linear(&x, weight).unwrap().data());
        }
        let (up, down) = (weight(&backend, 4, 1000, columns), weight(&backend, 5, 31, 1000));
        let fused = backend.gated_mlp(&x, &q, &up, &down, Activation::Silu).unwrap();
        let (gates, ups) = (backend.linear(&x, &q).unwrap(), backend.linear(&x, &up).unwrap());
        let gated = backend.gate(&gates, &ups, Activation::Silu).unwrap();
        assert_eq!(fused.data(), backend.linear(&gated, &down).unwrap().data());
        assert!(backend.gated_mlp(&x, &q, &k, &down, Activation::Silu).is_err(), "gate and up differ");
    }
}
