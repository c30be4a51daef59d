//! Tiny models and harnesses for the tests.

pub mod registry;
