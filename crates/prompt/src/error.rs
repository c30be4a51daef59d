//! What can go wrong between text and tokens, for whoever mounts a model or sends a request.

use thiserror::Error;

/// An error of this crate. The variants of files speak to the author of the artifact, [`Error::Stop`] and
/// [`Error::Messages`] to the sender of a request.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is larger than anything a model needs.
    #[error("{file} has {found} bytes, more than the {limit} accepted")]
    TooLarge {
        /// Name of the file inside the artifact.
        file: String,
        /// Size in bytes.
        found: usize,
        /// Largest size in bytes.
        limit: usize,
    },
    /// The artifact has no `tokenizer.json`.
    #[error("the model has no {file}; it is needed to turn text into tokens")]
    Missing {
        /// Name of the file that is absent.
        file: &'static str,
    },
    /// A file is not what its name promises.
    #[error("{file} cannot be read: {reason}")]
    File {
        /// Name of the file inside the artifact.
        file: String,
        /// What was expected and found, with line and column where the parser knows them.
        reason: String,
    },
    /// The tokenizer failed on a text or on token ids.
    #[error("the tokenizer failed to {action}: {reason}")]
    Tokenizer {
        /// `encode` or `decode`.
        action: &'static str,
        /// The library's words.
        reason: String,
    },
    /// The model has no chat template of that name.
    #[error("the model has no chat template{}; send a plain prompt, or name a template in the recipe", known(.names))]
    NoTemplate {
        /// Names of the templates it has.
        names: Vec<String>,
    },
    /// A chat template does not compile.
    #[error("chat template {template:?}, line {line}: {reason}")]
    TemplateSyntax {
        /// Name of the template.
        template: String,
        /// Line in the template, from 1.
        line: usize,
        /// What the parser expected.
        reason: String,
    },
    /// A chat template failed on these messages.
    #[error("chat template {template:?} failed{}: {reason}", at(*.line))]
    Render {
        /// Name of the template.
        template: String,
        /// Line in the template, from 1.
        line: Option<usize>,
        /// The engine's words.
        reason: String,
    },
    /// A chat template refused these messages by `raise_exception`: the request is wrong, in the template's own words.
    #[error("chat template {template:?} refuses the messages: {reason}")]
    Refused {
        /// Name of the template.
        template: String,
        /// What the template said.
        reason: String,
    },
    /// A chat template took too many steps: it loops for ever, or nearly so.
    #[error("chat template {template:?} was stopped after {limit} steps; does it loop for ever?")]
    TemplateRuns {
        /// Name of the template.
        template: String,
        /// Steps allowed for one rendering.
        limit: u64,
    },
    /// A chat template writes too much.
    #[error("chat template {template:?} was stopped after writing {limit} bytes")]
    TemplateOutput {
        /// Name of the template.
        template: String,
        /// Bytes allowed for one rendering.
        limit: usize,
    },
    /// The messages are not an array of objects.
    #[error("messages: {reason}")]
    Messages {
        /// What was expected and found.
        reason: String,
    },
    /// A stop string is not usable.
    #[error("stop: {reason}")]
    Stop {
        /// What was expected and found.
        reason: String,
    },
}

fn known(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" for this request (it has {})", names.join(", ")) }
}

fn at(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(" on line {line}"))
}
