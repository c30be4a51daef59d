//! `activation(gate) · up`, element by element.

use mlxctl_backend::Activation;

use super::exp::exp;
use crate::instruction_set::{Arithmetic, for_each_instruction_set};

for_each_instruction_set! {
    /// Leaves the result in `gate`.
    pub(crate) fn apply_gate(gate: &mut [f32], up: &[f32], activation: Activation) = apply_gate_body
}

#[inline(always)]
fn apply_gate_body<A: Arithmetic>(gate: &mut [f32], up: &[f32], activation: Activation) {
    match activation {
        Activation::Silu => {
            for (gate, up) in gate.iter_mut().zip(up) {
                *gate = *gate / (1.0 + exp::<A>(-*gate)) * up;
            }
        }
        Activation::Gelu => {
            for (gate, up) in gate.iter_mut().zip(up) {
                let half = 0.5 * *gate;
                *gate = half * (1.0 + libm::erff(*gate * std::f32::consts::FRAC_1_SQRT_2)) * up;
            }
        }
        Activation::GeluTanh => {
            for (gate, up) in gate.iter_mut().zip(up) {
                // sqrt(2 / π)
                const FACTOR: f32 = 0.797_884_6;
                let x = *gate;
                let inner = FACTOR * (x + 0.044_715 * x * x * x);
                *gate = 0.5 * x * (1.0 + libm::tanhf(inner)) * up;
            }
        }
    }
}
