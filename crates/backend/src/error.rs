//! What a device can answer beside a result.

/// A failed operation of a device, or weights that it cannot take.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A weight whose type or shape the operation does not take.
    #[error("{operation} takes {expected}, got {found}")]
    Unsupported {
        /// The operation.
        operation: &'static str,
        /// What it takes.
        expected: String,
        /// What it was given.
        found: String,
    },
    /// The device ran out of memory.
    #[error("the device has no memory for {what}")]
    OutOfMemory {
        /// What was asked for, with its size in bytes.
        what: String,
    },
    /// A parameter of sampling out of its range.
    #[error("`{parameter}`: expected {expected}, found {found}")]
    Sampling {
        /// The parameter.
        parameter: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Logits that no token can be chosen by.
    #[error("the model gave {found}, expected finite logits; its weights are damaged or not fit for this device")]
    Logits {
        /// What is among them.
        found: String,
    },
    /// The device failed.
    #[error("the device failed in {operation}: {message}")]
    Device {
        /// The operation.
        operation: &'static str,
        /// The device's own words.
        message: String,
    },
}

/// The result of an operation.
pub type Result<T> = std::result::Result<T, Error>;
