//! `cargo xtask faults [RUNS] [SEED]`: many seeded pushes and pulls through a registry that misbehaves. A short part
//! runs with the tests; `docs/faults.md` says what a long one found.

use crate::steps::{self, Result, cargo};

/// Runs where no number is given.
const RUNS: u64 = 1000;

pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let number = |at: usize, default: u64| match arguments.get(at) {
        None => Ok(default),
        Some(text) => {
            text.parse::<u64>().map_err(|_| format!("'{text}' is no number; usage: cargo xtask faults [RUNS] [SEED]"))
        }
    };
    let (runs, seed) = (number(0, RUNS)?, number(1, 1)?);
    steps::run(
        cargo()
            .args(["test", "--package", "mlxctl-registry-server", "--test", "faults", "--", "--nocapture"])
            .env("MLXCTL_FAULT_RUNS", runs.to_string())
            .env("MLXCTL_FAULT_SEED", seed.to_string()),
    )
}
