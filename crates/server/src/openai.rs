//! OpenAI's routes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream::unfold;
use mlxctl_api::openai::{
    ChatChoice, ChatChunk, ChatChunkChoice, ChatCompletion, ChatRequest, Completion, CompletionChoice,
    CompletionRequest, Delta, Model, ModelList, Reply, Usage,
};
use mlxctl_api::{Prompts, Strings, read_request};
use serde::Serialize;

use crate::app::{App, Payload, blocking, json, with_model};
use crate::ask::{Ask, Conversation};
use crate::clock::unix_seconds;
use crate::fault::{Dialect, Fault};
use crate::residency::InUse;
use crate::run::{Run, Step};

/// Tokens of a completion where neither the request nor the recipe says, as OpenAI has it.
const COMPLETION_TOKENS: usize = 16;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/models", get(models))
        .route("/v1/models/{*id}", get(model))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(complete))
}

async fn models(State(app): State<Arc<App>>) -> Result<Response, Fault> {
    let listed = blocking(move || Ok(app.catalogue.list()?)).await?;
    let data = listed
        .into_iter()
        .map(|one| entry(one.found.name, one.found.digest.to_string(), unix_seconds(one.modified)))
        .collect();
    Ok(json(&ModelList { object: "list".to_owned(), data }))
}

async fn model(State(app): State<Arc<App>>, id: Result<Path<String>, PathRejection>) -> Result<Response, Fault> {
    let Path(id) = id.map_err(|error| Fault::new(StatusCode::NOT_FOUND, error.body_text()))?;
    let wanted = id.clone();
    let (found, created) = blocking(move || {
        let found = app.catalogue.find(&wanted)?;
        let listed = app.catalogue.list()?.into_iter().find(|one| one.found.digest == found.digest);
        let created = listed.map_or(0, |one| unix_seconds(one.modified));
        Ok((found, created))
    })
    .await?;
    let digest = found.digest;
    Ok(with_model(json(&entry(id, digest.to_string(), created)), &digest))
}

fn entry(id: String, digest: String, created: u64) -> Model {
    Model { id, object: "model".to_owned(), created, owned_by: "mlxctl".to_owned(), digest: Some(digest) }
}

async fn chat(State(app): State<Arc<App>>, Payload(body): Payload) -> Result<Response, Fault> {
    let started = Instant::now();
    let request: ChatRequest = read_request(&body)?;
    let name = request.model.clone();
    let (stream, usage, n) = (request.stream == Some(true), request.includes_usage(), request.n.unwrap_or(1));
    let model = app.hold(&name, None).await?;
    let run = blocking(move || {
        let ask = Ask { max_tokens: request.most_tokens().map(|most| most as usize), ..asked(&request) };
        let none = request.tool_choice.as_ref().and_then(|choice| choice.as_str()) == Some("none");
        let conversation = Conversation {
            messages: request.messages,
            tools: request.tools.filter(|_| !none),
            variables: request.chat_template_kwargs.unwrap_or_default(),
            ..Conversation::default()
        };
        let prompt = conversation.tokens(&model)?;
        let requests = (0..n).map(|choice| ask.request(&model, Dialect::OpenAi, prompt.clone(), choice));
        let requests = requests.collect::<Result<Vec<_>, _>>()?;
        Run::submit(model, requests, 1, started)
    })
    .await?;
    let answer = Answer::of("chatcmpl", &run.model, name);
    let digest = run.model.digest;
    let response = if stream {
        events(ChatEvents { answer, usage }, run, n as usize)
    } else {
        answer.whole_chat(run, n as usize).await?
    };
    Ok(with_model(response, &digest))
}

fn asked(request: &ChatRequest) -> Ask {
    Ask {
        temperature: request.temperature,
        top_p: request.top_p,
        top_k: request.top_k,
        min_p: request.min_p,
        seed: request.seed.map(|seed| seed as u64),
        repetition_penalty: request.repetition_penalty,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        logit_bias: biases(request.logit_bias.as_ref()),
        stop: request.stop.clone().map(|Strings(stops)| stops).unwrap_or_default(),
        ..Ask::default()
    }
}

fn biases(biases: Option<&BTreeMap<String, f64>>) -> Vec<(u32, f32)> {
    let read = |(token, bias): (&String, &f64)| Some((token.parse().ok()?, *bias as f32));
    biases.into_iter().flatten().filter_map(read).collect()
}

async fn complete(State(app): State<Arc<App>>, Payload(body): Payload) -> Result<Response, Fault> {
    let started = Instant::now();
    let request: CompletionRequest = read_request(&body)?;
    let name = request.model.clone();
    let (stream, usage, n) = (request.stream == Some(true), request.includes_usage(), request.n.unwrap_or(1));
    let count = request.prompt.len() * n as usize;
    let model = app.hold(&name, None).await?;
    let echo = request.echo == Some(true);
    let (run, echoes) = blocking(move || {
        let recipe = model.spec.parameters.max_tokens;
        let most = request.max_tokens.or(recipe).map_or(COMPLETION_TOKENS, |most| most as usize);
        let ask = Ask {
            temperature: request.temperature,
            top_p: request.top_p,
            top_k: request.top_k,
            min_p: request.min_p,
            seed: request.seed.map(|seed| seed as u64),
            repetition_penalty: request.repetition_penalty,
            presence_penalty: request.presence_penalty,
            frequency_penalty: request.frequency_penalty,
            logit_bias: biases(request.logit_bias.as_ref()),
            stop: request.stop.map(|Strings(stops)| stops).unwrap_or_default(),
            max_tokens: Some(most),
            ..Ask::default()
        };
        let mut echoes = vec![String::new(); count];
        let prompts = match request.prompt {
            Prompts::Tokens(lists) => lists,
            Prompts::Texts(texts) => {
                if echo {
                    let each = texts.iter().flat_map(|text| std::iter::repeat_n(text.clone(), n as usize));
                    echoes = each.collect();
                }
                texts.iter().map(|text| model.prompt.encode_plain(text)).collect::<Result<_, _>>()?
            }
        };
        let different = prompts.len();
        let mut requests = Vec::new();
        for prompt in prompts {
            for choice in 0..n {
                requests.push(ask.request(&model, Dialect::OpenAi, prompt.clone(), choice)?);
            }
        }
        Ok((Run::submit(model, requests, different, started)?, echoes))
    })
    .await?;
    let answer = Answer::of("cmpl", &run.model, name);
    let digest = run.model.digest;
    let response = if stream {
        events(CompletionEvents { answer, usage, echoes }, run, count)
    } else {
        answer.whole_completion(run, echoes).await?
    };
    Ok(with_model(response, &digest))
}

/// What all parts of an answer have in common.
struct Answer {
    id: String,
    created: u64,
    model: String,
    system_fingerprint: String,
}

impl Answer {
    fn of(kind: &str, model: &InUse, name: String) -> Self {
        let id = format!("{kind}-{:016x}", getrandom::u64().unwrap_or_default());
        let created = unix_seconds(SystemTime::now());
        Self { id, created, model: name, system_fingerprint: model.fingerprint.clone() }
    }

    async fn whole_chat(self, run: Run, n: usize) -> Result<Response, Fault> {
        let (texts, usage) = collect(run, vec![String::new(); n]).await?;
        let choices = (0_u32..)
            .zip(texts)
            .map(|(index, (content, reason))| ChatChoice {
                index,
                message: Reply { role: "assistant".to_owned(), content, refusal: None },
                logprobs: None,
                finish_reason: reason.to_owned(),
            })
            .collect();
        let Self { id, created, model, system_fingerprint } = self;
        let object = "chat.completion".to_owned();
        Ok(json(&ChatCompletion { id, object, created, model, choices, usage, system_fingerprint }))
    }

    async fn whole_completion(self, run: Run, echoes: Vec<String>) -> Result<Response, Fault> {
        let (texts, usage) = collect(run, echoes).await?;
        let choices = (0_u32..).zip(texts).map(|(index, (text, reason))| (index, text, Some(reason))).collect();
        Ok(json(&self.completion(choices, Some(Some(usage)))))
    }

    #[allow(clippy::option_option, reason = "absent and null are two things on the wire")]
    fn completion(&self, choices: Vec<(u32, String, Option<&str>)>, usage: Option<Option<Usage>>) -> Completion {
        let choices = choices
            .into_iter()
            .map(|(index, text, reason)| CompletionChoice {
                index,
                text,
                logprobs: None,
                finish_reason: reason.map(str::to_owned),
            })
            .collect();
        Completion {
            id: self.id.clone(),
            object: "text_completion".to_owned(),
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: self.system_fingerprint.clone(),
            choices,
            usage,
        }
    }
}

/// Waits for all answers: each text, appended to what stands before it, with why it ended.
async fn collect(mut run: Run, before: Vec<String>) -> Result<(Vec<(String, &'static str)>, Usage), Fault> {
    let mut texts: Vec<(String, &'static str)> = before.into_iter().map(|text| (text, "stop")).collect();
    while let Some(step) = run.next().await {
        match step? {
            Step::Token { index, text, .. } => texts[index as usize].0.push_str(&text),
            Step::End { index, text, reason, .. } => {
                texts[index as usize].0.push_str(&text);
                texts[index as usize].1 = reason;
            }
        }
    }
    Ok((texts, Usage::of(run.prompt_tokens, run.generated_tokens)))
}

/// How a kind of answer is told in events.
trait Events: Send + 'static {
    /// Before any token.
    fn open(&self, index: u32) -> Option<Bytes>;
    /// Text that was added, or the end.
    fn part(&self, index: u32, text: String, reason: Option<&str>) -> Bytes;
    /// Usage, where it was asked for.
    fn usage(&self, usage: Usage) -> Option<Bytes>;
}

struct ChatEvents {
    answer: Answer,
    usage: bool,
}

impl ChatEvents {
    fn chunk(&self, choices: Vec<ChatChunkChoice>, usage: Option<Usage>) -> Bytes {
        let Answer { id, created, model, system_fingerprint } = &self.answer;
        event(&ChatChunk {
            id: id.clone(),
            object: "chat.completion.chunk".to_owned(),
            created: *created,
            model: model.clone(),
            system_fingerprint: system_fingerprint.clone(),
            choices,
            usage: self.usage.then_some(usage),
        })
    }
}

impl Events for ChatEvents {
    fn open(&self, index: u32) -> Option<Bytes> {
        let delta = Delta { role: Some("assistant".to_owned()), content: Some(String::new()) };
        Some(self.chunk(vec![ChatChunkChoice { index, delta, logprobs: None, finish_reason: None }], None))
    }

    fn part(&self, index: u32, text: String, reason: Option<&str>) -> Bytes {
        let content = if reason.is_some() { None } else { Some(text) };
        let delta = Delta { role: None, content };
        let finish_reason = reason.map(str::to_owned);
        self.chunk(vec![ChatChunkChoice { index, delta, logprobs: None, finish_reason }], None)
    }

    fn usage(&self, usage: Usage) -> Option<Bytes> {
        self.usage.then(|| self.chunk(Vec::new(), Some(usage)))
    }
}

struct CompletionEvents {
    answer: Answer,
    usage: bool,
    echoes: Vec<String>,
}

impl Events for CompletionEvents {
    fn open(&self, index: u32) -> Option<Bytes> {
        let echo = self.echoes.get(index as usize).filter(|echo| !echo.is_empty())?;
        Some(self.part(index, echo.clone(), None))
    }

    fn part(&self, index: u32, text: String, reason: Option<&str>) -> Bytes {
        event(&self.answer.completion(vec![(index, text, reason)], self.usage.then_some(None)))
    }

    fn usage(&self, usage: Usage) -> Option<Bytes> {
        self.usage.then(|| event(&self.answer.completion(Vec::new(), Some(Some(usage)))))
    }
}

/// An answer in server-sent events, ending in `[DONE]`, or in an error where it fails.
fn events(kind: impl Events, mut run: Run, n: usize) -> Response {
    run.streaming = true;
    let waiting: VecDeque<Bytes> = (0..n as u32).filter_map(|index| kind.open(index)).collect();
    let stream = unfold((kind, Some(run), waiting), |(kind, mut run, mut waiting)| async move {
        loop {
            if let Some(frame) = waiting.pop_front() {
                return Some((Ok::<Bytes, std::convert::Infallible>(frame), (kind, run, waiting)));
            }
            let current = run.as_mut()?;
            match current.next().await {
                Some(Ok(Step::Token { index, text, .. })) => {
                    if !text.is_empty() {
                        waiting.push_back(kind.part(index, text, None));
                    }
                }
                Some(Ok(Step::End { index, text, reason, .. })) => {
                    if !text.is_empty() {
                        waiting.push_back(kind.part(index, text, None));
                    }
                    waiting.push_back(kind.part(index, String::new(), Some(reason)));
                }
                Some(Err(fault)) => {
                    waiting.push_back(framed(&fault.body(Dialect::OpenAi)));
                    run = None;
                }
                None => {
                    waiting.extend(kind.usage(Usage::of(current.prompt_tokens, current.generated_tokens)));
                    waiting.push_back(framed(b"[DONE]"));
                    run = None;
                }
            }
        }
    });
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(stream)).into_response()
}

fn event(value: &impl Serialize) -> Bytes {
    framed(&serde_json::to_vec(value).unwrap_or_default())
}

fn framed(data: &[u8]) -> Bytes {
    [b"data: ", data, b"\n\n"].concat().into()
}
