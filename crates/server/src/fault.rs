//! What goes wrong with a request, and how each dialect says so. Handlers return a [`Fault`]; it travels to the edge,
//! which knows the path and hence the dialect, and is written there.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mlxctl_api::{Invalid, ollama, openai};
use mlxctl_engine::Refused;

use crate::Error;

/// A request that is not answered as it was asked.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
    /// The field that is wrong.
    param: Option<String>,
    /// For programs.
    code: Option<&'static str>,
}

/// Who speaks, by the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    OpenAi,
    Ollama,
}

impl Dialect {
    pub(crate) fn of_path(path: &str) -> Self {
        if path == "/v1" || path.starts_with("/v1/") { Self::OpenAi } else { Self::Ollama }
    }
}

impl Fault {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    /// A field whose value is wrong.
    pub(crate) fn field(field: &str, message: impl std::fmt::Display) -> Self {
        Self { param: Some(field.to_owned()), ..Self::new(StatusCode::BAD_REQUEST, format!("{field}: {message}")) }
    }

    pub(crate) fn coded(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// The body in a dialect.
    pub(crate) fn body(&self, dialect: Dialect) -> Vec<u8> {
        let written = match dialect {
            Dialect::Ollama => serde_json::to_vec(&ollama::ErrorBody { error: self.message.clone() }),
            Dialect::OpenAi => serde_json::to_vec(&openai::ErrorBody {
                error: openai::ErrorDetail {
                    message: self.message.clone(),
                    kind: self.kind().to_owned(),
                    param: self.param.clone(),
                    code: self.code.map(str::to_owned),
                },
            }),
        };
        written.unwrap_or_else(|_| b"{}".to_vec())
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        }
    }

    /// The whole answer in a dialect.
    pub(crate) fn write(&self, dialect: Dialect) -> Response {
        let mut response = (self.status, self.body(dialect)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<Invalid> for Fault {
    fn from(invalid: Invalid) -> Self {
        let code = matches!(invalid, Invalid::Unsupported { .. }).then_some("unsupported_parameter");
        let param = invalid.name().map(str::to_owned);
        Self { status: StatusCode::BAD_REQUEST, message: invalid.to_string(), param, code }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::UnknownModel { .. } => {
                let param = Some("model".to_owned());
                Self { status: StatusCode::NOT_FOUND, message, param, code: Some("model_not_found") }
            }
            Error::Ambiguous { .. } => {
                Self { param: Some("model".to_owned()), ..Self::new(StatusCode::BAD_REQUEST, message) }
            }
            _ => Self::internal(message),
        }
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        let message = refused.to_string();
        match refused {
            Refused::TooLong { .. } => Self::new(StatusCode::BAD_REQUEST, message).coded("context_length_exceeded"),
            Refused::EmptyPrompt | Refused::Vocabulary { .. } | Refused::Sampling { .. } => {
                Self::new(StatusCode::BAD_REQUEST, message)
            }
            Refused::Overloaded { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, message).coded("overloaded"),
            Refused::Stopped { .. } => Self::internal(message),
        }
    }
}

impl From<mlxctl_prompt::Error> for Fault {
    fn from(error: mlxctl_prompt::Error) -> Self {
        use mlxctl_prompt::Error as Prompt;
        let message = error.to_string();
        match error {
            Prompt::Messages { .. } | Prompt::Refused { .. } => {
                Self { param: Some("messages".to_owned()), ..Self::new(StatusCode::BAD_REQUEST, message) }
            }
            Prompt::Stop { .. } => {
                Self { param: Some("stop".to_owned()), ..Self::new(StatusCode::BAD_REQUEST, message) }
            }
            Prompt::NoTemplate { .. } => Self::new(StatusCode::BAD_REQUEST, message),
            _ => Self::internal(message),
        }
    }
}
