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
