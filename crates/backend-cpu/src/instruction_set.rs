//! Which instructions the kernels may use, found at run time.

use std::fmt;

/// An instruction set that the kernels are compiled for. Results are the same to the bit on each run with one of them;
/// between them they differ, because some round products before adding and some do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstructionSet {
    /// What the target guarantees.
    Baseline,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl InstructionSet {
    /// The best that this processor has.
    pub fn detect() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("avx2") && has!("fma") && has!("f16c") {
                if has!("avx512f") && has!("avx512bw") && has!("avx512dq") && has!("avx512vl") {
                    return Self::Avx512;
                }
                return Self::Avx2;
            }
        }
        Self::Baseline
    }

    /// Whether this processor can run it.
    pub(crate) fn is_available(self) -> bool {
        match self {
            Self::Baseline => true,
            Self::Avx2 => matches!(Self::detect(), Self::Avx2 | Self::Avx512),
            Self::Avx512 => Self::detect() == Self::Avx512,
        }
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Baseline => std::env::consts::ARCH,
            // Both round the same way, lane by lane: one name, one fingerprint.
            Self::Avx2 | Self::Avx512 => "x86_64-fma",
        })
    }
}

/// How a kernel multiplies and adds.
pub(crate) trait Arithmetic {
    /// `a · b + c`.
    fn multiply_add(a: f32, b: f32, c: f32) -> f32;
}

/// The product is rounded before the sum: for targets whose baseline has no fused instruction.
pub(crate) struct Separate;

/// One rounding, by the fused instruction.
pub(crate) struct Fused;

impl Arithmetic for Separate {
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a * b + c
    }
}

impl Arithmetic for Fused {
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

/// The arithmetic of the target's baseline.
#[cfg(target_arch = "aarch64")]
pub(crate) type Baseline = Fused;
/// The arithmetic of the target's baseline.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) type Baseline = Separate;

/// Compiles a kernel's body, `fn body<A: Arithmetic>(arguments)`, once for each instruction set, behind one function
/// that takes the instruction set first. The body must be `#[inline(always)]`.
macro_rules! for_each_instruction_set {
    ($(#[$doc:meta])* $vis:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) = $body:ident) => {
        $(#[$doc])*
        #[allow(unsafe_code)]
        $vis fn $name(instruction_set: $crate::InstructionSet, $($argument: $type),*) {
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::instruction_set::{Fused, InstructionSet};
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($argument: $type),*) {
                    $body::<Fused>($($argument),*);
                }
                #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
                fn avx512($($argument: $type),*) {
                    $body::<Fused>($($argument),*);
                }
                match instruction_set {
                    // SAFETY: a backend takes this value only from a processor that has these instructions.
                    InstructionSet::Avx2 => return unsafe { avx2($($argument),*) },
                    // SAFETY: as above.
                    InstructionSet::Avx512 => return unsafe { avx512($($argument),*) },
                    InstructionSet::Baseline => {}
                }
            }
            let _ = instruction_set;
            $body::<$crate::instruction_set::Baseline>($($argument),*);
        }
    };
}
pub(crate) use for_each_instruction_set;
