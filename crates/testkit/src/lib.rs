//! Tiny models and harnesses for the tests.

pub mod models;
pub mod registry;
