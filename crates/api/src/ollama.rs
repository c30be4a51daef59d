//! Ollama's dialect: the native routes under `/api`.

mod answers;
mod options;
mod requests;

pub use answers::{
    Chat, Details, ErrorBody, Generated, ListedModel, Metrics, Running, RunningModel, Shown, Spoken, Tags, Version,
};
pub use options::Options;
pub use requests::{ChatRequest, GenerateRequest, ShowRequest};
