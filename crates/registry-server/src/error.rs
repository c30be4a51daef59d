//! What the registry answers when it does not do what it was asked: the specification's codes and their statuses.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use mlxctl_content::Error as ContentError;
use serde_json::json;

/// A refused request (distribution specification, "Error codes").
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("no blob {0} here")]
    BlobUnknown(String),
    #[error("{0}")]
    UploadInvalid(String),
    #[error("no upload {0} here; it may have been finished or cancelled")]
    UploadUnknown(String),
    #[error("the upload goes on at byte {offset}; {reason}")]
    UploadRange { offset: u64, reason: String, location: String },
    #[error("{0}")]
    DigestInvalid(String),
    #[error("the manifest refers to {0}, which is not here: push it first")]
    ManifestBlobUnknown(String),
    #[error("{0}")]
    ManifestInvalid(String),
    #[error("the manifest is larger than 4 MiB")]
    ManifestTooLarge,
    #[error("no manifest {0} here")]
    ManifestUnknown(String),
    #[error("'{0}' is no repository: lower-case letters and digits, separated by '.', '_', '-' or '/'")]
    NameInvalid(String),
    #[error("no repository {0} here")]
    NameUnknown(String),
    #[error("{0}")]
    PageInvalid(String),
    #[error("the blob has {size} bytes: the range lies outside")]
    RangeOutside { size: u64 },
    #[error("the blob is larger than the {0} bytes that this registry takes")]
    BlobTooLarge(u64),
    #[error("this registry wants a user and a password")]
    Unauthorized,
    #[error("{0}")]
    Denied(String),
    #[error("{0}")]
    Unsupported(String),
    #[error("there is nothing at this address")]
    NoSuchAddress,
    #[error("the store failed: {0}")]
    Store(ContentError),
}

impl Error {
    fn code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BlobUnknown(_) => (StatusCode::NOT_FOUND, "BLOB_UNKNOWN"),
            Self::UploadInvalid(_) => (StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID"),
            Self::UploadUnknown(_) => (StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN"),
            Self::UploadRange { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID"),
            Self::DigestInvalid(_) => (StatusCode::BAD_REQUEST, "DIGEST_INVALID"),
            Self::ManifestBlobUnknown(_) => (StatusCode::BAD_REQUEST, "MANIFEST_BLOB_UNKNOWN"),
            Self::ManifestInvalid(_) => (StatusCode::BAD_REQUEST, "MANIFEST_INVALID"),
            Self::ManifestTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "MANIFEST_INVALID"),
            Self::ManifestUnknown(_) => (StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN"),
            Self::NameInvalid(_) => (StatusCode::BAD_REQUEST, "NAME_INVALID"),
            Self::NameUnknown(_) => (StatusCode::NOT_FOUND, "NAME_UNKNOWN"),
            Self::PageInvalid(_) => (StatusCode::BAD_REQUEST, "PAGINATION_NUMBER_INVALID"),
            Self::RangeOutside { .. } => (StatusCode::RANGE_NOT_SATISFIABLE, "SIZE_INVALID"),
            Self::BlobTooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "UNAUTHORIZED"),
            Self::Denied(_) => (StatusCode::FORBIDDEN, "DENIED"),
            Self::Unsupported(_) => (StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED"),
            Self::NoSuchAddress => (StatusCode::NOT_FOUND, "UNSUPPORTED"),
            Self::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "UNKNOWN"),
        }
    }

    /// What the store's error means where `unknown` names what was looked for.
    pub(crate) fn of_store(error: ContentError, unknown: impl FnOnce() -> Self) -> Self {
        match error {
            ContentError::NotFound { .. } => unknown(),
            ContentError::DigestMismatch { .. } | ContentError::SizeMismatch { .. } => {
                Self::DigestInvalid(error.to_string())
            }
            ContentError::Document { .. } => Self::ManifestInvalid(error.to_string()),
            ContentError::Refused { message } => Self::Denied(message),
            other => Self::Store(other),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (status, code) = self.code();
        let message = if let Self::Store(error) = &self {
            // The cause names files of this machine: it is for the operator, not for the other side.
            tracing::error!(%error, "the store failed");
            "the registry's store failed; its log says how".to_owned()
        } else {
            self.to_string()
        };
        let mut response = (status, Json(json!({"errors": [{"code": code, "message": message}]}))).into_response();
        let mut insert = |name, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().insert(name, value);
            }
        };
        match self {
            Self::Unauthorized => {
                insert(header::WWW_AUTHENTICATE, "Basic realm=\"mlxctl\", charset=\"UTF-8\"".to_owned());
            }
            Self::RangeOutside { size } => insert(header::CONTENT_RANGE, format!("bytes */{size}")),
            Self::UploadRange { offset, location, .. } => {
                insert(header::RANGE, crate::uploads::held(offset));
                insert(header::LOCATION, location);
            }
            _ => {}
        }
        response
    }
}
