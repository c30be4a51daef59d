//! What can be wrong with a document or a name.

/// A name or a document that does not follow its specification.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not `<algorithm>:<lower-case hex>` of a supported algorithm.
    #[error("'{found}' is not a digest: {reason}")]
    Digest {
        /// The text as given, shortened.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Not `[registry/]repository[:tag][@digest]`.
    #[error("'{found}' is not a reference: {reason}")]
    Reference {
        /// The text as given, shortened.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A layer names a path outside the folder it is meant for.
    #[error("layer path {found:?} is refused: {reason}")]
    LayerPath {
        /// The path as the manifest gives it, shortened.
        found: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A manifest, index or configuration that cannot be read.
    #[error("{what} cannot be read: {reason}")]
    Document {
        /// Which document: "manifest", "index", "model configuration".
        what: &'static str,
        /// What was expected and what was found.
        reason: String,
    },
}

/// At most 120 characters of a foreign text, for a message.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(120) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
