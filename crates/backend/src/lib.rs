//! The vocabulary of tensor operations that models are written in, the KV pool and sampling.
