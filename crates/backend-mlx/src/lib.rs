//! The vocabulary of operations over MLX.
