//! The exponential function, the same on every machine and in vector registers: softmax and SiLU take it from here.

use crate::instruction_set::Arithmetic;

/// `e^x`, at most 2 units in the last place off; 0 below −87.3, and not above `e^88.3` (a finite 2·10³⁸); NaN stays.
///
/// `x = n·ln 2 + r` with `|r| ≤ ln 2 / 2`; `e^r` is its Taylor series up to `r⁷/7!`, whose remainder is 5·10⁻⁹.
#[inline(always)]
pub(crate) fn exp<A: Arithmetic>(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to a whole number, which is then the difference of the bits.
    const ROUND: f32 = 12_582_912.0;
    // The upper part of ln 2 has nine bits, so that its product with n is exact.
    const LN_2_HIGH: f32 = 355.0 / 512.0;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const SERIES: [f32; 6] = [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5];
    let bounded = if x > 88.3 { 88.3 } else { x };
    let bounded = if bounded < -87.3 { -87.3 } else { bounded };
    let rounded = A::multiply_add(bounded, std::f32::consts::LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = A::multiply_add(n, -LN_2_LOW, A::multiply_add(n, -LN_2_HIGH, bounded));
    let mut series = SERIES[0];
    let mut index = 1;
    while index < SERIES.len() {
        series = A::multiply_add(series, r, SERIES[index]);
        index += 1;
    }
    let power = A::multiply_add(series * r, r, r) + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127);
    let result = power * f32::from_bits(exponent << 23);
    if x < -87.3 { 0.0 } else { result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction_set::{Fused, Separate};

    fn check(exp: fn(f32) -> f32) {
        for step in -87_299..88_299 {
            let x = step as f32 * 1e-3;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2.4e-7, "e^{x}: relative error {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(-100.0), 0.0);
        assert!(exp(f32::INFINITY) > 1e38);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn close_to_the_exact_value_over_the_whole_range() {
        check(exp::<Fused>);
        check(exp::<Separate>);
    }
}
