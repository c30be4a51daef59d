//! Inner loops, each called by one operation of the backend for the part of the work that one task does. Every file
//! says which layout it walks and in which order it adds: that order is the promise of equal bits.

pub(crate) mod attend;
pub(crate) mod dot;
pub(crate) mod exp;
pub(crate) mod gate;
#[cfg(target_arch = "x86_64")]
pub(crate) mod lanes;
pub(crate) mod layer_norm;
pub(crate) mod norm;
pub(crate) mod product;
pub(crate) mod rotate;
#[cfg(target_arch = "x86_64")]
pub(crate) mod stored;
#[cfg(target_arch = "x86_64")]
pub(crate) mod tiles;
pub(crate) mod widen;
pub(crate) mod widened;
