//! What the server answers. Fields that OpenAI's clients read as "null" are written so.

use serde::{Deserialize, Serialize};

/// A whole answer to a conversation.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct ChatCompletion {
    /// `chatcmpl-…`.
    pub id: String,
    /// `chat.completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model as the request named it.
    pub model: String,
    /// One a requested answer.
    pub choices: Vec<ChatChoice>,
    /// Tokens.
    pub usage: Usage,
    /// Digest, backend and kernel revision, shortened.
    pub system_fingerprint: String,
}

/// One answer of several.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct ChatChoice {
    /// Its place.
    pub index: u32,
    /// What the model said.
    pub message: Reply,
    /// Always null.
    pub logprobs: Option<serde_json::Value>,
    /// `stop` or `length`.
    pub finish_reason: String,
}

/// What the model said.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reply {
    /// `assistant`.
    pub role: String,
    /// The text.
    pub content: String,
    /// Always null.
    pub refusal: Option<String>,
}

/// One event of a streamed conversation.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct ChatChunk {
    /// The same in all chunks.
    pub id: String,
    /// `chat.completion.chunk`.
    pub object: String,
    /// Seconds since 1970, the same in all chunks.
    pub created: u64,
    /// The model as the request named it.
    pub model: String,
    /// Digest, backend and kernel revision, shortened.
    pub system_fingerprint: String,
    /// None in the chunk of usage.
    pub choices: Vec<ChatChunkChoice>,
    /// Where the request asked for usage: null but in the last chunk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}

/// What one event adds to one answer.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct ChatChunkChoice {
    /// Which answer.
    pub index: u32,
    /// What is added.
    pub delta: Delta,
    /// Always null.
    pub logprobs: Option<serde_json::Value>,
    /// In the last event of the answer: `stop` or `length`.
    pub finish_reason: Option<String>,
}

/// What is added.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Delta {
    /// `assistant`, in the first event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
}

/// A whole continuation, or one event of it: OpenAI uses one shape for both.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct Completion {
    /// `cmpl-…`.
    pub id: String,
    /// `text_completion`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model as the request named it.
    pub model: String,
    /// Digest, backend and kernel revision, shortened.
    pub system_fingerprint: String,
    /// One a requested answer; in a stream, what is added to one of them.
    pub choices: Vec<CompletionChoice>,
    /// Tokens; in a stream only where asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Option<Usage>>,
}

/// One continuation of several.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
pub struct CompletionChoice {
    /// Its place.
    pub index: u32,
    /// The text.
    pub text: String,
    /// Always null.
    pub logprobs: Option<serde_json::Value>,
    /// `stop` or `length`; null in all events of a stream but the last.
    pub finish_reason: Option<String>,
}

/// Tokens, counted by the engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Usage {
    /// Tokens of the prompts.
    pub prompt_tokens: u64,
    /// Tokens that were generated, the one that ended the answer included.
    pub completion_tokens: u64,
    /// Both together.
    pub total_tokens: u64,
    /// What of the prompt was not computed again.
    pub prompt_tokens_details: TokenDetails,
}

impl Usage {
    /// The usage of these counts.
    pub fn of(prompt_tokens: u64, completion_tokens: u64) -> Self {
        let total_tokens = prompt_tokens + completion_tokens;
        Self { prompt_tokens, completion_tokens, total_tokens, prompt_tokens_details: TokenDetails::default() }
    }
}

/// Details of a count of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct TokenDetails {
    /// Tokens whose keys and values were kept from an earlier request.
    pub cached_tokens: u64,
}

/// `GET /v1/models`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ModelList {
    /// `list`.
    pub object: String,
    /// The models.
    pub data: Vec<Model>,
}

/// A model that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Model {
    /// Its name.
    pub id: String,
    /// `model`.
    pub object: String,
    /// Seconds since 1970.
    pub created: u64,
    /// `mlxctl`, or whom the artifact names.
    pub owned_by: String,
    /// Not OpenAI's: the manifest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// An error.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct ErrorDetail {
    /// For the person.
    pub message: String,
    /// `invalid_request_error`, `server_error`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The field that is wrong.
    pub param: Option<String>,
    /// For programs, for example `model_not_found`.
    pub code: Option<String>,
}
