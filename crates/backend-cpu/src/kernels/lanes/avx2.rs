//! [`Lanes`] in AVX2, FMA and F16C: two registers.

#![allow(unsafe_code)]
// The loads take any address; their pointer types say otherwise.
#![allow(clippy::cast_ptr_alignment)]

use std::arch::x86_64::{
    __m128i, __m256, __m256i, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadl_epi64, _mm_loadu_si128, _mm_movehl_ps,
    _mm_shuffle_ps, _mm256_add_ps, _mm256_and_si256, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_extractf128_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setzero_ps, _mm256_slli_epi32, _mm256_srli_epi32,
    _mm256_storeu_ps,
};

use super::{Kernel, Lanes};

/// Sixteen f32: lanes 0–7, then 8–15.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256, __m256);

/// Eight bytes as numbers of 32 bits.
#[inline(always)]
unsafe fn eight_bytes(from: *const u8) -> __m256i {
    // SAFETY: as for every method of `Lanes`.
    unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast::<__m128i>())) }
}

// SAFETY of every block: who calls a method of `Lanes` has these instructions and answers for the pointer.
impl Lanes for Avx2 {
    const WIDE: bool = false;
    /// Scale and bias in every lane: eight lanes cannot look up sixteen values.
    type Table = (__m256, __m256);

    #[inline(always)]
    unsafe fn zero() -> Self {
        unsafe { Self(_mm256_setzero_ps(), _mm256_setzero_ps()) }
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        unsafe { Self(_mm256_set1_ps(value), _mm256_set1_ps(value)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, b.0, c.0), _mm256_fmadd_ps(self.1, b.1, c.1)) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(self.0, self.1);
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn widen_bf16(from: *const u8) -> Self {
        unsafe {
            let low = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast::<__m128i>()));
            let high = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(16).cast::<__m128i>()));
            let low = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(low));
            Self(low, _mm256_castsi256_ps(_mm256_slli_epi32::<16>(high)))
        }
    }

    #[inline(always)]
    unsafe fn widen_f16(from: *const u8) -> Self {
        unsafe {
            let low = _mm256_cvtph_ps(_mm_loadu_si128(from.cast::<__m128i>()));
            Self(low, _mm256_cvtph_ps(_mm_loadu_si128(from.add(16).cast::<__m128i>())))
        }
    }

    #[inline(always)]
    unsafe fn table(scale: f32, bias: f32) -> (__m256, __m256) {
        unsafe { (_mm256_set1_ps(scale), _mm256_set1_ps(bias)) }
    }

    #[inline(always)]
    unsafe fn codes_4(from: *const u8, (scale, bias): (__m256, __m256)) -> [Self; 2] {
        unsafe {
            let four_bits = _mm256_set1_epi32(15);
            let (a, b) = (eight_bytes(from), eight_bytes(from.add(8)));
            let [low_a, low_b] = [_mm256_and_si256(a, four_bits), _mm256_and_si256(b, four_bits)];
            let [high_a, high_b] = [_mm256_srli_epi32::<4>(a), _mm256_srli_epi32::<4>(b)];
            [
                Self(
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(low_a), scale, bias),
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(low_b), scale, bias),
                ),
                Self(
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(high_a), scale, bias),
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(high_b), scale, bias),
                ),
            ]
        }
    }

    #[inline(always)]
    unsafe fn codes_8(from: *const u8, scale: Self, bias: Self) -> Self {
        unsafe {
            let low = _mm256_fmadd_ps(_mm256_cvtepi32_ps(eight_bytes(from)), scale.0, bias.0);
            Self(low, _mm256_fmadd_ps(_mm256_cvtepi32_ps(eight_bytes(from.add(8))), scale.1, bias.1))
        }
    }

    #[inline(always)]
    unsafe fn run<K: Kernel<Self>>(kernel: K) {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
        unsafe fn run<K: Kernel<Avx2>>(kernel: K) {
            unsafe { kernel.run() }
        }
        unsafe { run(kernel) }
    }
}
