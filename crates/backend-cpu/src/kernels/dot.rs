//! Sums of products. All sums of the backend over features are taken here, in one order: feature `i` goes to lane
//! `i % LANES`, each lane adds in ascending order, and the lanes are added as a binary tree.

use crate::instruction_set::Arithmetic;

/// Partial sums kept side by side.
pub(crate) const LANES: usize = 16;

/// Vectors that [`dots`] takes at once.
pub(crate) const TILE: usize = 4;

type Lanes = [f32; LANES];

/// `w · x`.
#[inline(always)]
pub(crate) fn dot<A: Arithmetic>(w: &[f32], x: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let ((w, w_rest), (x, x_rest)) = (w.as_chunks(), x.as_chunks());
    for (w, x) in w.iter().zip(x) {
        add_run::<A>(&mut lanes, w, x);
    }
    add_rest::<A>(&mut lanes, w_rest, x_rest);
    sum_lanes(lanes)
}

/// `w · x` for one `w` and several `x` of its length, to the bit what [`dot`] gives for each: they share the loads of
/// `w` and nothing else.
///
/// Written out vector by vector, because a loop over them keeps the compiler from holding the lanes in registers.
#[inline(always)]
pub(crate) fn dots<A: Arithmetic>(w: &[f32], x: [&[f32]; TILE]) -> [f32; TILE] {
    let (w, w_rest) = w.as_chunks::<LANES>();
    let [(x0, rest0), (x1, rest1), (x2, rest2), (x3, rest3)] = x.map(<[f32]>::as_chunks::<LANES>);
    let mut lanes0 = [0.0; LANES];
    let mut lanes1 = [0.0; LANES];
    let mut lanes2 = [0.0; LANES];
    let mut lanes3 = [0.0; LANES];
    for ((((w, x0), x1), x2), x3) in w.iter().zip(x0).zip(x1).zip(x2).zip(x3) {
        add_run::<A>(&mut lanes0, w, x0);
        add_run::<A>(&mut lanes1, w, x1);
        add_run::<A>(&mut lanes2, w, x2);
        add_run::<A>(&mut lanes3, w, x3);
    }
    add_rest::<A>(&mut lanes0, w_rest, rest0);
    add_rest::<A>(&mut lanes1, w_rest, rest1);
    add_rest::<A>(&mut lanes2, w_rest, rest2);
    add_rest::<A>(&mut lanes3, w_rest, rest3);
    [sum_lanes(lanes0), sum_lanes(lanes1), sum_lanes(lanes2), sum_lanes(lanes3)]
}

#[inline(always)]
fn add_run<A: Arithmetic>(lanes: &mut Lanes, w: &Lanes, x: &Lanes) {
    for lane in 0..LANES {
        lanes[lane] = A::multiply_add(w[lane], x[lane], lanes[lane]);
    }
}

#[inline(always)]
fn add_rest<A: Arithmetic>(lanes: &mut Lanes, w: &[f32], x: &[f32]) {
    for (lane, (w, x)) in lanes.iter_mut().zip(w.iter().zip(x)) {
        *lane = A::multiply_add(*w, *x, *lane);
    }
}

#[inline(always)]
fn sum_lanes(mut lanes: Lanes) -> f32 {
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
            let together = dots::<Fused>(&w, [&xs[0], &xs[1], &xs[2], &xs[3]]);
            for (x, together) in xs.iter().zip(together) {
                assert_eq!(dot::<Fused>(&w, x).to_bits(), together.to_bits());
                let exact: f64 = w.iter().zip(x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
                assert!((f64::from(together) - exact).abs() < 1e-5, "{together} {exact}");
                assert!((f64::from(dot::<Separate>(&w, x)) - exact).abs() < 1e-5);
            }
        }
    }
}
