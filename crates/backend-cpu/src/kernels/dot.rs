//! Sums of products. All sums of the backend over features are taken here, in one order: feature `i` goes to lane
//! `i % LANES`, each lane adds in ascending order, and the lanes are added as a binary tree.

use crate::instruction_set::Arithmetic;

/// Partial sums kept side by side.
pub(crate) const LANES: usize = 16;

/// `w · x` for one `w` and `R` vectors `x` of its length.
///
/// Each of the `R` results is the one that `R = 1` gives: the vectors share the loads of `w` and nothing else.
#[inline(always)]
pub(crate) fn dots<A: Arithmetic, const R: usize>(w: &[f32], x: [&[f32]; R]) -> [f32; R] {
    let mut lanes = [[0.0_f32; LANES]; R];
    let (runs, rest) = w.as_chunks::<LANES>();
    let x_runs = x.map(|x| &x.as_chunks::<LANES>().0[..runs.len()]);
    for (index, w) in runs.iter().enumerate() {
        for r in 0..R {
            let x = &x_runs[r][index];
            for lane in 0..LANES {
                lanes[r][lane] = A::multiply_add(w[lane], x[lane], lanes[r][lane]);
            }
        }
    }
    let done = runs.len() * LANES;
    for r in 0..R {
        for (lane, (w, x)) in rest.iter().zip(&x[r][done..w.len()]).enumerate() {
            lanes[r][lane] = A::multiply_add(*w, *x, lanes[r][lane]);
        }
    }
    lanes.map(sum_lanes)
}

/// `w · x`.
#[inline(always)]
pub(crate) fn dot<A: Arithmetic>(w: &[f32], x: &[f32]) -> f32 {
    dots::<A, 1>(w, [x])[0]
}

#[inline(always)]
fn sum_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction_set::{Fused, Separate};

    #[test]
    fn a_vector_has_the_same_product_alone_and_among_others() {
        for length in [0, 1, 15, 16, 17, 64, 100] {
            let w: Vec<f32> = (0..length).map(|i| (i as f32 * 0.7).sin()).collect();
            let xs: Vec<Vec<f32>> =
                (0..4).map(|r| (0..length).map(|i| (i as f32 * 0.3 + r as f32).cos()).collect()).collect();
            let together = dots::<Fused, 4>(&w, [&xs[0], &xs[1], &xs[2], &xs[3]]);
            for (x, together) in xs.iter().zip(together) {
                assert_eq!(dot::<Fused>(&w, x).to_bits(), together.to_bits());
                let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                assert!((f64::from(together) - exact).abs() < 1e-5, "{together} {exact}");
                assert!((f64::from(dot::<Separate>(&w, x)) - exact).abs() < 1e-5);
            }
        }
    }
}
