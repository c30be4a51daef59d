//! Why a model cannot be mounted, and why a request is not taken.

/// A model that cannot be mounted on a device.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// Its weights cannot be loaded.
    #[error("{message}")]
    Load {
        /// What the factory said.
        message: String,
    },
    /// The KV pool cannot be made.
    #[error("no room for {blocks} blocks of keys and values: {source}")]
    Pool {
        /// Blocks asked for.
        blocks: usize,
        /// What the device said.
        source: mlxctl_backend::Error,
    },
    /// The engine thread is gone, or could not be started.
    #[error("the engine thread '{name}' {reason}")]
    Thread {
        /// The thread's name.
        name: String,
        /// What happened to it.
        reason: String,
    },
}

/// A request that was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is nothing to go on from.
    #[error("the prompt has no tokens; expected at least one")]
    EmptyPrompt,
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {prompt} tokens, the context of {context} leaves no room for an answer")]
    TooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens of prompt and answer together at the most.
        context: usize,
    },
    /// A token that the model does not have.
    #[error("token {token} is not in the vocabulary of {vocabulary} tokens")]
    Vocabulary {
        /// The token.
        token: u32,
        /// Tokens of the model, from 0 up.
        vocabulary: usize,
    },
    /// A parameter of the sampling is out of its range.
    #[error("{message}")]
    Sampling {
        /// Which, what was expected and what was found.
        message: String,
    },
    /// Too many requests are running or waiting.
    #[error("{open} requests are running or waiting, as many as are taken; try again later")]
    Overloaded {
        /// How many there are.
        open: usize,
    },
    /// The model is gone for good.
    #[error("the model has stopped: {reason}")]
    Stopped {
        /// Why.
        reason: String,
    },
}
