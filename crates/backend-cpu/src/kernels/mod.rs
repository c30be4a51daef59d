//! Inner loops, each called by one operation of the backend for the part of the work that one task does. Every file
//! says which layout it walks and in which order it adds: that order is the promise of equal bits.

pub(crate) mod attend;
pub(crate) mod dot;
pub(crate) mod exp;
pub(crate) mod gate;
pub(crate) mod norm;
pub(crate) mod product;
pub(crate) mod rotate;
pub(crate) mod widen;
