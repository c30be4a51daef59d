//! Stand-in until sampling is in the backend.
#![allow(missing_docs)]
#[derive(Debug, Clone, Default)]
pub struct Sampling {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub seed: u64,
}
pub struct Sampler;
impl Sampler {
    pub fn new(_: Sampling) -> Self {
        Self
    }
    pub fn sample(&mut self, l: &[f32]) -> u32 {
        l.iter().enumerate().fold((0, f32::NEG_INFINITY), |b, (i, v)| if *v > b.1 { (i, *v) } else { b }).0 as u32
    }
}
