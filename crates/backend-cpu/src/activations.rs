//! Activations of a step: what operations hand to each other.

use std::sync::Arc;

/// `[rows, features]` of f32, row-major; a clone shares the numbers.
#[derive(Debug, Clone)]
pub struct Activations {
    data: Arc<Vec<f32>>,
    features: usize,
}

impl Activations {
    pub(crate) fn new(data: Vec<f32>, features: usize) -> Self {
        debug_assert!(if features == 0 { data.is_empty() } else { data.len().is_multiple_of(features) });
        Self { data: Arc::new(data), features }
    }

    /// Numbers a row.
    pub fn features(&self) -> usize {
        self.features
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.data.len().checked_div(self.features).unwrap_or(0)
    }

    /// All numbers, row after row.
    pub fn data(&self) -> &[f32] {
        &self.data
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.data[row * self.features..(row + 1) * self.features]
    }
}
