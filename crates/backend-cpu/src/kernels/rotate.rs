//! The rotation of queries and keys by their position.

use mlxctl_backend::Rope;

/// Cosines and sines of one position, `magnitude` included; one of each a pair.
pub(crate) struct Angles {
    cosines: Vec<f32>,
    sines: Vec<f32>,
}

impl Angles {
    /// The angle is the f32 product of position and frequency, as the reference implementations take it; its cosine
    /// and sine are rounded from f64.
    pub(crate) fn new(rope: &Rope, position: usize) -> Self {
        let (sines, cosines) = rope
            .inverse_frequencies
            .iter()
            .map(|frequency| {
                let (sine, cosine) = libm::sincos(f64::from(position as f32 * frequency));
                (sine as f32 * rope.magnitude, cosine as f32 * rope.magnitude)
            })
            .unzip();
        Self { cosines, sines }
    }
}

/// Rotates each head of a row, in place.
pub(crate) fn rotate(row: &mut [f32], rope: &Rope, angles: &Angles) {
    let pairs = angles.cosines.len();
    for head in row.chunks_exact_mut(rope.head_dim.max(1)) {
        let rotated = &mut head[..2 * pairs];
        if rope.interleaved {
            let pairs = rotated.as_chunks_mut::<2>().0.iter_mut();
            for (pair, (cosine, sine)) in pairs.zip(angles.cosines.iter().zip(&angles.sines)) {
                let [a, b] = *pair;
                *pair = [a * cosine - b * sine, a * sine + b * cosine];
            }
        } else {
            let (first, second) = rotated.split_at_mut(pairs);
            let pairs = first.iter_mut().zip(second);
            for ((a, b), (cosine, sine)) in pairs.zip(angles.cosines.iter().zip(&angles.sines)) {
                (*a, *b) = (*a * cosine - *b * sine, *a * sine + *b * cosine);
            }
        }
    }
}
