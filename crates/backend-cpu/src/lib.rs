//! The vocabulary of operations on a CPU, over mapped weights.
