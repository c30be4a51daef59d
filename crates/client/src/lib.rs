//! A typed client of a running `mlxserve`, over its native routes. The command line talks through it.

mod lines;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client as Connections;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use mlxctl_api::ollama::{Chat, ChatRequest, ErrorBody, GenerateRequest, Generated, Running, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest answer that is read whole, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens there, or the connection broke.
    #[error("{address}: {reason}")]
    Unreachable {
        /// Where the call went.
        address: String,
        /// What the connection said.
        reason: String,
    },
    /// The server refused or failed.
    #[error("{message}")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// The server's own words.
        message: String,
    },
    /// The answer is not what the route gives.
    #[error("{address}: the answer is not {expected}: {reason}")]
    Malformed {
        /// Where the call went.
        address: String,
        /// What was expected.
        expected: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Answers piece by piece as the server makes them.
pub type Pieces<T> = BoxStream<'static, Result<T, Error>>;

/// A running server. Cheap to clone; connections are kept.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    connections: Connections<HttpConnector, Full<Bytes>>,
}

impl Client {
    /// The server at `host:port`; an IPv6 address stands in brackets.
    pub fn new(authority: &str) -> Self {
        let connections = Connections::builder(TokioExecutor::new()).build_http();
        Self { base: format!("http://{authority}"), connections }
    }

    /// The server's version.
    pub async fn version(&self) -> Result<Version, Error> {
        self.whole(Method::GET, "/api/version", &()).await
    }

    /// Whether the server has mounted its models. A server that answers "not yet" gives its reason.
    pub async fn is_ready(&self) -> Result<Result<(), String>, Error> {
        match self.call(Method::GET, "/healthz", &()).await {
            Ok(_) => Ok(Ok(())),
            Err(Error::Answered { status: 503, message }) => Ok(Err(message)),
            Err(error) => Err(error),
        }
    }

    /// The models in memory.
    pub async fn running(&self) -> Result<Running, Error> {
        self.whole(Method::GET, "/api/ps", &()).await
    }

    /// Continues a prompt, piece by piece.
    pub async fn generate(&self, request: &GenerateRequest) -> Result<Pieces<Generated>, Error> {
        self.pieces("/api/generate", request).await
    }

    /// Answers a conversation, piece by piece.
    pub async fn chat(&self, request: &ChatRequest) -> Result<Pieces<Chat>, Error> {
        self.pieces("/api/chat", request).await
    }

    async fn whole<T: DeserializeOwned>(&self, method: Method, path: &str, body: &impl Serialize) -> Result<T, Error> {
        let answer = self.call(method, path, body).await?;
        let bytes = self.read(answer, path).await?;
        serde_json::from_slice(&bytes).map_err(|error| self.malformed(path, "JSON of this route", error.to_string()))
    }

    async fn pieces<T: DeserializeOwned + Send + 'static>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<Pieces<T>, Error> {
        let answer = self.call(Method::POST, path, body).await?;
        let address = format!("{}{path}", self.base);
        let broken = {
            let address = address.clone();
            move |error: hyper::Error| Error::Unreachable { address: address.clone(), reason: causes(&error) }
        };
        let bytes = answer.into_data_stream().map_err(broken);
        let parse = move |line: Result<Vec<u8>, Error>| {
            let line = line?;
            if let Ok(ErrorBody { error }) = serde_json::from_slice(&line) {
                return Err(Error::Answered { status: 500, message: error });
            }
            serde_json::from_slice(&line).map_err(|error| Error::Malformed {
                address: address.clone(),
                expected: "a line of JSON",
                reason: error.to_string(),
            })
        };
        Ok(lines::lines(bytes).map(parse).boxed())
    }

    /// Sends a request; an answer that is no success becomes an error with the server's message.
    async fn call(&self, method: Method, path: &str, body: &impl Serialize) -> Result<Incoming, Error> {
        let address = format!("{}{path}", self.base);
        let body = if method == Method::GET { Vec::new() } else { serde_json::to_vec(body).unwrap_or_default() };
        let request = Request::builder()
            .method(method)
            .uri(&address)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Error::Unreachable { address: address.clone(), reason: error.to_string() })?;
        let answer = self.connections.request(request).await;
        let answer = answer.map_err(|error| Error::Unreachable { address, reason: causes(&error) })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let bytes = self.read(answer.into_body(), path).await?;
        let message = match serde_json::from_slice::<serde_json::Value>(&bytes) {
            Ok(value) => ["error", "reason", "status"]
                .iter()
                .find_map(|key| value[*key].as_str().map(str::to_owned))
                .unwrap_or_else(|| value.to_string()),
            Err(_) => String::from_utf8_lossy(&bytes).chars().filter(|c| !c.is_control()).take(500).collect(),
        };
        Err(Error::Answered { status: status.as_u16(), message })
    }

    async fn read(&self, body: Incoming, path: &str) -> Result<Bytes, Error> {
        let read = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
        Ok(read.map_err(|error| self.malformed(path, "an answer of bounded size", error.to_string()))?.to_bytes())
    }

    fn malformed(&self, path: &str, expected: &'static str, reason: String) -> Error {
        Error::Malformed { address: format!("{}{path}", self.base), expected, reason }
    }
}

/// An error with its causes, the innermost last: the first alone often says no more than "error sending request".
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
