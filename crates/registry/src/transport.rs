//! One HTTP exchange with a registry and all that belongs to it: authorization, redirects, time limits, retries.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use mlxctl_content::Observer;
use reqwest::header::{ACCEPT_ENCODING, AUTHORIZATION, HeaderMap, HeaderValue, LOCATION, WARNING};
use reqwest::{Body, Client, Method, Response, StatusCode, Url};
use tokio::sync::Semaphore;

use crate::auth::{AuthRequest, Authenticator, Renewal, Scope};
use crate::error::{Error, action, printable};
use crate::host::Host;
use crate::options::{Proxy, RegistryOptions};
use crate::pace::Pace;
use crate::policy::UploadPolicy;
use crate::refusal::refusal;
use crate::retry::{Attempts, RetryPolicy};
use crate::sessions::Sessions;

/// The most redirects that one request follows.
const MAX_REDIRECTS: usize = 5;
/// How often one request gets a new authorization: others may have used the last one up.
const MAX_RENEWALS: usize = 3;
/// The most warnings of a registry that are told.
const MAX_WARNINGS: usize = 16;

/// A request without a body, or with one small enough to be sent again.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) scope: Scope,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url, scope: Scope) -> Self {
        Self { method, url, scope, headers: HeaderMap::new(), body: Bytes::new() }
    }

    pub(crate) fn with_header(mut self, name: reqwest::header::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// The way to one registry.
pub(crate) struct Transport {
    pub(crate) host: Host,
    pub(crate) retry: RetryPolicy,
    pub(crate) stall_timeout: Duration,
    pub(crate) commit_timeout: Duration,
    pub(crate) observer: Arc<dyn Observer>,
    pub(crate) connections: usize,
    /// One permit a body that is being read.
    pub(crate) bodies: Arc<Semaphore>,
    /// The registry answers with the whole where a range is asked for.
    pub(crate) ignores_ranges: AtomicBool,
    pub(crate) pace: Pace,
    pub(crate) uploads: UploadPolicy,
    pub(crate) sessions: Option<Arc<dyn Sessions>>,
    /// Warnings that were told.
    warned: Mutex<BTreeSet<String>>,
    client: Client,
    authenticator: Authenticator,
}

impl Transport {
    pub(crate) fn new(host: &str, options: &RegistryOptions) -> Result<Self, Error> {
        Ok(Self {
            host: Host::new(host, options)?,
            retry: options.retry,
            stall_timeout: options.stall_timeout,
            commit_timeout: options.commit_timeout,
            observer: Arc::clone(&options.observer),
            connections: options.connections.max(1),
            bodies: Arc::new(Semaphore::new(options.connections.clamp(1, Semaphore::MAX_PERMITS))),
            ignores_ranges: AtomicBool::new(false),
            pace: Pace::new(options.bytes_per_second),
            uploads: UploadPolicy::of(host, options.chunk_bytes),
            sessions: options.sessions.clone(),
            warned: Mutex::default(),
            client: client(options)?,
            authenticator: Authenticator::new(Arc::clone(&options.credentials), options.retry, options.stall_timeout),
        })
    }

    /// Whether the registry asked who we are for this scope, and was answered.
    pub(crate) fn has_shown(&self, scope: &Scope) -> bool {
        self.authenticator.holds(scope)
    }

    /// Sends a request, again and again within the policy, until an answer comes that `accept`s.
    pub(crate) async fn send(
        &self,
        request: &Request,
        observer: &dyn Observer,
        accept: &[StatusCode],
    ) -> Result<Response, Error> {
        let mut attempts = Attempts::new(self.retry, observer);
        loop {
            match self.once(request, observer, accept).await {
                Ok(response) => return Ok(response),
                Err(error) => attempts.failed(error).await?,
            }
        }
    }

    /// Sends a request, follows its redirects, meets its challenge; no retries.
    pub(crate) async fn once(
        &self,
        request: &Request,
        observer: &dyn Observer,
        accept: &[StatusCode],
    ) -> Result<Response, Error> {
        let mut url = request.url.clone();
        let mut redirects = 0;
        let mut renewals = 0;
        loop {
            let exchange = self.exchange(request, &url, Body::from(request.body.clone()), observer);
            let (response, shown) = exchange.await?;
            let status = response.status();
            if accept.contains(&status) {
                return Ok(response);
            }
            let action = action(&request.method, &url);
            if status == StatusCode::UNAUTHORIZED && renewals < MAX_RENEWALS && self.host.is_origin_of(&url) {
                renewals += 1;
                self.renew(request, action, response, shown.as_ref(), observer).await?;
                continue;
            }
            match self.redirected(
                &action,
                &url,
                &response,
                request.method == Method::GET || request.method == Method::HEAD,
            )? {
                Some(next) if redirects < MAX_REDIRECTS => {
                    redirects += 1;
                    url = next;
                }
                Some(_) => {
                    return Err(Error::Protocol { action, reason: format!("more than {MAX_REDIRECTS} redirects") });
                }
                None => return Err(refusal(action, &self.host.name, response, self.stall_timeout).await),
            }
        }
    }

    /// One request and the head of its answer. The authorization goes to the registry itself alone; what was shown
    /// is returned. Requests with a body of their own go through here too.
    pub(crate) async fn exchange(
        &self,
        request: &Request,
        url: &Url,
        body: Body,
        observer: &dyn Observer,
    ) -> Result<(Response, Option<HeaderValue>), Error> {
        let (sending, shown) = self.prepare(request, url, body, observer).await?;
        let action = action(&request.method, url);
        let answer = tokio::time::timeout(self.stall_timeout, self.client.execute(sending)).await;
        let answer = answer.map_err(|_| Error::Stalled { action: action.clone(), after: self.stall_timeout })?;
        let answer = answer.map_err(|error| Error::of_exchange(action, &error))?;
        self.tell_warnings(&answer, observer);
        Ok((answer, shown))
    }

    /// Tells what the registry wants people to know (distribution specification, "Warnings"), each warning once.
    fn tell_warnings(&self, answer: &Response, observer: &dyn Observer) {
        if !self.host.is_origin_of(answer.url()) {
            return;
        }
        for value in answer.headers().get_all(WARNING).iter().take(MAX_WARNINGS) {
            let text = value.to_str().ok().and_then(|text| text.strip_prefix("299 - \"")?.strip_suffix('"'));
            let Some(text) = text.map(|text| printable(&text.replace("\\\"", "\"").replace("\\\\", "\\"), 300)) else {
                continue;
            };
            let is_news = {
                let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
                warned.len() < MAX_WARNINGS && warned.insert(text.clone())
            };
            if is_news {
                observer.notice(&format!("{} says: {text}", self.host.name));
            }
        }
    }

    /// The request as it goes out, and the authorization in it.
    pub(crate) async fn prepare(
        &self,
        request: &Request,
        url: &Url,
        body: Body,
        observer: &dyn Observer,
    ) -> Result<(reqwest::Request, Option<HeaderValue>), Error> {
        let action = action(&request.method, url);
        let shown = if self.host.is_origin_of(url) {
            self.authenticator.header(&self.asked(request, &action, observer)).await?
        } else {
            None
        };
        let mut sending = reqwest::Request::new(request.method.clone(), url.clone());
        *sending.headers_mut() = request.headers.clone();
        // Bytes are hashed as they are stored: nobody may pack them on the way.
        sending.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(header) = &shown {
            sending.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        if request.method != Method::GET && request.method != Method::HEAD {
            *sending.body_mut() = Some(body);
        }
        Ok((sending, shown))
    }

    /// Sends what [`Self::prepare`] made, without a limit of time: uploads watch their own progress.
    pub(crate) async fn execute(
        &self,
        action: String,
        sending: reqwest::Request,
        observer: &dyn Observer,
    ) -> Result<Response, Error> {
        let answer = self.client.execute(sending).await;
        let answer = answer.map_err(|error| Error::of_exchange(action, &error))?;
        self.tell_warnings(&answer, observer);
        Ok(answer)
    }

    /// Meets the challenge of a 401, so that the request can be sent again.
    pub(crate) async fn renew(
        &self,
        request: &Request,
        action: String,
        response: Response,
        shown: Option<&HeaderValue>,
        observer: &dyn Observer,
    ) -> Result<(), Error> {
        let asked = self.asked(request, &action, observer);
        match self.authenticator.renew(&asked, response.headers(), shown).await {
            Ok(_) => Ok(()),
            Err(Renewal::Failed(error)) => Err(error),
            Err(Renewal::Unmet(reason)) => {
                let mut error = refusal(action, &self.host.name, response, self.stall_timeout).await;
                if let Error::Answered { details, .. } = &mut error
                    && !reason.is_empty()
                {
                    let said = if details.is_empty() { String::new() } else { format!("{details}; ") };
                    *details = format!("{said}{reason}");
                }
                Err(error)
            }
        }
    }

    fn asked<'a>(&'a self, request: &'a Request, action: &'a str, observer: &'a dyn Observer) -> AuthRequest<'a> {
        AuthRequest { host: &self.host, client: &self.client, scope: &request.scope, action, observer }
    }

    /// Where an answer sends us, if it does. A request with a body follows only the redirects that keep its method.
    pub(crate) fn redirected(
        &self,
        action: &str,
        from: &Url,
        response: &Response,
        reads: bool,
    ) -> Result<Option<Url>, Error> {
        let follows = match response.status().as_u16() {
            307 | 308 => true,
            301..=303 => reads,
            _ => false,
        };
        if !follows {
            return Ok(None);
        }
        self.location(action, from, response.headers()).map(Some)
    }

    /// The `Location` of an answer: absolute or relative, its query kept.
    pub(crate) fn location(&self, action: &str, from: &Url, headers: &HeaderMap) -> Result<Url, Error> {
        let wrong = |reason: &str| Error::Protocol { action: action.to_owned(), reason: reason.to_owned() };
        let text = headers.get(LOCATION).ok_or_else(|| wrong("the answer has no Location"))?;
        let text = text.to_str().map_err(|_| wrong("its Location is not text"))?;
        let url = from.join(text).map_err(|_| wrong("its Location is no address"))?;
        if !url.has_host() || !self.host.may_follow(&url) {
            return Err(wrong("its Location leads away from https; that is refused"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("its Location holds a password; that is refused"));
        }
        Ok(url)
    }

    /// The error of an answer that is no success.
    pub(crate) async fn refused(&self, action: String, response: Response) -> Error {
        refusal(action, &self.host.name, response, self.stall_timeout).await
    }

    /// A whole body of at most `limit` bytes.
    pub(crate) async fn body(&self, action: &str, response: Response, limit: u64) -> Result<Bytes, Error> {
        let too_large = || Error::Protocol {
            action: action.to_owned(),
            reason: format!("the answer is larger than {limit} bytes"),
        };
        let announced = response.content_length();
        if announced.is_some_and(|length| length > limit) {
            return Err(too_large());
        }
        let mut body = Vec::new();
        let mut stream = response.bytes_stream();
        let stalled = |_| Error::Stalled { action: action.to_owned(), after: self.stall_timeout };
        while let Some(bytes) = tokio::time::timeout(self.stall_timeout, stream.next()).await.map_err(stalled)? {
            let bytes = bytes.map_err(|error| Error::of_exchange(action.to_owned(), &error))?;
            if (body.len() + bytes.len()) as u64 > limit {
                return Err(too_large());
            }
            body.extend_from_slice(&bytes);
        }
        Ok(body.into())
    }
}

fn client(options: &RegistryOptions) -> Result<Client, Error> {
    // Fails where the program chose a provider before: then that one is used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut certificates = Vec::new();
    for pem in &options.ca_certificates {
        let bundle = reqwest::Certificate::from_pem_bundle(pem).ok().filter(|bundle| !bundle.is_empty());
        let what = "a CA file holds no certificate in PEM form ('-----BEGIN CERTIFICATE-----')".to_owned();
        certificates.extend(bundle.ok_or(Error::Options { what })?);
    }
    let identity = options.client_certificate.as_ref().map(|pem| {
        let what = "the client's certificate and key are not a certificate and an unencrypted key in PEM form";
        reqwest::Identity::from_pem(pem).map_err(|_| Error::Options { what: what.to_owned() })
    });
    let identity = identity.transpose()?;
    let common = || -> Result<reqwest::ClientBuilder, Error> {
        let builder = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(&options.user_agent)
            .connect_timeout(options.connect_timeout)
            .tcp_keepalive(Duration::from_secs(30))
            .tls_danger_accept_invalid_certs(options.insecure);
        let builder = match &identity {
            Some(identity) => builder.identity(identity.clone()),
            None => builder,
        };
        Ok(match &options.proxy {
            Proxy::Direct => builder.no_proxy(),
            Proxy::System => builder,
            Proxy::Url(url) => {
                let what = "the proxy is no address such as 'http://proxy:3128'".to_owned();
                builder.proxy(reqwest::Proxy::all(url).map_err(|_| Error::Options { what })?)
            }
        })
    };
    if let Ok(client) = common()?.tls_certs_merge(certificates.clone()).build() {
        return Ok(client);
    }
    // A machine without a single root certificate, a container for example, can still speak http, and https to the
    // authorities it was given.
    let built = common()?.tls_certs_only(certificates).build();
    built
        .map_err(|error| Error::Options { what: format!("no HTTP client with these options: {}", error.without_url()) })
}
