//! Configuration file, environment and flags resolved into one value.
