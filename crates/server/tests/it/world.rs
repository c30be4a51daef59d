//! The application over Pebble, and requests to it.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use mlxserve::{App, Catalogue, Guard, MountOptions, router, start_engine};
use serde_json::{Value, json};
use tower::ServiceExt as _;

/// The folder of the demo model.
pub(crate) fn pebble() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../modelspecs/pebble/weights")
}

/// Options fit for a test: two threads, a small pool.
pub(crate) fn options() -> MountOptions {
    let mut options = MountOptions { threads: std::num::NonZeroUsize::MIN, ..MountOptions::default() };
    options.engine.kv_bytes = 64 << 20;
    options
}

/// An application, ready, with Pebble mounted under the name `weights`.
pub(crate) async fn mounted(options: MountOptions) -> Arc<App> {
    let app = unmounted(options);
    app.mount(&[], &[(pebble(), None)]).await.unwrap();
    app
}

/// The same before anything is mounted.
pub(crate) fn unmounted(options: MountOptions) -> Arc<App> {
    let catalogue = Catalogue::new(None, None);
    App::new(catalogue, start_engine().unwrap(), options, Guard::new("127.0.0.1", &[]))
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    /// The JSON of each line, or of each event.
    pub(crate) fn parts(&self) -> Vec<Value> {
        let text = self.text();
        let lines = text.lines().map(|line| line.strip_prefix("data: ").unwrap_or(line));
        lines.filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Sends a request as it is.
pub(crate) async fn send(app: &Arc<App>, request: Request<Body>) -> Answer {
    let response = router(app.clone()).oneshot(request).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
    Answer { status, headers, body }
}

pub(crate) async fn get(app: &Arc<App>, path: &str) -> Answer {
    let request = Request::builder().uri(path).header("host", "localhost").body(Body::empty()).unwrap();
    send(app, request).await
}

pub(crate) async fn post(app: &Arc<App>, path: &str, body: Value) -> Answer {
    let request = Request::builder().method(Method::POST).uri(path).header("host", "localhost");
    send(app, request.body(Body::from(body.to_string())).unwrap()).await
}

/// The question whose answer Pebble knows.
pub(crate) fn france(more: Value) -> Value {
    let messages = json!([{"role": "user", "content": "What is the capital of France?"}]);
    let mut body = json!({"model": "weights", "messages": messages});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}
