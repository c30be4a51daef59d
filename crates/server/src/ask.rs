//! From a request of any dialect to one of the engine: who decides on each parameter, and the tokens of the prompt.
//!
//! A parameter is the request's, else the recipe's, else that of the model's `generation_config.json` (`do_sample:
//! false` is temperature 0), else the dialect's own default.

use std::sync::Arc;

use mlxctl_api::Message;
use mlxctl_backend::{Sampling, TokenId};
use mlxctl_engine::Request;
use mlxctl_prompt::{ChatInput, ChatRequest, ChatTemplate, Error as PromptError, StopStrings, TextStream, WallClock};
use serde_json::{Map, Value};

use crate::clock::unix_seconds;
use crate::fault::{Dialect, Fault};
use crate::model::LoadedModel;

/// How many of the last tokens Ollama's penalties look at where nobody says.
const OLLAMA_PENALTY_WINDOW: usize = 64;

/// What a request says of the way its answer is made; nothing where it leaves that to the model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ask {
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    pub(crate) top_k: Option<u32>,
    pub(crate) min_p: Option<f64>,
    pub(crate) seed: Option<u64>,
    pub(crate) repetition_penalty: Option<f64>,
    pub(crate) presence_penalty: Option<f64>,
    pub(crate) frequency_penalty: Option<f64>,
    /// Tokens that the penalties look back on.
    pub(crate) penalty_window: Option<usize>,
    pub(crate) stop: Vec<String>,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) logit_bias: Vec<(TokenId, f32)>,
    /// Tokens of prompt and answer together.
    pub(crate) context: Option<usize>,
}

impl Ask {
    /// How tokens are chosen.
    pub(crate) fn sampling(&self, model: &LoadedModel, dialect: Dialect) -> Sampling {
        let (recipe, file) = (&model.spec.parameters, &model.generation);
        let greedy = file.do_sample == Some(false);
        let of_file = |value: Option<f64>| if greedy { None } else { value };
        // OpenAI's reference, and what Ollama's parameters page says.
        let (temperature, top_p, top_k) = match dialect {
            Dialect::OpenAi => (1.0, 1.0, 0),
            Dialect::Ollama => (0.8, 0.9, 40),
        };
        let temperature = self
            .temperature
            .or(recipe.temperature)
            .or(if greedy { Some(0.0) } else { file.temperature })
            .unwrap_or(temperature);
        let window = match dialect {
            Dialect::OpenAi => model.context(),
            Dialect::Ollama => OLLAMA_PENALTY_WINDOW,
        };
        Sampling {
            temperature: temperature as f32,
            top_p: self.top_p.or(recipe.top_p).or(of_file(file.top_p)).unwrap_or(top_p) as f32,
            top_k: self.top_k.or(recipe.top_k).or(if greedy { None } else { file.top_k }).unwrap_or(top_k) as usize,
            min_p: self.min_p.or(recipe.min_p).or(of_file(file.min_p)).unwrap_or(0.0) as f32,
            seed: self.seed.or(recipe.seed),
            repetition_penalty: self
                .repetition_penalty
                .or(recipe.repetition_penalty)
                .or(file.repetition_penalty)
                .unwrap_or(1.0) as f32,
            presence_penalty: self.presence_penalty.unwrap_or(0.0) as f32,
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0) as f32,
            penalty_window: self.penalty_window.unwrap_or(window).min(model.context()),
            logit_bias: self.logit_bias.clone(),
        }
    }

    /// The engine's request. The `choice`th answer to one prompt has a seed of its own.
    pub(crate) fn request(
        &self,
        model: &LoadedModel,
        dialect: Dialect,
        prompt: Vec<TokenId>,
        choice: u32,
    ) -> Result<Request, Fault> {
        let mut sampling = self.sampling(model, dialect);
        sampling.seed = sampling.seed.map(|seed| seed.wrapping_add(u64::from(choice)));
        let stop = if self.stop.is_empty() { &model.spec.parameters.stop } else { &self.stop };
        let stops = StopStrings::new(stop.iter().cloned())?;
        let mut max_tokens = self.max_tokens.or(model.spec.parameters.max_tokens.map(|most| most as usize));
        if let Some(context) = self.context {
            let room = context.checked_sub(prompt.len()).filter(|room| *room > 0).ok_or_else(|| {
                Fault::field(
                    "options.num_ctx",
                    format!(
                        "the prompt has {} tokens, the context of {context} leaves no room for an answer",
                        prompt.len()
                    ),
                )
            })?;
            max_tokens = Some(max_tokens.map_or(room, |most| most.min(room)));
        }
        let entropy = getrandom::u64().map_err(|error| Fault::internal(format!("no randomness: {error}")))?;
        Ok(Request {
            prompt,
            sampling,
            entropy,
            max_tokens,
            eos: Arc::new(model.prompt.eos.clone()),
            ignore_eos: false,
            text: TextStream::new(&model.prompt.tokenizer, &stops),
        })
    }
}

/// A conversation to be answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conversation {
    pub(crate) messages: Vec<Message>,
    pub(crate) tools: Option<Vec<Value>>,
    /// Further variables for the template.
    pub(crate) variables: Map<String, Value>,
    /// A template in place of the model's.
    pub(crate) template: Option<String>,
    /// It goes on from tokens that the request brings, so that the recipe's system prompt stands there already.
    pub(crate) under_way: bool,
}

impl Conversation {
    /// The tokens of the prompt. The recipe's system prompt stands first where the conversation has none.
    pub(crate) fn tokens(mut self, model: &LoadedModel) -> Result<Vec<TokenId>, Fault> {
        for message in &mut self.messages {
            if message.get("role").and_then(Value::as_str) == Some("developer") {
                message.insert("role".to_owned(), "system".into());
            }
        }
        let has_system =
            self.messages.iter().any(|message| message.get("role").and_then(Value::as_str) == Some("system"));
        if let (false, Some(system)) = (has_system || self.under_way, &model.spec.system) {
            self.messages.insert(0, said("system", system));
        }
        let messages = Value::Array(self.messages.into_iter().map(Value::Object).collect());
        let messages = mlxctl_prompt::openai_messages(&messages)?;
        let tools = self.tools.filter(|tools| !tools.is_empty()).map(Value::Array);
        let now = WallClock::utc(unix_seconds(std::time::SystemTime::now()) as i64);
        let text = match &self.template {
            None => model.prompt.render_chat(&ChatRequest {
                messages: &messages,
                tools: tools.as_ref(),
                add_generation_prompt: true,
                variables: &self.variables,
                now,
            })?,
            Some(source) => {
                let wrong = |error: PromptError| Fault::field("template", error);
                let template = ChatTemplate::compile(source, "of the request").map_err(wrong)?;
                let input = ChatInput {
                    messages: &messages,
                    tools: tools.as_ref(),
                    add_generation_prompt: true,
                    special_tokens: model.prompt.special_tokens(),
                    variables: &self.variables,
                    now,
                };
                template.render(&input).map_err(wrong)?
            }
        };
        Ok(model.prompt.encode_chat(&text)?)
    }
}

/// A message of a role.
pub(crate) fn said(role: &str, content: &str) -> Message {
    let mut message = Map::new();
    message.insert("role".to_owned(), role.into());
    message.insert("content".to_owned(), content.into());
    message
}
