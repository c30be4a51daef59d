//! Why a model cannot be loaded or run.

/// What is wrong with a configuration, the weights, or a step.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// config.json is not a JSON object.
    #[error("config.json: {reason}")]
    NotConfig {
        /// What was found, with line and column where the parser tells them.
        reason: String,
    },
    /// A field of config.json has a value that no model has, or is absent.
    #[error("config.json: `{key}`: expected {expected}, found {found}")]
    Config {
        /// Path of the field, as in `rope_scaling.factor`.
        key: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A family that is not known here.
    #[error("config.json: `model_type`: {found} is not a family this runtime knows; it knows {known}")]
    UnknownFamily {
        /// What config.json says.
        found: String,
        /// The families, separated by commas.
        known: String,
    },
    /// The weights do not fit the configuration.
    #[error(transparent)]
    Weights(#[from] mlxctl_weights::Error),
    /// The checkpoint holds tensors that the configured model has no use for.
    #[error(
        "the weights hold {count} tensors that config.json does not account for, such as {examples}; \
         config.json belongs to another model"
    )]
    UnusedTensors {
        /// How many.
        count: usize,
        /// Some of their names.
        examples: String,
    },
    /// A step that the model cannot compute.
    #[error("a batch that cannot be computed: {reason}")]
    Batch {
        /// What is amiss.
        reason: String,
    },
    /// The device failed, or cannot take a weight.
    #[error(transparent)]
    Backend(#[from] mlxctl_backend::Error),
    /// The device cannot take the weights of a module.
    #[error("module `{module}`: {source}")]
    Mount {
        /// The module's path.
        module: String,
        /// What the device says.
        source: mlxctl_backend::Error,
    },
}
