//! The one table from errors to what a person reads and what a script tests: message, hint and exit code.

use std::process::ExitCode;

/// A command that failed.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<String>,
    code: Code,
}

/// What a script can tell from the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// It failed.
    Failed = 1,
    /// The call or the recipe is wrong.
    Wrong = 2,
}

impl Failure {
    /// It failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: Code::Failed }
    }

    /// The call or the recipe is wrong.
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: Code::Wrong }
    }

    /// The same with what the person can do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it and gives the exit code. An empty message was printed already.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.message.is_empty() {
            eprintln!("error: {}", self.message);
        }
        if let Some(hint) = &self.hint {
            eprintln!("hint: {hint}");
        }
        ExitCode::from(self.code as u8)
    }
}

impl From<mlxctl_settings::Error> for Failure {
    fn from(error: mlxctl_settings::Error) -> Self {
        Self::wrong(error.to_string())
    }
}

/// Names and documents that a person gave; a document of the store arrives inside another error.
impl From<mlxctl_artifact::Error> for Failure {
    fn from(error: mlxctl_artifact::Error) -> Self {
        Self::wrong(error.to_string())
    }
}

impl From<mlxctl_store::Error> for Failure {
    fn from(error: mlxctl_store::Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self { hint, ..Self::new(error.to_string()) }
    }
}

impl From<mlxctl_content::Error> for Failure {
    fn from(error: mlxctl_content::Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self { hint, ..Self::new(error.to_string()) }
    }
}

impl From<mlxctl_layout::Error> for Failure {
    fn from(error: mlxctl_layout::Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self { hint, ..Self::new(error.to_string()) }
    }
}

impl From<mlxctl_hub::Error> for Failure {
    fn from(error: mlxctl_hub::Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        Self { hint, ..Self::new(error.to_string()) }
    }
}

impl From<mlxctl_registry::Error> for Failure {
    fn from(error: mlxctl_registry::Error) -> Self {
        mlxctl_content::Error::from(error).into()
    }
}

impl From<mlxctl_builder::Error> for Failure {
    fn from(error: mlxctl_builder::Error) -> Self {
        let hint = error.hint().map(str::to_owned);
        let code = if error.is_recipes_fault() { Code::Wrong } else { Code::Failed };
        Self { message: error.to_string(), hint, code }
    }
}

/// Every problem stands on a line of its own, ready for an editor to jump to.
impl From<mlxctl_modelspec::Invalid> for Failure {
    fn from(error: mlxctl_modelspec::Invalid) -> Self {
        Self::wrong(error.to_string())
    }
}
