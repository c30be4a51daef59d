//! A symbol of macOS that `mlx-rs` calls for the seed of an unseeded generator; elsewhere it is defined here.

use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds of the system clock: like the original a number that differs from call to call, and no measure of time.
// SAFETY: the name is Mach's own, so no other library of a system without Mach defines it, and the signature is the
// one it is declared with: no argument, an unsigned 64-bit result.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
extern "C" fn mach_approximate_time() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}
