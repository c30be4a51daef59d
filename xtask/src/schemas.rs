//! `cargo xtask schemas`: writes what is generated anew. The tests that hold the files true write them when asked to.

use crate::steps::{self, Result, cargo};

pub(crate) fn run() -> Result<()> {
    for package in ["mlxctl-modelspec", "mlxctl"] {
        steps::run(cargo().args(["test", "--quiet", "--package", package]).env("MLXCTL_UPDATE", "1"))?;
    }
    Ok(())
}
