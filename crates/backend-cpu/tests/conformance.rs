//! Every operation against its definition, for every instruction set this machine has and several thread counts.

#![allow(clippy::unwrap_used)]

use std::num::NonZeroUsize;

use mlxctl_backend::conformance::{Promises, check};
use mlxctl_backend_cpu::{CpuBackend, InstructionSet, KvType};

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
