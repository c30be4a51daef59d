//! Products of stored weight rows with activations, [`Lanes`] at a time: the innermost loops of every linear layer.
//!
//! A call takes `W` rows of weights and `R` rows of activations and gives their `W · R` sums, lane by lane. A weight
//! is unpacked in registers once for all `R`; each sum is one chain of fused additions in ascending order of chunks,
//! whatever `W` and `R` are, which is why a row has the same bits in every tile.
//!
//! ```text
//! dense     chunk c of a row:  weights 16c … 16c+15                          x in natural order
//! 8 bits    chunk c of a row:  bytes 16c … 16c+15, one weight each           x in natural order
//! 4 bits    unit u of a row:   bytes 16u … 16u+15, weights 32u … 32u+31
//!           chunk 2u           low halves:  weights 32u, 32u+2, … 32u+30     x: even features of the unit,
//!           chunk 2u+1         high halves: weights 32u+1, … 32u+31          then the odd ones
//! ```

#![allow(unsafe_code)]

use std::marker::PhantomData;

use mlxctl_weights::Dtype;

use super::lanes::Lanes;
use super::widen::{UNIT, widen};

/// Groups whose scales and biases are widened at a time.
const GROUPS: usize = 16;

/// Sums of `W` rows of weights with `R` rows of activations.
pub(crate) type Sums<L, const W: usize, const R: usize> = [[L; R]; W];

/// A plain type of stored weights.
pub(crate) trait Plain<L> {
    /// Bytes of sixteen.
    const BYTES: usize;
    /// Sixteen weights. As for every method of [`Lanes`].
    unsafe fn chunk(from: *const u8) -> L;
}

pub(crate) struct F32;
pub(crate) struct Bf16;
pub(crate) struct F16;

impl<L: Lanes> Plain<L> for F32 {
    const BYTES: usize = 64;
    #[inline(always)]
    unsafe fn chunk(from: *const u8) -> L {
        // SAFETY: passed on to the caller; no alignment is asked for.
        unsafe { L::load(from.cast()) }
    }
}

impl<L: Lanes> Plain<L> for Bf16 {
    const BYTES: usize = 32;
    #[inline(always)]
    unsafe fn chunk(from: *const u8) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::widen_bf16(from) }
    }
}

impl<L: Lanes> Plain<L> for F16 {
    const BYTES: usize = 32;
    #[inline(always)]
    unsafe fn chunk(from: *const u8) -> L {
        // SAFETY: passed on to the caller.
        unsafe { L::widen_f16(from) }
    }
}

/// Goes on with `sums` over `chunks` chunks.
///
/// # Safety
/// As for [`Lanes`]; `w` are good for `chunks · P::BYTES` bytes, `x` for `16 · chunks` numbers.
#[inline(always)]
pub(crate) unsafe fn plain<L: Lanes, P: Plain<L>, const W: usize, const R: usize>(
    w: [*const u8; W],
    x: [*const f32; R],
    chunks: usize,
    mut sums: Sums<L, W, R>,
) -> Sums<L, W, R> {
    // SAFETY: every pointer stays within what the caller answers for.
    unsafe {
        for chunk in 0..chunks {
            let mut weights = [L::zero(); W];
            for row in 0..W {
                weights[row] = P::chunk(w[row].add(chunk * P::BYTES));
            }
            for r in 0..R {
                let x = L::load(x[r].add(chunk * 16));
                for row in 0..W {
                    sums[row][r] = weights[row].multiply_add(x, sums[row][r]);
                }
            }
        }
    }
    sums
}

/// A width of codes.
pub(crate) trait Codes<L> {
    /// Bytes of a unit.
    const BYTES: usize;
    /// What a group's codes are unpacked with.
    type Group: Copy;
    /// As for every method of [`Lanes`].
    unsafe fn group(scale: f32, bias: f32) -> Self::Group;
    /// A unit's two chunks. As for every method of [`Lanes`].
    unsafe fn unit(from: *const u8, group: Self::Group) -> [L; 2];
}

pub(crate) struct Bits4<L>(PhantomData<L>);
pub(crate) struct Bits8<L>(PhantomData<L>);

impl<L: Lanes> Codes<L> for Bits4<L> {
    const BYTES: usize = 16;
    type Group = L::Table;
    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> L::Table {
        // SAFETY: passed on to the caller.
        unsafe { L::table(scale, bias) }
    }
    #[inline(always)]
    unsafe fn unit(from: *const u8, table: L::Table) -> [L; 2] {
        // SAFETY: passed on to the caller.
        unsafe { L::codes_4(from, table) }
    }
}

impl<L: Lanes> Codes<L> for Bits8<L> {
    const BYTES: usize = 32;
    type Group = [L; 2];
    #[inline(always)]
    unsafe fn group(scale: f32, bias: f32) -> [L; 2] {
        // SAFETY: passed on to the caller.
        unsafe { [L::splat(scale), L::splat(bias)] }
    }
    #[inline(always)]
    unsafe fn unit(from: *const u8, [scale, bias]: [L; 2]) -> [L; 2] {
        // SAFETY: passed on to the caller.
        unsafe { [L::codes_8(from, scale, bias), L::codes_8(from.add(16), scale, bias)] }
    }
}

/// A row of codes with its scales and biases, a whole number of groups of `group_size` weights.
#[derive(Clone, Copy)]
pub(crate) struct CodedRow<'a> {
    pub(crate) codes: &'a [u8],
    pub(crate) scales: &'a [u8],
    pub(crate) biases: &'a [u8],
    pub(crate) dtype: Dtype,
    /// A multiple of [`UNIT`].
    pub(crate) group_size: usize,
}

/// Sums over whole rows.
///
/// # Safety
/// As for [`Lanes`]; the rows have one shape, and `x` are good for a row's number of weights.
#[inline(always)]
pub(crate) unsafe fn coded<L: Lanes, C: Codes<L>, const W: usize, const R: usize>(
    rows: [CodedRow<'_>; W],
    x: [*const f32; R],
) -> Sums<L, W, R> {
    let CodedRow { dtype, group_size, scales, .. } = rows[0];
    let size = dtype.size();
    let groups = scales.len() / size;
    let units = group_size / UNIT;
    for row in &rows {
        assert!(row.codes.len() >= groups * units * C::BYTES, "a row holds the codes of its groups");
    }
    // SAFETY: units are counted from the rows' own lengths, checked above; the rest is the caller's word.
    unsafe {
        let mut sums = [[L::zero(); R]; W];
        let mut unit = 0;
        for first in (0..groups).step_by(GROUPS) {
            let count = GROUPS.min(groups - first);
            let mut scales = [[0.0; GROUPS]; W];
            let mut biases = [[0.0; GROUPS]; W];
            for row in 0..W {
                let part = first * size..(first + count) * size;
                widen(dtype, &rows[row].scales[part.clone()], &mut scales[row][..count]);
                widen(dtype, &rows[row].biases[part], &mut biases[row][..count]);
            }
            for group in 0..count {
                let mut groups = [C::group(0.0, 0.0); W];
                for row in 0..W {
                    groups[row] = C::group(scales[row][group], biases[row][group]);
                }
                for _ in 0..units {
                    for row in 0..W {
                        let [a, b] = C::unit(rows[row].codes.as_ptr().add(unit * C::BYTES), groups[row]);
                        for r in 0..R {
                            let x = x[r].add(unit * UNIT);
                            sums[row][r] = a.multiply_add(L::load(x), sums[row][r]);
                            sums[row][r] = b.multiply_add(L::load(x.add(16)), sums[row][r]);
                        }
                    }
                    unit += 1;
                }
            }
        }
        sums
    }
}
