//! [`Lanes`] in AVX-512 F, BW, DQ and VL: one register.

#![allow(unsafe_code)]
// The loads take any address; their pointer types say otherwise.
#![allow(clippy::cast_ptr_alignment)]

use std::arch::x86_64::{
    __m128i, __m256i, __m512, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_loadu_si128, _mm_movehl_ps, _mm_shuffle_ps,
    _mm256_add_ps, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm256_loadu_si256, _mm512_castps512_ps256,
    _mm512_castsi512_ps, _mm512_cvtepi32_ps, _mm512_cvtepu8_epi32, _mm512_cvtepu16_epi32, _mm512_cvtph_ps,
    _mm512_extractf32x8_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_permutexvar_ps, _mm512_set1_ps, _mm512_setr_ps,
    _mm512_setzero_ps, _mm512_slli_epi32, _mm512_srli_epi32, _mm512_storeu_ps,
};

use super::{Kernel, Lanes};

/// Sixteen f32 in a register.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

// SAFETY of every block: who calls a method of `Lanes` has these instructions and answers for the pointer.
impl Lanes for Avx512 {
    const WIDE: bool = true;
    type Table = __m512;

    #[inline(always)]
    unsafe fn zero() -> Self {
        Self(unsafe { _mm512_setzero_ps() })
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self {
        Self(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        unsafe {
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn widen_bf16(from: *const u8) -> Self {
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast::<__m256i>()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits)))
        }
    }

    #[inline(always)]
    unsafe fn widen_f16(from: *const u8) -> Self {
        Self(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast::<__m256i>())) })
    }

    /// The sixteen values themselves: looking one up costs one instruction, which reads four bits of each index and
    /// so takes apart what the codes share bytes with.
    #[inline(always)]
    unsafe fn table(scale: f32, bias: f32) -> __m512 {
        unsafe {
            let codes =
                _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0);
            _mm512_fmadd_ps(codes, _mm512_set1_ps(scale), _mm512_set1_ps(bias))
        }
    }

    #[inline(always)]
    unsafe fn codes_4(from: *const u8, table: __m512) -> [Self; 2] {
        unsafe {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast::<__m128i>()));
            let low = _mm512_permutexvar_ps(bytes, table);
            [Self(low), Self(_mm512_permutexvar_ps(_mm512_srli_epi32::<4>(bytes), table))]
        }
    }

    #[inline(always)]
    unsafe fn codes_8(from: *const u8, scale: Self, bias: Self) -> Self {
        unsafe {
            let bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast::<__m128i>()));
            Self(_mm512_fmadd_ps(_mm512_cvtepi32_ps(bytes), scale.0, bias.0))
        }
    }

    #[inline(always)]
    unsafe fn run<K: Kernel<Self>>(kernel: K) {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        unsafe fn run<K: Kernel<Avx512>>(kernel: K) {
            unsafe { kernel.run() }
        }
        unsafe { run(kernel) }
    }
}
