//! What clients send. Fields that change the shape or the meaning of an answer and that this server does not know how
//! to honour are refused by name, never ignored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::invalid::{Checked, asks, within};
use crate::{Invalid, Message, Prompts, Strings, messages};

/// The most answers that one request may ask for: prompts × `n`.
pub const MAX_CHOICES: u32 = 16;

/// The most stop sequences of a request, as OpenAI has it.
const MAX_STOPS: usize = 4;

/// `POST /v1/chat/completions`.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
pub struct ChatRequest {
    /// The model, as in the store, or pinned: `name@sha256:…`.
    pub model: String,
    /// The conversation; at least one message.
    pub messages: Vec<Message>,
    /// Whether the answer comes as events; no where absent.
    pub stream: Option<bool>,
    /// What else a stream tells.
    pub stream_options: Option<StreamOptions>,
    /// Tokens of an answer at the most; the newer name.
    pub max_completion_tokens: Option<u32>,
    /// Tokens of an answer at the most.
    pub max_tokens: Option<u32>,
    /// 0 to 2; 0 is greedy.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// Not OpenAI's: the likeliest tokens; 0 is all.
    pub top_k: Option<u32>,
    /// Not OpenAI's: 0 to 1.
    pub min_p: Option<f64>,
    /// Not OpenAI's: divides the logits of tokens that came before.
    pub repetition_penalty: Option<f64>,
    /// −2 to 2.
    pub presence_penalty: Option<f64>,
    /// −2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Seed of the generator.
    pub seed: Option<i64>,
    /// The answer ends before the first of these.
    pub stop: Option<Strings>,
    /// Answers to the same conversation.
    pub n: Option<u32>,
    /// Tools, handed to the chat template.
    pub tools: Option<Vec<Value>>,
    /// `none` or `auto`.
    pub tool_choice: Option<Value>,
    /// Not OpenAI's: variables for the chat template.
    pub chat_template_kwargs: Option<serde_json::Map<String, Value>>,
    /// Only `{"type": "text"}`.
    pub response_format: Option<Value>,
    /// Refused where it asks for any.
    pub logprobs: Option<Value>,
    /// Refused where it asks for any.
    pub top_logprobs: Option<Value>,
    /// Added to the logits of these tokens, −100 to 100.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Refused where it holds any; `tools` replaced it.
    pub functions: Option<Value>,
    /// Only `["text"]`.
    pub modalities: Option<Value>,
    /// Refused.
    pub audio: Option<Value>,
}

impl ChatRequest {
    /// Tokens of an answer at the most, under either name.
    pub fn most_tokens(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// Whether a stream ends with a chunk of usage.
    pub fn includes_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true))
    }
}

impl Checked for ChatRequest {
    fn check(&self) -> Result<(), Invalid> {
        name(&self.model)?;
        if self.messages.is_empty() {
            return Err(Invalid::field("messages", "expected at least one message, found none"));
        }
        messages::check(&self.messages)?;
        within("max_completion_tokens", self.max_completion_tokens.map(f64::from), 1.0, f64::INFINITY)?;
        within("max_tokens", self.max_tokens.map(f64::from), 1.0, f64::INFINITY)?;
        sampling(self.temperature, self.top_p, self.presence_penalty, self.frequency_penalty)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        penalty("repetition_penalty", self.repetition_penalty)?;
        stops(self.stop.as_ref())?;
        choices(1, self.n)?;
        messages::check_tools(self.tools.as_deref().unwrap_or_default())?;
        match &self.tool_choice {
            None | Some(Value::Null) => {}
            Some(Value::String(choice)) if choice == "none" || choice == "auto" => {}
            Some(_) => return Err(Invalid::not_yet("tool_choice", "anything but \"none\" and \"auto\"")),
        }
        match self.response_format.as_ref().map(|format| format.get("type").and_then(Value::as_str)) {
            None | Some(Some("text")) => {}
            Some(Some(_)) => return Err(Invalid::not_yet("response_format", "a format other than text")),
            Some(None) => return Err(Invalid::field("response_format.type", "is required")),
        }
        match &self.modalities {
            Some(Value::Array(kinds)) if kinds.iter().any(|kind| kind.as_str() != Some("text")) => {
                return Err(Invalid::not_yet("modalities", "an answer other than text"));
            }
            _ => {}
        }
        refuse("logprobs", self.logprobs.as_ref())?;
        refuse("top_logprobs", self.top_logprobs.as_ref())?;
        biases(self.logit_bias.as_ref())?;
        refuse("functions", self.functions.as_ref())?;
        refuse("audio", self.audio.as_ref())
    }
}

/// `stream_options`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct StreamOptions {
    /// Whether the last chunk before `[DONE]` tells the usage.
    pub include_usage: Option<bool>,
}

/// `POST /v1/completions`.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct CompletionRequest {
    /// The model, as in the store, or pinned.
    pub model: String,
    /// What to continue.
    pub prompt: Prompts,
    /// Whether the answer comes as events; no where absent.
    pub stream: Option<bool>,
    /// What else a stream tells.
    pub stream_options: Option<StreamOptions>,
    /// Tokens of an answer at the most; 16 where neither the request nor the recipe says.
    pub max_tokens: Option<u32>,
    /// 0 to 2; 0 is greedy.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// Not OpenAI's: the likeliest tokens; 0 is all.
    pub top_k: Option<u32>,
    /// Not OpenAI's: 0 to 1.
    pub min_p: Option<f64>,
    /// Not OpenAI's: divides the logits of tokens that came before.
    pub repetition_penalty: Option<f64>,
    /// −2 to 2.
    pub presence_penalty: Option<f64>,
    /// −2 to 2.
    pub frequency_penalty: Option<f64>,
    /// Seed of the generator.
    pub seed: Option<i64>,
    /// The answer ends before the first of these.
    pub stop: Option<Strings>,
    /// Answers to each prompt.
    pub n: Option<u32>,
    /// Not more than `n`.
    pub best_of: Option<u32>,
    /// Whether the prompt stands before the answer.
    pub echo: Option<bool>,
    /// Refused where it is given, 0 included: it changes the answer's shape.
    pub logprobs: Option<Value>,
    /// Added to the logits of these tokens, −100 to 100.
    pub logit_bias: Option<BTreeMap<String, f64>>,
    /// Refused where it holds any.
    pub suffix: Option<Value>,
}

impl CompletionRequest {
    /// Whether a stream ends with a chunk of usage.
    pub fn includes_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage == Some(true))
    }
}

impl Checked for CompletionRequest {
    fn check(&self) -> Result<(), Invalid> {
        name(&self.model)?;
        if self.prompt.is_empty() {
            return Err(Invalid::field("prompt", "expected at least one prompt, found none"));
        }
        if let Prompts::Tokens(lists) = &self.prompt
            && lists.iter().any(Vec::is_empty)
        {
            return Err(Invalid::field("prompt", "expected at least one token, found none"));
        }
        within("max_tokens", self.max_tokens.map(f64::from), 1.0, f64::INFINITY)?;
        sampling(self.temperature, self.top_p, self.presence_penalty, self.frequency_penalty)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        penalty("repetition_penalty", self.repetition_penalty)?;
        stops(self.stop.as_ref())?;
        choices(self.prompt.len(), self.n)?;
        if self.best_of.is_some_and(|best| best > self.n.unwrap_or(1)) {
            return Err(Invalid::not_yet("best_of", "choosing the best of more answers than n"));
        }
        if self.logprobs.as_ref().is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false))) {
            return Err(Invalid::not_yet("logprobs", "reporting probabilities"));
        }
        if self.echo == Some(true) && matches!(self.prompt, Prompts::Tokens(_)) {
            return Err(Invalid::not_yet("echo", "echoing a prompt given as tokens"));
        }
        biases(self.logit_bias.as_ref())?;
        refuse("suffix", self.suffix.as_ref())
    }
}

fn name(model: &str) -> Result<(), Invalid> {
    if model.is_empty() {
        return Err(Invalid::field("model", "expected the name of a model, found an empty string"));
    }
    Ok(())
}

fn sampling(t: Option<f64>, top_p: Option<f64>, presence: Option<f64>, frequency: Option<f64>) -> Result<(), Invalid> {
    within("temperature", t, 0.0, 2.0)?;
    within("top_p", top_p, 0.0, 1.0)?;
    within("presence_penalty", presence, -2.0, 2.0)?;
    within("frequency_penalty", frequency, -2.0, 2.0)
}

fn penalty(field: &str, value: Option<f64>) -> Result<(), Invalid> {
    match value {
        Some(value) if value <= 0.0 => {
            Err(Invalid::field(field, format!("expected a number greater than 0, found {value}")))
        }
        _ => Ok(()),
    }
}

fn stops(stop: Option<&Strings>) -> Result<(), Invalid> {
    let Some(Strings(stops)) = stop else { return Ok(()) };
    if stops.len() > MAX_STOPS {
        return Err(Invalid::field("stop", format!("expected at most {MAX_STOPS} sequences, found {}", stops.len())));
    }
    if stops.iter().any(String::is_empty) {
        return Err(Invalid::field("stop", "an empty sequence would end every answer before it begins"));
    }
    Ok(())
}

fn choices(prompts: usize, n: Option<u32>) -> Result<(), Invalid> {
    let n = n.unwrap_or(1);
    let most = f64::from(MAX_CHOICES);
    within("n", Some(f64::from(n)), 1.0, most)?;
    if prompts as f64 * f64::from(n) > most {
        let reason = format!("expected at most {MAX_CHOICES} answers, {prompts} prompts × n = {n} are more");
        return Err(Invalid::field("prompt", reason));
    }
    Ok(())
}

fn biases(biases: Option<&BTreeMap<String, f64>>) -> Result<(), Invalid> {
    for (token, bias) in biases.into_iter().flatten() {
        if token.parse::<u32>().is_err() {
            return Err(Invalid::field("logit_bias", "expected token ids as keys, found another text"));
        }
        within("logit_bias", Some(*bias), -100.0, 100.0)?;
    }
    Ok(())
}

fn refuse(field: &str, value: Option<&Value>) -> Result<(), Invalid> {
    if asks(value) { Err(Invalid::not_yet(field, "this field")) } else { Ok(()) }
}
