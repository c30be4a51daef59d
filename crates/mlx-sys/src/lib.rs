//! A drop-in for mlx-sys 0.7.0 that links a prebuilt MLX on every platform.
