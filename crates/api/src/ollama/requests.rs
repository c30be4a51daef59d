//! What clients send to `/api/generate`, `/api/chat` and `/api/show`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::invalid::{Checked, asks};
use crate::ollama::Options;
use crate::{Invalid, KeepAlive, Message, messages};

/// `POST /api/generate`. An empty prompt loads the model; `keep_alive: 0` with it unloads the model.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct GenerateRequest {
    /// The model, as in the store, or pinned: `name@sha256:…`.
    pub model: String,
    /// What the user says, or with `raw` what to continue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// In place of the recipe's system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// A Jinja chat template in place of the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The tokens of the conversation so far, as an earlier answer gave them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Vec<u32>>,
    /// Whether the answer comes line by line; yes where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// Whether the prompt is taken as it is, without template and system prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw: Option<bool>,
    /// How long the model stays loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
    /// How the answer is sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
    /// Refused where it holds any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
    /// Refused where it holds any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images: Option<Value>,
    /// Refused where it holds any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suffix: Option<Value>,
    /// Whether the model thinks aloud, as its template has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<Value>,
    /// Refused where it asks for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Value>,
    /// Refused where it asks for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<Value>,
}

impl Checked for GenerateRequest {
    fn check(&self) -> Result<(), Invalid> {
        name(&self.model)?;
        self.options.iter().try_for_each(Options::check)?;
        refuse("format", self.format.as_ref(), "a format other than text")?;
        refuse("images", self.images.as_ref(), "reading images")?;
        refuse("suffix", self.suffix.as_ref(), "filling in before a suffix")?;
        refuse("logprobs", self.logprobs.as_ref(), "reporting probabilities")?;
        refuse("top_logprobs", self.top_logprobs.as_ref(), "reporting probabilities")
    }
}

/// `POST /api/chat`. No messages loads the model; `keep_alive: 0` with them unloads it.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct ChatRequest {
    /// The model, as in the store, or pinned.
    pub model: String,
    /// The conversation.
    #[serde(default)]
    pub messages: Option<Vec<Message>>,
    /// Tools, handed to the chat template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<Value>>,
    /// Whether the answer comes line by line; yes where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<bool>,
    /// How long the model stays loaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<KeepAlive>,
    /// How the answer is sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Options>,
    /// Refused where it holds any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<Value>,
    /// Whether the model thinks aloud, as its template has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub think: Option<Value>,
    /// Refused where it asks for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprobs: Option<Value>,
    /// Refused where it asks for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_logprobs: Option<Value>,
}

impl Checked for ChatRequest {
    fn check(&self) -> Result<(), Invalid> {
        name(&self.model)?;
        messages::check(self.messages.as_deref().unwrap_or_default())?;
        messages::check_tools(self.tools.as_deref().unwrap_or_default())?;
        self.options.iter().try_for_each(Options::check)?;
        refuse("format", self.format.as_ref(), "a format other than text")?;
        refuse("logprobs", self.logprobs.as_ref(), "reporting probabilities")?;
        refuse("top_logprobs", self.top_logprobs.as_ref(), "reporting probabilities")
    }
}

/// `POST /api/show`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct ShowRequest {
    /// The model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The model, as older clients name the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ShowRequest {
    /// The model, under either name; the check has made sure that there is one.
    pub fn wanted(&self) -> &str {
        self.model.as_deref().or(self.name.as_deref()).unwrap_or_default()
    }
}

impl Checked for ShowRequest {
    fn check(&self) -> Result<(), Invalid> {
        name(self.wanted())
    }
}

fn name(model: &str) -> Result<(), Invalid> {
    if model.is_empty() {
        return Err(Invalid::field("model", "expected the name of a model, found none"));
    }
    Ok(())
}

fn refuse(field: &str, value: Option<&Value>, what: &str) -> Result<(), Invalid> {
    if asks(value) { Err(Invalid::not_yet(field, what)) } else { Ok(()) }
}
