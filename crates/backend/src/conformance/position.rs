//! Rotation by position.

use super::{Promises, assert_close, numbers, widen};
use crate::{Backend, Batch, BlockId, Rope};

pub(super) fn check<B: Backend>(backend: &B, promises: Promises) {
    let head_dim = 12;
    let mut batch = Batch::default();
    batch.push(&[0; 3], 0, &[BlockId(0)], false);
    batch.push(&[0; 1], 37, &[BlockId(1), BlockId(2)], false);
    batch.push(&[0; 2], 100, &[BlockId(3)], false);
    let positions: Vec<usize> = batch.positions().collect();
    assert_eq!(positions, [0, 1, 2, 37, 100, 101]);
    let features = 2 * head_dim;
    let x = numbers(31, positions.len() * features);
    let input = backend.from_host(&x, features).unwrap();
    for (pairs, interleaved, magnitude) in [(6, false, 1.0), (6, true, 1.0), (4, false, 1.25), (3, true, 0.5)] {
        let inverse_frequencies: Vec<f32> = (0..pairs).map(|pair| 1.0 / 3.0_f32.powi(pair)).collect();
        let rope = Rope { head_dim, inverse_frequencies, interleaved, magnitude };
        let found = backend.to_host(&backend.rope(&input, &rope, &batch).unwrap()).unwrap();
        let mut expected = widen(&x);
        for (row, &position) in expected.chunks_mut(features).zip(&positions) {
            for head in row.chunks_mut(head_dim) {
                for (pair, frequency) in rope.inverse_frequencies.iter().enumerate() {
                    let angle = position as f64 * f64::from(*frequency);
                    let (first, second) = if interleaved {
                        (2 * pair, 2 * pair + 1)
                    } else {
                        (pair, pair + rope.inverse_frequencies.len())
                    };
                    let (a, b) = (head[first], head[second]);
                    head[first] = (a * angle.cos() - b * angle.sin()) * f64::from(magnitude);
                    head[second] = (a * angle.sin() + b * angle.cos()) * f64::from(magnitude);
                }
            }
        }
        // The angle itself is an f32, as in the reference implementations: its error grows with the position.
        let promises = Promises { tolerance: promises.tolerance.max(2e-5), ..promises };
        let what = format!("rope of {pairs} pairs, interleaved {interleaved}, magnitude {magnitude}");
        assert_close(&what, &found, &expected, promises);
    }
}
