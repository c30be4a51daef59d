//! From a request to its handler, and from a listener to a running registry.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::json;
use tokio::sync::oneshot;

use crate::error::Error;
use crate::route::Route;
use crate::{Listener, Options, Repositories, blobs, manifests, referrers, uploads};

/// Says that this is a registry of the second API; clients look for it.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// How long a registry that is told to end waits for the requests under way.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// What every handler needs.
#[derive(Clone)]
pub(crate) struct Registry {
    pub(crate) repositories: Arc<dyn Repositories>,
    pub(crate) options: Arc<Options>,
}

pub(crate) fn router(repositories: Arc<dyn Repositories>, options: Options) -> Router {
    Router::new().fallback(answer).with_state(Registry { repositories, options: Arc::new(options) })
}

/// Serves `router` on `listener` until `shutdown` is done; requests under way then get ten seconds to end.
///
/// # Errors
/// The listener's.
pub async fn serve(
    listener: Listener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (told, hears) = oneshot::channel();
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        shutdown.await;
        let _ = told.send(());
    });
    let overdue = async move {
        match hears.await {
            Ok(()) => tokio::time::sleep(DRAIN_LIMIT).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = served => ended,
        () = overdue => Ok(()),
    }
}

async fn answer(State(registry): State<Registry>, request: Request) -> Response {
    let mut response = dispatch(&registry, request).await.unwrap_or_else(IntoResponse::into_response);
    let headers = response.headers_mut();
    headers.insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn dispatch(registry: &Registry, request: Request) -> Result<Response, Error> {
    if registry.options.account.as_ref().is_some_and(|account| !account.admits(request.headers())) {
        return Err(Error::Unauthorized);
    }
    let route = Route::parse(request.uri().path())?;
    let method = request.method().clone();
    if method != Method::GET && method != Method::HEAD {
        registry.admit_change(&request)?;
    }
    let read = method == Method::GET || method == Method::HEAD;
    match route {
        Route::Base if read => Ok(Json(json!({})).into_response()),
        Route::Catalog if read => manifests::catalog(registry, request.uri()).await,
        Route::Tags(name) if read => manifests::tags(registry, &name, request.uri()).await,
        Route::Referrers(name, subject) if read => referrers::list(registry, &name, subject, request.uri()).await,
        Route::Blob(name, digest) if read => blobs::get(registry, &name, digest, &method, request.headers()).await,
        Route::Blob(name, digest) if method == Method::DELETE => blobs::delete(registry, &name, digest).await,
        Route::Manifest(name, manifest) if read => manifests::get(registry, &name, &manifest, &method).await,
        Route::Manifest(name, manifest) if method == Method::PUT => {
            manifests::put(registry, &name, &manifest, request).await
        }
        Route::Manifest(name, manifest) if method == Method::DELETE => {
            manifests::delete(registry, &name, &manifest).await
        }
        Route::Uploads(name) if method == Method::POST => uploads::post(registry, &name, request).await,
        Route::Upload(name, session) if method == Method::PATCH => {
            uploads::patch(registry, &name, &session, request).await
        }
        Route::Upload(name, session) if method == Method::PUT => uploads::put(registry, &name, &session, request).await,
        Route::Upload(name, session) if read => uploads::get(registry, &name, &session).await,
        Route::Upload(name, session) if method == Method::DELETE => uploads::delete(registry, &name, &session).await,
        _ => Err(Error::Unsupported(format!("{method} is not done at this address"))),
    }
}

impl Registry {
    /// Refuses changes where the registry is read only, and those that a web page sends behind its reader's back: no
    /// client of registries names an origin.
    fn admit_change(&self, request: &Request) -> Result<(), Error> {
        if self.options.read_only {
            return Err(Error::Unsupported("this registry is read only".to_owned()));
        }
        let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
        let foreign = site.is_some_and(|site| site != b"same-origin" && site != b"none");
        if foreign || request.headers().contains_key(header::ORIGIN) {
            return Err(Error::Denied("web pages may not change this registry".to_owned()));
        }
        Ok(())
    }
}

/// An answer without a body.
pub(crate) fn empty(status: axum::http::StatusCode, headers: &[(HeaderName, String)]) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name.clone(), value);
        }
    }
    response
}
