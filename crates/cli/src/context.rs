//! What every command works with: the settings in force, the store, the printer.

use std::path::PathBuf;

use mlxctl_settings::{Environment, Flags, Settings};
use mlxctl_store::Store;

use crate::failure::Failure;
use crate::printer::Printer;

/// The settings and the printer of one call.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) printer: Printer,
}

impl Context {
    /// From the global flags and the environment.
    pub(crate) fn new(home: Option<PathBuf>, quiet: bool) -> Result<Self, Failure> {
        let settings = Settings::resolve(Flags { home, ..Flags::default() }, &Environment::of_process())?;
        Ok(Self { settings, printer: Printer::new(quiet) })
    }

    /// The local store, made where there is none.
    pub(crate) fn store(&self) -> Result<Store, Failure> {
        Ok(Store::open(&self.settings.store())?)
    }
}

/// Runs a future to its end; Ctrl-C ends it, and what was transferred is kept for the next run.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start threads: {error}")))?;
    runtime.block_on(async {
        tokio::select! {
            result = work => result,
            _ = tokio::signal::ctrl_c() => Err(Failure::new("interrupted")),
        }
    })
}
