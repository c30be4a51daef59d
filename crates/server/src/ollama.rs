//! Ollama's routes, under `/api`.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use futures_util::stream::unfold;
use mlxctl_api::ollama::{
    Chat, ChatRequest, GenerateRequest, Generated, ListedModel, Metrics, Options, Running, RunningModel, ShowRequest,
    Spoken, Tags, Version,
};
use mlxctl_api::{KeepAlive, Strings, read_request};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::app::{App, Payload, blocking, json, with_model};
use crate::ask::{Ask, Conversation, said};
use crate::clock::rfc3339;
use crate::fault::{Dialect, Fault};
use crate::run::{Run, Step};
use crate::show::{details, show};

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/api/version", get(version))
        .route("/api/tags", get(tags))
        .route("/api/ps", get(running))
        .route("/api/show", post(shown))
        .route("/api/generate", post(generate))
        .route("/api/chat", post(chat))
}

async fn version() -> Response {
    json(&Version { version: env!("CARGO_PKG_VERSION").to_owned() })
}

async fn tags(State(app): State<Arc<App>>) -> Result<Response, Fault> {
    let models = blocking(move || {
        let mut models = Vec::new();
        for one in app.catalogue.list()? {
            // A model whose documents are damaged is still listed; showing or loading it says what is wrong.
            let details = app.catalogue.files(&one.found).map(|files| details(&files, None)).unwrap_or_default();
            models.push(ListedModel {
                name: one.found.name.clone(),
                model: one.found.name,
                modified_at: rfc3339(one.modified),
                size: one.size,
                digest: one.found.digest.hex(),
                details,
            });
        }
        Ok(models)
    })
    .await?;
    Ok(json(&Tags { models }))
}

async fn running(State(app): State<Arc<App>>) -> Response {
    // Ollama writes the year 2318 for models that stay; any far day says the same.
    let never = SystemTime::now() + Duration::from_hours(100 * 365 * 24);
    let models = app.residency.list().into_iter().map(|resident| RunningModel {
        name: resident.name.clone(),
        model: resident.name,
        size: resident.model.size,
        digest: resident.model.digest.hex(),
        details: resident.model.card.clone(),
        expires_at: rfc3339(resident.expires.unwrap_or(never)),
        size_vram: 0,
        context_length: resident.model.context() as u64,
    });
    json(&Running { models: models.collect() })
}

async fn shown(State(app): State<Arc<App>>, Payload(body): Payload) -> Result<Response, Fault> {
    let request: ShowRequest = read_request(&body)?;
    let (digest, shown) = blocking(move || {
        let found = app.catalogue.find(request.wanted())?;
        let listed = app.catalogue.list()?.into_iter().find(|one| one.found.digest == found.digest);
        let files = app.catalogue.files(&found)?;
        let loaded = app.residency.list().into_iter().find(|resident| resident.model.digest == found.digest);
        let mut shown = show(&files, loaded.as_ref().map(|resident| &*resident.model))?;
        shown.modified_at = rfc3339(listed.map_or(SystemTime::UNIX_EPOCH, |one| one.modified));
        Ok((found.digest, shown))
    })
    .await?;
    Ok(with_model(json(&shown), &digest))
}

/// `keep_alive: 0` without anything to answer unloads the model.
fn unloads(keep_alive: Option<KeepAlive>) -> bool {
    keep_alive == Some(KeepAlive::For(Duration::ZERO))
}

async fn generate(State(app): State<Arc<App>>, Payload(body): Payload) -> Result<Response, Fault> {
    let started = Instant::now();
    let request: GenerateRequest = read_request(&body)?;
    let name = request.model.clone();
    let answer = |done_reason: &str| Generated {
        model: name.clone(),
        created_at: rfc3339(SystemTime::now()),
        done: true,
        done_reason: Some(done_reason.to_owned()),
        ..Generated::default()
    };
    if request.prompt.as_deref().unwrap_or_default().is_empty() {
        let (digest, reason) = load_or_unload(&app, &request.model, request.keep_alive).await?;
        return Ok(with_model(json(&answer(reason)), &digest));
    }
    let stream = request.stream != Some(false);
    let model = app.hold(&name, request.keep_alive).await?;
    let (run, prompt) = blocking(move || {
        let ask = asked(request.options.as_ref());
        let text = request.prompt.unwrap_or_default();
        let raw = request.raw == Some(true);
        let template = request.template.filter(|template| !template.is_empty());
        let plain = raw || (template.is_none() && !model.prompt.has_template());
        let mut prompt = request.context.unwrap_or_default();
        if plain {
            // Further text of a conversation under way has no beginning of its own.
            let more = if prompt.is_empty() {
                model.prompt.encode_plain(&text)?
            } else {
                model.prompt.tokenizer.encode(&text, false)?
            };
            prompt.extend(more);
        } else {
            let system = request.system.filter(|system| !system.is_empty());
            let messages = system.iter().map(|system| said("system", system)).chain([said("user", &text)]).collect();
            let variables = thinking(request.think.as_ref());
            prompt.extend(
                Conversation { messages, tools: None, variables, template, under_way: !prompt.is_empty() }
                    .tokens(&model)?,
            );
        }
        let request = ask.request(&model, Dialect::Ollama, prompt.clone(), 0)?;
        Ok((Run::submit(model, vec![request], 1, started)?, prompt))
    })
    .await?;
    lines(GenerateLines { model: name, context: prompt }, run, stream).await
}

async fn chat(State(app): State<Arc<App>>, Payload(body): Payload) -> Result<Response, Fault> {
    let started = Instant::now();
    let request: ChatRequest = read_request(&body)?;
    let name = request.model.clone();
    let messages = request.messages.unwrap_or_default();
    if messages.is_empty() {
        let (digest, reason) = load_or_unload(&app, &name, request.keep_alive).await?;
        let answer = ChatLines { model: name }.end(reason, None, None);
        return Ok(with_model(json(&answer), &digest));
    }
    let stream = request.stream != Some(false);
    let model = app.hold(&name, request.keep_alive).await?;
    let run = blocking(move || {
        let ask = asked(request.options.as_ref());
        let variables = thinking(request.think.as_ref());
        let conversation = Conversation { messages, tools: request.tools, variables, ..Conversation::default() };
        let prompt = conversation.tokens(&model)?;
        let request = ask.request(&model, Dialect::Ollama, prompt, 0)?;
        Run::submit(model, vec![request], 1, started)
    })
    .await?;
    lines(ChatLines { model: name }, run, stream).await
}

async fn load_or_unload(
    app: &Arc<App>,
    name: &str,
    keep_alive: Option<KeepAlive>,
) -> Result<(mlxctl_artifact::Digest, &'static str), Fault> {
    if unloads(keep_alive) {
        let (app, name) = (app.clone(), name.to_owned());
        return blocking(move || {
            let found = app.catalogue.find(&name)?;
            app.residency.unload(&found.digest);
            Ok((found.digest, "unload"))
        })
        .await;
    }
    let model = app.hold(name, keep_alive).await?;
    Ok((model.digest, "load"))
}

fn asked(options: Option<&Options>) -> Ask {
    let Some(options) = options.cloned() else { return Ask::default() };
    Ask {
        temperature: options.temperature,
        top_p: options.top_p,
        // −1 is all, as 0.
        top_k: options.top_k.map(|k| u32::try_from(k.max(0)).unwrap_or(0)),
        min_p: options.min_p,
        seed: options.seed.map(|seed| seed as u64),
        repetition_penalty: options.repeat_penalty,
        presence_penalty: options.presence_penalty,
        frequency_penalty: options.frequency_penalty,
        penalty_window: options.repeat_last_n.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
        stop: options.stop.map(|Strings(stops)| stops).unwrap_or_default(),
        // Negative is as many as there is room for; 0 would be no answer at all, and is read as 1.
        max_tokens: options.num_predict.and_then(|n| usize::try_from(n).ok()).map(|n| n.max(1)),
        context: options.num_ctx.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0),
        logit_bias: Vec::new(),
    }
}

/// `think` as templates know it.
fn thinking(think: Option<&Value>) -> Map<String, Value> {
    let mut variables = Map::new();
    match think {
        Some(Value::Bool(think)) => {
            variables.insert("enable_thinking".to_owned(), (*think).into());
        }
        Some(Value::String(effort)) => {
            variables.insert("enable_thinking".to_owned(), true.into());
            variables.insert("reasoning_effort".to_owned(), effort.clone().into());
        }
        _ => {}
    }
    variables
}

/// How a kind of answer is told in lines.
trait Lines: Send + 'static {
    type Line: Serialize + Send;
    /// Text that was added.
    fn text(&mut self, text: String, token: Option<u32>) -> Self::Line;
    /// The last line, with all of the text where the answer is not streamed.
    fn end(&self, reason: &str, text: Option<String>, metrics: Option<Metrics>) -> Self::Line;
}

struct GenerateLines {
    model: String,
    /// The tokens of the conversation so far.
    context: Vec<u32>,
}

impl Lines for GenerateLines {
    type Line = Generated;

    fn text(&mut self, response: String, token: Option<u32>) -> Generated {
        self.context.extend(token);
        let created_at = rfc3339(SystemTime::now());
        Generated { model: self.model.clone(), created_at, response, ..Generated::default() }
    }

    fn end(&self, reason: &str, text: Option<String>, metrics: Option<Metrics>) -> Generated {
        Generated {
            model: self.model.clone(),
            created_at: rfc3339(SystemTime::now()),
            response: text.unwrap_or_default(),
            done: true,
            done_reason: Some(reason.to_owned()),
            context: Some(self.context.clone()),
            metrics,
        }
    }
}

struct ChatLines {
    model: String,
}

impl Lines for ChatLines {
    type Line = Chat;

    fn text(&mut self, content: String, _: Option<u32>) -> Chat {
        let message = Spoken { role: "assistant".to_owned(), content };
        Chat { model: self.model.clone(), created_at: rfc3339(SystemTime::now()), message, ..Chat::default() }
    }

    fn end(&self, reason: &str, text: Option<String>, metrics: Option<Metrics>) -> Chat {
        Chat {
            model: self.model.clone(),
            created_at: rfc3339(SystemTime::now()),
            message: Spoken { role: "assistant".to_owned(), content: text.unwrap_or_default() },
            done: true,
            done_reason: Some(reason.to_owned()),
            metrics,
        }
    }
}

fn metrics(run: &Run) -> Metrics {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Metrics {
        total_duration: nanos(run.elapsed()),
        load_duration: nanos(run.model.load_time),
        prompt_eval_count: run.prompt_tokens,
        prompt_eval_duration: nanos(run.timings.prefill),
        eval_count: run.generated_tokens,
        eval_duration: nanos(run.timings.decode),
    }
}

/// An answer line by line, or whole.
async fn lines(mut kind: impl Lines, mut run: Run, stream: bool) -> Result<Response, Fault> {
    let digest = run.model.digest;
    if stream {
        run.streaming = true;
        let body = Body::from_stream(unfold(Some((kind, run)), |state| async move {
            let (mut kind, mut run) = state?;
            loop {
                match run.next().await {
                    Some(Ok(Step::Token { token, text, .. })) => {
                        let silent = text.is_empty();
                        let said = line(&kind.text(text, Some(token)));
                        if !silent {
                            return Some((Ok::<Bytes, std::convert::Infallible>(said.into()), Some((kind, run))));
                        }
                    }
                    Some(Ok(Step::End { text, reason, end, .. })) => {
                        let mut bytes = Vec::new();
                        let silent = text.is_empty();
                        let last = line(&kind.text(text, end));
                        if !silent {
                            bytes.extend(last);
                        }
                        bytes.extend(line(&kind.end(reason, None, Some(metrics(&run)))));
                        return Some((Ok(bytes.into()), None));
                    }
                    Some(Err(fault)) => {
                        let mut bytes = fault.body(Dialect::Ollama);
                        bytes.push(b'\n');
                        return Some((Ok(bytes.into()), None));
                    }
                    None => return None,
                }
            }
        }));
        return Ok(with_model(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response(), &digest));
    }
    let mut whole = String::new();
    let mut ended = "stop";
    while let Some(step) = run.next().await {
        match step? {
            Step::Token { token, text, .. } => {
                whole.push_str(&text);
                kind.text(String::new(), Some(token));
            }
            Step::End { text, reason, end, .. } => {
                whole.push_str(&text);
                kind.text(String::new(), end);
                ended = reason;
            }
        }
    }
    Ok(with_model(json(&kind.end(ended, Some(whole), Some(metrics(&run)))), &digest))
}

fn line(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
