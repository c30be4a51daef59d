//! OpenAI's dialect: `/v1/chat/completions`, `/v1/completions`, `/v1/models`.

mod answers;
mod requests;

pub use answers::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, Completion, CompletionChoice, Delta, ErrorBody,
    ErrorDetail, Model, ModelList, Reply, TokenDetails, Usage,
};
pub use requests::{ChatRequest, CompletionRequest, MAX_CHOICES, StreamOptions};
