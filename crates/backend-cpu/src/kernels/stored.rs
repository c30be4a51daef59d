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
// Loops over the indices of a tile become registers; iterators over its arrays did not.
#![allow(clippy::needless_range_loop)]

use std::marker::PhantomData;

use mlxctl_weights::Dtype;

use super::lanes::{Kernel, Lanes};
use super::widen::UNIT;

/// Groups whose scales and biases are widened at a time.
const GROUPS: usize = 16;

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

/// `W · R` sums, each in lanes.
type Sums<L, const W: usize, const R: usize> = [[L; R]; W];

/// Sums with plain weights, over whole rows or a run of columns.
pub(crate) struct PlainTile<'a, P, const W: usize, const R: usize> {
    /// Good for `chunks · P::BYTES` bytes each.
    pub(crate) w: [*const u8; W],
    /// Good for `16 · chunks` numbers each.
    pub(crate) x: [*const f32; R],
    pub(crate) chunks: usize,
    /// Room for `W · R · 16` numbers: the lanes of the sums between runs of columns.
    pub(crate) kept: *mut f32,
    pub(crate) is_first: bool,
    /// Where the sums go after the last run.
    pub(crate) totals: Option<&'a mut [[f32; R]; W]>,
    pub(crate) format: PhantomData<P>,
}

impl<L: Lanes, P: Plain<L>, const W: usize, const R: usize> Kernel<L> for PlainTile<'_, P, W, R> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: every pointer stays within what the fields promise; the instructions are the caller's word.
        unsafe {
            let Self { w, x, kept, .. } = self;
            let mut sums: Sums<L, W, R> = [[L::zero(); R]; W];
            if !self.is_first {
                for row in 0..W {
                    for r in 0..R {
                        sums[row][r] = L::load(kept.add((row * R + r) * 16));
                    }
                }
            }
            for chunk in 0..self.chunks {
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
            match self.totals {
                Some(totals) => add_up(sums, totals),
                None => {
                    for row in 0..W {
                        for r in 0..R {
                            sums[row][r].store(kept.add((row * R + r) * 16));
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn add_up<L: Lanes, const W: usize, const R: usize>(sums: Sums<L, W, R>, totals: &mut [[f32; R]; W]) {
    for row in 0..W {
        for r in 0..R {
            // SAFETY: the caller's word.
            totals[row][r] = unsafe { sums[row][r].sum() };
        }
    }
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

/// Widens up to sixteen parameters.
#[inline(always)]
unsafe fn sixteen<L: Lanes>(dtype: Dtype, bytes: &[u8], out: &mut [f32; GROUPS]) {
    let mut padded = [0; 4 * GROUPS];
    let mut from = bytes.as_ptr();
    if bytes.len() < GROUPS * dtype.size() {
        padded[..bytes.len()].copy_from_slice(bytes);
        from = padded.as_ptr();
    }
    // SAFETY: sixteen elements lie at `from`; the instructions are the caller's word.
    unsafe {
        let lanes = match dtype {
            Dtype::BF16 => L::widen_bf16(from),
            Dtype::F16 => L::widen_f16(from),
            _ => L::load(from.cast()),
        };
        lanes.store(out.as_mut_ptr());
    }
}

/// Sums with coded weights, over whole rows.
pub(crate) struct CodedTile<'a, C, const W: usize, const R: usize> {
    /// All of one shape.
    pub(crate) rows: [CodedRow<'a>; W],
    /// Good for a row's number of weights each.
    pub(crate) x: [*const f32; R],
    pub(crate) totals: &'a mut [[f32; R]; W],
    pub(crate) format: PhantomData<C>,
}

impl<L: Lanes, C: Codes<L>, const W: usize, const R: usize> Kernel<L> for CodedTile<'_, C, W, R> {
    #[inline(always)]
    unsafe fn run(self) {
        let Self { rows, x, .. } = self;
        let CodedRow { dtype, group_size, scales, .. } = rows[0];
        let size = dtype.size();
        let groups = scales.len() / size;
        let units = group_size / UNIT;
        let mut codes = [rows[0].codes.as_ptr(); W];
        for row in 0..W {
            assert!(rows[row].codes.len() >= groups * units * C::BYTES, "a row holds the codes of its groups");
            codes[row] = rows[row].codes.as_ptr();
        }
        // SAFETY: units are counted from the rows' own lengths, checked above; the rest is the caller's word.
        unsafe {
            let mut sums: Sums<L, W, R> = [[L::zero(); R]; W];
            let mut scales = [[0.0; GROUPS]; W];
            let mut biases = [[0.0; GROUPS]; W];
            let mut unit = 0;
            let mut first = 0;
            while first < groups {
                let count = GROUPS.min(groups - first);
                let part = first * size..(first + count) * size;
                for row in 0..W {
                    sixteen::<L>(dtype, &rows[row].scales[part.clone()], &mut scales[row]);
                    sixteen::<L>(dtype, &rows[row].biases[part.clone()], &mut biases[row]);
                }
                for group in 0..count {
                    let mut groups = [C::group(0.0, 0.0); W];
                    for row in 0..W {
                        groups[row] = C::group(scales[row][group], biases[row][group]);
                    }
                    for _ in 0..units {
                        for row in 0..W {
                            let [a, b] = C::unit(codes[row].add(unit * C::BYTES), groups[row]);
                            for r in 0..R {
                                let x = x[r].add(unit * UNIT);
                                sums[row][r] = a.multiply_add(L::load(x), sums[row][r]);
                                sums[row][r] = b.multiply_add(L::load(x.add(16)), sums[row][r]);
                            }
                        }
                        unit += 1;
                    }
                }
                first += count;
            }
            add_up(sums, self.totals);
        }
    }
}
