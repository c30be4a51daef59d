//! The HTTP application: routes, what all of them share, and the edge that every request passes.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::FutureExt as _;
use mlxctl_api::KeepAlive;
use mlxctl_artifact::Digest;
use serde::Serialize;
use serde_json::json;

use crate::catalogue::Catalogue;
use crate::fault::{Dialect, Fault};
use crate::guard::Guard;
use crate::model::MountOptions;
use crate::residency::{InUse, Residency};
use crate::{Error, ollama, openai};

/// The largest request body, in bytes.
const MAX_BODY_BYTES: usize = 16 << 20;
/// The longest wait for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest `x-request-id` of a client that is kept.
const MAX_REQUEST_ID: usize = 128;

/// Whether requests are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not all models named at the start are mounted; what is going on.
    Starting(String),
    Ready,
    Stopping,
}

/// What all routes share.
pub struct App {
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) residency: Arc<Residency>,
    guard: Guard,
    phase: Mutex<Phase>,
}

impl App {
    /// An application over these models, all of them mounted on one engine.
    pub fn new(
        catalogue: Catalogue,
        engine: Arc<mlxctl_engine::Engine>,
        options: MountOptions,
        guard: Guard,
    ) -> Arc<Self> {
        let residency = Arc::new(Residency::new(engine, options));
        let phase = Mutex::new(Phase::Starting("nothing is mounted yet".to_owned()));
        Arc::new(Self { catalogue: Arc::new(catalogue), residency, guard, phase })
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn enter(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Mounts the models named at the start, which then stay, and is ready.
    pub async fn mount(&self, names: &[String], folders: &[(PathBuf, Option<Digest>)]) -> Result<(), Error> {
        let mut wanted = names.to_vec();
        for (path, digest) in folders {
            self.enter(Phase::Starting(format!("reading {}", path.display())));
            let (catalogue, path, digest) = (self.catalogue.clone(), path.clone(), *digest);
            wanted.push(apart("reading a folder", move || catalogue.add_folder(&path, digest)).await?);
        }
        for name in wanted {
            self.enter(Phase::Starting(format!("mounting {name}")));
            let catalogue = self.catalogue.clone();
            let found = apart("looking a model up", move || catalogue.find(&name)).await?;
            self.residency.hold(&self.catalogue, &found, Some(KeepAlive::Forever)).await?;
        }
        self.enter(Phase::Ready);
        Ok(())
    }

    /// The model of this name, loaded and held.
    pub(crate) async fn hold(&self, name: &str, keep_alive: Option<KeepAlive>) -> Result<Arc<InUse>, Fault> {
        let (catalogue, wanted) = (self.catalogue.clone(), name.to_owned());
        let found = blocking(move || Ok(catalogue.find(&wanted)?)).await;
        let found = match (found, self.phase()) {
            // It may be one of those that are on their way.
            (Err(fault), Phase::Starting(reason)) if fault.status == StatusCode::NOT_FOUND => {
                let message = format!("{}; the server is still starting: {reason}", fault.message);
                return Err(Fault::new(StatusCode::SERVICE_UNAVAILABLE, message).coded("starting"));
            }
            (found, _) => found?,
        };
        Ok(Arc::new(self.residency.hold(&self.catalogue, &found, keep_alive).await?))
    }

    /// Unloads models whose time is up; runs as long as the daemon.
    pub async fn reap(self: Arc<Self>) {
        self.residency.clone().reap().await;
    }
}

/// All routes behind the edge.
pub fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(|| async { "mlxserve is running" }))
        .route("/healthz", get(ready))
        .route("/ready", get(ready))
        .route("/health", get(ready))
        .route("/api/health", get(ready))
        .route("/live", get(|| async { json(&json!({"status": "ok"})) }))
        .route("/ping", get(|| async { json(&json!({"status": "ok"})) }))
        .merge(ollama::routes())
        .merge(openai::routes())
        .fallback(|request: Request| async move {
            let path: String = request.uri().path().chars().take(200).collect();
            Fault::new(StatusCode::NOT_FOUND, format!("there is no route {} {path}", request.method()))
                .coded("not_found")
        })
        .method_not_allowed_fallback(|request: Request| async move {
            let path: String = request.uri().path().chars().take(200).collect();
            let message = format!("{path} does not take {}", request.method());
            Fault::new(StatusCode::METHOD_NOT_ALLOWED, message).coded("method_not_allowed")
        })
        .with_state(app.clone())
        .layer(from_fn_with_state(app, edge))
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.phase() {
        Phase::Ready => {
            let models = app.residency.list();
            let first = models.first();
            let mut capabilities = first.map(|one| one.model.spec.capabilities.clone()).unwrap_or_default();
            if capabilities.is_empty() && first.is_some() {
                capabilities = vec!["completion".to_owned()];
            }
            let model = first.map(|one| one.name.clone());
            json(&json!({"status": "ok", "model": model, "dimensions": null, "capabilities": capabilities}))
        }
        other => {
            let (status, reason) = match other {
                Phase::Starting(reason) => ("starting", reason),
                _ => ("stopping", "the daemon is shutting down".to_owned()),
            };
            let mut response = json(&json!({"status": status, "reason": reason}));
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
            response
        }
    }
}

/// Guards, names, logs and, where something went wrong, writes the answer in the path's dialect.
async fn edge(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let dialect = Dialect::of_path(&path);
    let id = request_id(request.headers());
    let departure = Departure { method: method.clone(), path: path.clone(), started, id: id.clone(), answered: false };
    let mut response = match app.guard.check(&method, request.uri(), request.headers()) {
        Err(fault) => fault.into_response(),
        Ok(()) => std::panic::AssertUnwindSafe(next.run(request)).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(%method, path, "a handler panicked");
            Fault::internal("the server failed on this request").into_response()
        }),
    };
    if let Some(fault) = response.extensions_mut().remove::<Fault>() {
        let mut written = fault.write(dialect);
        // What a handler or the router had to add, such as `Allow`.
        for (name, value) in response.headers() {
            if !written.headers().contains_key(name) && name != "content-length" {
                written.headers_mut().insert(name, value.clone());
            }
        }
        response = written;
    }
    departure.answered();
    let (status, ms) = (response.status().as_u16(), started.elapsed().as_millis());
    tracing::info!(status, %method, path = path.chars().take(200).collect::<String>(), ms, id, "request");
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response
}

/// Notes a client that goes away before its answer begins: its connection then drops the request's future.
struct Departure {
    method: Method,
    path: String,
    started: Instant,
    id: String,
    answered: bool,
}

impl Departure {
    fn answered(mut self) {
        self.answered = true;
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if !self.answered {
            let Self { method, path, id, .. } = self;
            let ms = self.started.elapsed().as_millis();
            tracing::info!(status = 499, %method, path, ms, id, "client went away");
        }
    }
}

/// The client's name for the request where it is fit for a log, else one of ours.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    let fits = |id: &&str| !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(|b| b.is_ascii_graphic());
    match given.filter(fits) {
        Some(id) => id.to_owned(),
        None => format!("{:016x}", getrandom::u64().unwrap_or_default()),
    }
}

/// A request's body, whole, whatever its content type says.
pub(crate) struct Payload(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Fault;

    async fn from_request(request: Request, _: &S) -> Result<Self, Fault> {
        let too_large = || {
            let message = format!("the request body is larger than the {MAX_BODY_BYTES} bytes accepted");
            Fault::new(StatusCode::PAYLOAD_TOO_LARGE, message).coded("body_too_large")
        };
        let body: Body = request.into_body();
        if body.size_hint().lower() > MAX_BODY_BYTES as u64 {
            return Err(too_large());
        }
        let read = tokio::time::timeout(BODY_TIMEOUT, axum::body::to_bytes(body, MAX_BODY_BYTES)).await;
        match read {
            Err(_) => Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "the request body did not come in time")),
            Ok(Ok(bytes)) => Ok(Self(bytes)),
            Ok(Err(error)) => {
                let limited = std::error::Error::source(&error).is_some_and(|e| e.to_string().contains("limit"));
                if limited || error.to_string().contains("limit") {
                    return Err(too_large());
                }
                Err(Fault::new(StatusCode::BAD_REQUEST, format!("the request body broke off: {error}")))
            }
        }
    }
}

/// Runs what computes or reads files away from the threads that serve connections.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            tracing::error!(%error, "a request's work panicked");
            Err(Fault::internal("the server failed on this request"))
        }
    }
}

/// Runs what blocks while the daemon starts.
pub(crate) async fn apart<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal { what, reason: error.to_string() })?
}

/// A JSON answer.
pub(crate) fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => ([("content-type", "application/json")], bytes).into_response(),
        Err(error) => Fault::internal(format!("an answer could not be written: {error}")).into_response(),
    }
}

/// The same answer with the digest of the model that gave it.
pub(crate) fn with_model(mut response: Response, digest: &Digest) -> Response {
    if let Ok(value) = HeaderValue::from_str(&digest.to_string()) {
        response.headers_mut().insert("x-model-digest", value);
    }
    response
}
