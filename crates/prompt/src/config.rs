//! What the files beside the weights say about prompts: which tokens begin and end a text, which template applies.
//!
//! `mlxserve` builds a [`Prompt`] a mounted model. The rules are those of transformers 5 and mlx-lm.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::template::{ChatInput, ChatTemplate, WallClock};
use crate::{Error, TokenId, Tokenizer};

/// Largest configuration file read, in bytes.
const MAX_CONFIG_BYTES: usize = 32 << 20;
/// Most chat templates of one model.
const MAX_TEMPLATES: usize = 64;
/// The special tokens that a template can name.
const SPECIAL_TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The bytes of the files a prompt is made from; only `tokenizer.json` must be there.
#[derive(Debug, Clone, Copy, Default)]
pub struct PromptFiles<'a> {
    /// `tokenizer.json`
    pub tokenizer_json: Option<&'a [u8]>,
    /// `tokenizer_config.json`
    pub tokenizer_config: Option<&'a [u8]>,
    /// `special_tokens_map.json`, heard where `tokenizer_config.json` is silent.
    pub special_tokens_map: Option<&'a [u8]>,
    /// `generation_config.json`
    pub generation_config: Option<&'a [u8]>,
    /// `config.json`
    pub config: Option<&'a [u8]>,
    /// `chat_template.jinja`, or the template that a recipe names; with it those of `tokenizer_config.json` are unheard.
    pub chat_template: Option<&'a [u8]>,
    /// `additional_chat_templates/<name>.jinja`, by name.
    pub additional_chat_templates: &'a [(&'a str, &'a [u8])],
}

/// A conversation to be rendered.
#[derive(Debug, Clone, Copy)]
pub struct ChatRequest<'a> {
    /// OpenAI-shaped messages, an array of objects; see [`crate::openai_messages`].
    pub messages: &'a Value,
    /// OpenAI-shaped tools, an array of objects.
    pub tools: Option<&'a Value>,
    /// Whether the text ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Further variables for the template, such as `enable_thinking`.
    pub variables: &'a Map<String, Value>,
    /// What `strftime_now` tells.
    pub now: WallClock,
}

/// A model's way from conversations to tokens.
#[derive(Debug)]
pub struct Prompt {
    /// The tokenizer, shared with every stream.
    pub tokenizer: Arc<Tokenizer>,
    /// Tokens that end an answer.
    pub eos: BTreeSet<TokenId>,
    /// The token that begins a text, where the model has one.
    pub bos: Option<TokenId>,
    add_bos: Option<bool>,
    special_tokens: Map<String, Value>,
    templates: BTreeMap<String, Result<ChatTemplate, Error>>,
}

impl Prompt {
    /// Reads the files. A template that does not compile fails when it is used, so that a model whose template is
    /// broken still completes plain prompts; [`Prompt::check_templates`] tells at once.
    pub fn from_files(files: &PromptFiles<'_>) -> Result<Self, Error> {
        let json = files.tokenizer_json.ok_or(Error::Missing { file: "tokenizer.json" })?;
        let tokenizer = Tokenizer::from_json(json)?;
        let tokenizer_config = read("tokenizer_config.json", files.tokenizer_config)?;
        let special_tokens_map = read("special_tokens_map.json", files.special_tokens_map)?;
        let generation_config = read("generation_config.json", files.generation_config)?;
        let config = read("config.json", files.config)?;

        let special_tokens = special_tokens(&tokenizer_config, &special_tokens_map);
        let named = |name: &str| special_tokens.get(name).and_then(Value::as_str).and_then(|t| tokenizer.token_id(t));
        let text_config = config.get("text_config").and_then(Value::as_object);
        let of_config = |key: &str| config.get(key).or_else(|| text_config.and_then(|inner| inner.get(key)));

        let mut eos = ids("generation_config.json: eos_token_id", generation_config.get("eos_token_id"))?;
        // Zero alone counts as nothing said, as in Python.
        if eos.is_empty() || generation_config.get("eos_token_id").and_then(Value::as_u64) == Some(0) {
            eos = ids("config.json: eos_token_id", of_config("eos_token_id"))?;
        }
        eos.extend(named("eos_token"));
        let bos = match named("bos_token") {
            Some(bos) => Some(bos),
            None => ids("config.json: bos_token_id", of_config("bos_token_id"))?.first().copied(),
        };
        Ok(Self {
            eos,
            bos,
            add_bos: tokenizer_config.get("add_bos_token").and_then(Value::as_bool),
            templates: templates(files, &tokenizer_config)?,
            special_tokens,
            tokenizer: Arc::new(tokenizer),
        })
    }

    /// Whether the model has any chat template.
    pub fn has_template(&self) -> bool {
        !self.templates.is_empty()
    }

    /// The first template that does not compile, as its error.
    pub fn check_templates(&self) -> Result<(), Error> {
        self.templates.values().find_map(|template| template.as_ref().err()).map_or(Ok(()), |error| Err(error.clone()))
    }

    /// The template for a request: with tools the one named `tool_use` where there is one, else `default`.
    pub fn template(&self, with_tools: bool) -> Result<&ChatTemplate, Error> {
        let tool_use = if with_tools { self.templates.get("tool_use") } else { None };
        match tool_use.or_else(|| self.templates.get("default")) {
            Some(template) => template.as_ref().map_err(Clone::clone),
            None => Err(Error::NoTemplate { names: self.templates.keys().cloned().collect() }),
        }
    }

    /// The text of a conversation. Encode it with [`Prompt::encode_chat`].
    pub fn render_chat(&self, request: &ChatRequest<'_>) -> Result<String, Error> {
        self.template(request.tools.is_some())?.render(&ChatInput {
            messages: request.messages,
            tools: request.tools,
            add_generation_prompt: request.add_generation_prompt,
            special_tokens: &self.special_tokens,
            variables: request.variables,
            now: request.now,
        })
    }

    /// The tokens of a rendered conversation: the template wrote the special ones itself.
    pub fn encode_chat(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        self.tokenizer.encode(text, false)
    }

    /// The tokens of a plain prompt: with the model's special tokens, unless it begins with the first of them itself.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<TokenId>, Error> {
        let written = self.special_tokens.get("bos_token").and_then(Value::as_str);
        if written.is_some_and(|bos| !bos.is_empty() && text.starts_with(bos)) {
            return self.tokenizer.encode(text, false);
        }
        let mut tokens = self.tokenizer.encode(text, true)?;
        match (self.add_bos, self.bos) {
            (Some(true), Some(bos)) if tokens.first() != Some(&bos) => tokens.insert(0, bos),
            (Some(false), Some(bos)) if tokens.first() == Some(&bos) => drop(tokens.remove(0)),
            _ => {}
        }
        Ok(tokens)
    }

    /// The special tokens by name (`bos_token`, `eos_token`, …), as templates see them.
    pub fn special_tokens(&self) -> &Map<String, Value> {
        &self.special_tokens
    }
}

fn read(file: &str, bytes: Option<&[u8]>) -> Result<Map<String, Value>, Error> {
    let Some(bytes) = bytes else { return Ok(Map::new()) };
    if bytes.len() > MAX_CONFIG_BYTES {
        return Err(Error::TooLarge { file: file.into(), found: bytes.len(), limit: MAX_CONFIG_BYTES });
    }
    serde_json::from_slice(bytes).map_err(|error| Error::File { file: file.into(), reason: error.to_string() })
}

/// Special tokens are strings, or objects whose `content` is one.
fn special_tokens(tokenizer_config: &Map<String, Value>, map: &Map<String, Value>) -> Map<String, Value> {
    let text = |value: &Value| value.as_str().or_else(|| value.get("content")?.as_str()).map(Value::from);
    let find = |name: &&str| match tokenizer_config.get(*name) {
        Some(said) => text(said),
        None => map.get(*name).and_then(text),
    };
    SPECIAL_TOKENS.iter().filter_map(|name| Some(((*name).to_owned(), find(name)?))).collect()
}

/// One id, a list of ids, or null. Negative ids, which some files use for "none", name no token.
fn ids(place: &str, value: Option<&Value>) -> Result<BTreeSet<TokenId>, Error> {
    let unfit = |value: &Value| Error::File {
        file: place.split(':').next().unwrap_or(place).to_owned(),
        reason: format!("{place}: expected a token id or a list of them, found {}", brief(value)),
    };
    let one = |value: &Value| {
        let id = value.as_i64().ok_or_else(|| unfit(value))?;
        Ok(TokenId::try_from(id).ok())
    };
    match value {
        None | Some(Value::Null) => Ok(BTreeSet::new()),
        Some(Value::Array(list)) => list.iter().filter_map(|value| one(value).transpose()).collect(),
        Some(value) => Ok(one(value)?.into_iter().collect()),
    }
}

fn templates(
    files: &PromptFiles<'_>,
    tokenizer_config: &Map<String, Value>,
) -> Result<BTreeMap<String, Result<ChatTemplate, Error>>, Error> {
    let mut sources: Vec<(&str, &str)> = Vec::new();
    let default = files.chat_template.map(|bytes| ("default", bytes));
    for (name, bytes) in default.iter().chain(files.additional_chat_templates) {
        let source = std::str::from_utf8(bytes).map_err(|error| Error::File {
            file: format!("chat template {name:?}"),
            reason: format!("not UTF-8 after byte {}", error.valid_up_to()),
        })?;
        sources.push((name, source));
    }
    if sources.is_empty() {
        sources = configured(tokenizer_config)?;
    }
    if sources.len() > MAX_TEMPLATES {
        let reason = format!("{} chat templates are more than the {MAX_TEMPLATES} accepted", sources.len());
        return Err(Error::File { file: "tokenizer_config.json".into(), reason });
    }
    Ok(sources.into_iter().map(|(name, source)| (name.to_owned(), ChatTemplate::compile(source, name))).collect())
}

/// The templates of `tokenizer_config.json`: one string, or a list of names and templates.
fn configured(tokenizer_config: &Map<String, Value>) -> Result<Vec<(&str, &str)>, Error> {
    let unfit = |found: &Value| Error::File {
        file: "tokenizer_config.json".into(),
        reason: format!("chat_template: expected a string or a list of {{name, template}}, found {}", brief(found)),
    };
    match tokenizer_config.get("chat_template") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(source)) => Ok(vec![("default", source)]),
        Some(Value::Array(list)) => {
            let entry = |entry| Some((Value::get(entry, "name")?.as_str()?, Value::get(entry, "template")?.as_str()?));
            list.iter().map(|found| entry(found).ok_or_else(|| unfit(found))).collect()
        }
        Some(other) => Err(unfit(other)),
    }
}

fn brief(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}
