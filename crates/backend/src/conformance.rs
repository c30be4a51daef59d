//! The checks that every device must pass.
