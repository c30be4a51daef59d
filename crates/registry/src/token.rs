//! The token service of a registry: one request that turns a credential and a scope into a bearer token.

use std::time::Duration;

use futures_util::StreamExt as _;
use reqwest::header::{HeaderValue, RETRY_AFTER};
use reqwest::{Client, Method, Response, Url};
use serde::Deserialize;

use crate::credentials::Credential;
use crate::error::{Error, action};
use crate::host::Host;
use crate::refusal::refusal;

/// The largest answer of a token service that is read.
const MAX_ANSWER: usize = 1 << 20;
/// What a token is good for where its service does not say (token specification).
const DEFAULT_LIFE: Duration = Duration::from_mins(1);
/// No token is believed for longer than this.
const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// OAuth2 wants the client to have a name.
const CLIENT_ID: &str = "mlxctl";

/// A token as a header, and how long it is good.
pub(crate) struct Granted {
    pub(crate) header: HeaderValue,
    pub(crate) life: Duration,
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

/// The request for a token.
pub(crate) struct TokenRequest<'a> {
    pub(crate) host: &'a Host,
    pub(crate) realm: &'a Url,
    pub(crate) service: Option<&'a str>,
    pub(crate) scope: &'a str,
    pub(crate) patience: Duration,
}

impl TokenRequest<'_> {
    /// Asks for a token: GET for anonymous and basic credentials, OAuth2's POST for an identity token.
    pub(crate) async fn send(&self, client: &Client, credential: &Credential) -> Result<Granted, Error> {
        let method = if matches!(credential, Credential::IdentityToken(_)) { Method::POST } else { Method::GET };
        let shown = action(&method, self.realm);
        if *credential != Credential::Anonymous && !self.host.may_carry_secrets(self.realm) {
            let reason = "the registry wants a password sent over http to another machine; that is refused".to_owned();
            return Err(Error::Protocol { action: shown, reason });
        }
        let service = self.service.map(|service| ("service", service));
        let request = match credential {
            Credential::IdentityToken(token) => {
                let mut form = Url::parse("http://form/").expect("a constant address parses");
                form.query_pairs_mut()
                    .extend_pairs(service)
                    .extend_pairs((!self.scope.is_empty()).then_some(("scope", self.scope)))
                    .append_pair("grant_type", "refresh_token")
                    .append_pair("client_id", CLIENT_ID)
                    .append_pair("refresh_token", token.reveal());
                let form = form.query().unwrap_or_default().to_owned();
                client.post(self.realm.clone()).header("content-type", "application/x-www-form-urlencoded").body(form)
            }
            Credential::Anonymous | Credential::Basic { .. } => {
                let mut url = self.realm.clone();
                let scopes = self.scope.split_whitespace().map(|scope| ("scope", scope));
                url.query_pairs_mut().extend_pairs(service.into_iter().chain(scopes));
                match credential {
                    Credential::Basic { user, password } => client.get(url).basic_auth(user, Some(password.reveal())),
                    _ => client.get(url),
                }
            }
        };
        let stalled = || Error::Stalled { action: shown.clone(), after: self.patience };
        let sent = tokio::time::timeout(self.patience, request.send()).await.map_err(|_| stalled())?;
        let response = sent.map_err(|error| Error::of_exchange(shown.clone(), &error))?;
        if response.status() != reqwest::StatusCode::OK {
            return Err(self.refused(response, shown).await);
        }
        let read = tokio::time::timeout(self.patience, body(response, &shown));
        granted(&read.await.map_err(|_| stalled())??, shown)
    }

    async fn refused(&self, response: Response, shown: String) -> Error {
        // A token service that is away says nothing of these credentials, unlike one that refuses them.
        let may_wait = response.status().is_server_error() || response.headers().contains_key(RETRY_AFTER);
        let mut error = refusal(shown, &self.host.name, response, self.patience).await;
        if let Error::Answered { status, details, .. } = &mut error {
            if !may_wait && !matches!(status, 401 | 403 | 429) {
                *status = 401;
            }
            let said = if details.is_empty() { String::new() } else { format!(": {details}") };
            *details = format!("the token service of {} gave no token{said}", self.host.name);
        }
        error
    }
}

async fn body(response: Response, shown: &str) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(bytes) = stream.next().await {
        body.extend_from_slice(&bytes.map_err(|error| Error::of_exchange(shown.to_owned(), &error))?);
        if body.len() > MAX_ANSWER {
            return Err(Error::Protocol {
                action: shown.to_owned(),
                reason: "its answer is larger than 1 MiB".to_owned(),
            });
        }
    }
    Ok(body)
}

fn granted(body: &[u8], action: String) -> Result<Granted, Error> {
    let wrong = |reason: &str| Error::Protocol { action: action.clone(), reason: reason.to_owned() };
    // serde quotes what it finds, and that may be the token.
    let answer: Answer = serde_json::from_slice(body).map_err(|_| wrong("its answer is no JSON with a token"))?;
    let token = answer.token.filter(|token| !token.is_empty()).or(answer.access_token).unwrap_or_default();
    if token.is_empty() {
        return Err(wrong("its answer holds no token"));
    }
    let mut header =
        HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| wrong("its token is no header text"))?;
    header.set_sensitive(true);
    let life = answer.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let life = life.filter(|life| !life.is_zero()).unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
    Ok(Granted { header, life })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_token_services_are_read() {
        let check = |body: &str, expected: Option<(&str, u64)>| {
            let found = granted(body.as_bytes(), "GET t".to_owned());
            let found = found.ok().map(|granted| (granted.header.to_str().unwrap().to_owned(), granted.life.as_secs()));
            assert_eq!(found, expected.map(|(header, life)| (header.to_owned(), life)), "{body}");
        };
        check(r#"{"token":"a","expires_in":300,"issued_at":"x"}"#, Some(("Bearer a", 300)));
        check(r#"{"access_token":"b"}"#, Some(("Bearer b", 60)));
        check(r#"{"token":"a","access_token":"b"}"#, Some(("Bearer a", 60)));
        check(r#"{"token":"","access_token":"b","expires_in":1e300}"#, Some(("Bearer b", 60)));
        check(r#"{"token":"a","expires_in":-5}"#, Some(("Bearer a", 60)));
        check(r#"{"token":"a","expires_in":1e9}"#, Some(("Bearer a", 86400)));
        check(r#"{"token":"a\r\nX-Evil: 1"}"#, None);
        check(r#"{"token":7}"#, None);
        check("{}", None);
        check("<html>", None);
    }
}
