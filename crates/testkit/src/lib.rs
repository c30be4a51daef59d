//! Tiny models and harnesses for the tests.
