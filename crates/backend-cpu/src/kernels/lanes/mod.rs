//! Sixteen f32 side by side, for the products written in intrinsics: one implementation an instruction set.
//!
//! Each operation rounds as its scalar counterpart does, so a kernel over `Lanes` gives to the bit what the portable
//! body gives with fused arithmetic. Every method is unsafe for the same reason: the caller must run on a processor
//! that has the instructions of the implementation, and pointers must be good for what is read or written. No pointer
//! needs to be aligned.

#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc)]

pub(crate) mod avx2;
pub(crate) mod avx512;

/// Sixteen f32.
pub(crate) trait Lanes: Copy {
    /// Whether sixteen lanes are one register of thirty-two: how large a tile may be before it spills.
    const WIDE: bool;

    /// What sixteen values of a 4-bit code are made of.
    type Table: Copy;

    unsafe fn zero() -> Self;
    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);

    /// `self · b + c`, rounded once.
    unsafe fn multiply_add(self, b: Self, c: Self) -> Self;

    /// The sum as a binary tree: lanes 8–15 onto 0–7, 4–7 onto 0–3, and so on.
    unsafe fn sum(self) -> f32;

    /// Sixteen bf16, 32 bytes.
    unsafe fn widen_bf16(from: *const u8) -> Self;

    /// Sixteen f16, 32 bytes.
    unsafe fn widen_f16(from: *const u8) -> Self;

    /// `code · scale + bias` for the codes 0 to 15, or what makes them.
    unsafe fn table(scale: f32, bias: f32) -> Self::Table;

    /// Thirty-two 4-bit codes of one group, 16 bytes: the low halves of the bytes, then the high halves.
    unsafe fn codes_4(from: *const u8, table: Self::Table) -> [Self; 2];

    /// Sixteen 8-bit codes of one group, 16 bytes.
    unsafe fn codes_8(from: *const u8, scale: Self, bias: Self) -> Self;

    /// Runs a kernel as a function of its own that is compiled with the instructions.
    unsafe fn run<K: Kernel<Self>>(kernel: K);
}

/// An innermost loop with its arguments. One function each, so that the compiler gives it all the registers.
pub(crate) trait Kernel<L: Lanes> {
    /// The loop; inlined into [`Lanes::run`]. As for every method of [`Lanes`].
    unsafe fn run(self);
}
