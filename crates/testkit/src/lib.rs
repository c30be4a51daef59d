//! Tiny models and harnesses for the tests.

pub mod counting;
pub mod faults;
pub mod hub;
pub mod models;
pub mod programs;
pub mod registry;
