//! Which `Authorization` a request carries: meets challenges, keeps tokens until they age, and never goes on without.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mlxctl_content::Observer;
use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderValue};

use crate::challenge::Challenge;
use crate::credentials::{Credential, Credentials};
use crate::error::Error;
use crate::host::Host;
use crate::retry::{Attempts, RetryPolicy};
use crate::token::TokenRequest;

/// What a request wants to do, and to which repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Scope(String);

impl Scope {
    /// To be known, and nothing more.
    pub(crate) fn none() -> Self {
        Self(String::new())
    }

    pub(crate) fn pull(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull"))
    }

    pub(crate) fn push(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull,push"))
    }

    /// The same, and to pull from another repository: scopes of one token are separated by spaces.
    pub(crate) fn and_pull(self, repository: &str) -> Self {
        Self(format!("{} repository:{repository}:pull", self.0))
    }

    pub(crate) fn delete(repository: &str) -> Self {
        Self(format!("repository:{repository}:pull,delete"))
    }
}

/// The authorizations of one registry.
pub(crate) struct Authenticator {
    credentials: Arc<dyn Credentials>,
    retry: RetryPolicy,
    patience: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Known from the first refusal on, so that later scopes need no refusal of their own.
    challenge: Option<Challenge>,
    held: BTreeMap<Scope, Held>,
}

struct Held {
    header: HeaderValue,
    stale_at: Option<Instant>,
}

impl Authenticator {
    pub(crate) fn new(credentials: Arc<dyn Credentials>, retry: RetryPolicy, patience: Duration) -> Self {
        Self { credentials, retry, patience, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an authorization was asked for and made.
    pub(crate) fn holds(&self, scope: &Scope) -> bool {
        self.state().held.contains_key(scope)
    }

    /// The header for a request, or none as long as the registry has not asked for one.
    pub(crate) async fn header(&self, ask: &AuthRequest<'_>) -> Result<Option<HeaderValue>, Error> {
        let challenge = {
            let state = self.state();
            if let Some(held) = state.held.get(ask.scope)
                && held.stale_at.is_none_or(|stale_at| Instant::now() < stale_at)
            {
                return Ok(Some(held.header.clone()));
            }
            state.challenge.clone()
        };
        match challenge {
            Some(challenge) => self.meet(&challenge, ask).await.map(Some),
            None => Ok(None),
        }
    }

    /// The header to try after a 401 to a request that carried `shown`.
    ///
    /// # Errors
    /// `refused`, the error of that 401, where nothing better can be shown; or the failure to get it.
    pub(crate) async fn renew(
        &self,
        ask: &AuthRequest<'_>,
        answer: &HeaderMap,
        shown: Option<&HeaderValue>,
    ) -> Result<HeaderValue, Renewal> {
        let challenge = Challenge::read(answer).map_err(Renewal::Unmet)?;
        {
            let mut state = self.state();
            state.challenge = Some(challenge.clone());
            match state.held.get(ask.scope) {
                // Another task got a new one meanwhile.
                Some(held) if Some(&held.header) != shown => return Ok(held.header.clone()),
                _ => state.held.remove(ask.scope),
            };
        }
        let header = self.meet(&challenge, ask).await.map_err(Renewal::Failed)?;
        if challenge == Challenge::Basic && Some(&header) == shown {
            return Err(Renewal::Unmet(String::new()));
        }
        Ok(header)
    }

    /// Gets an authorization and keeps it.
    async fn meet(&self, challenge: &Challenge, ask: &AuthRequest<'_>) -> Result<HeaderValue, Error> {
        let registry = &ask.host.name;
        let credential = self.credentials.for_registry(registry).await?;
        let (header, stale_at) = match (challenge, &credential) {
            (Challenge::Basic, Credential::Basic { user, password }) => (basic(user, password.reveal()), None),
            (Challenge::Basic, Credential::Anonymous) => {
                return Err(ask.unauthenticated("the registry wants a user and a password, and none is configured"));
            }
            (Challenge::Basic, Credential::IdentityToken(_)) => {
                let reason = "the registry wants a user and a password; an identity token is configured".to_owned();
                return Err(Error::Credentials { registry: registry.clone(), reason });
            }
            (Challenge::Bearer { realm, service }, _) => {
                let (service, scope) = (service.as_deref(), ask.scope.0.as_str());
                let request = TokenRequest { host: ask.host, realm, service, scope, patience: self.patience };
                let mut attempts = Attempts::new(self.retry, ask.observer);
                let granted = loop {
                    match request.send(ask.client, &credential).await {
                        Ok(granted) => break granted,
                        Err(error) => attempts.failed(error).await?,
                    }
                };
                // A token that ends while its request is on the way is of no use.
                (granted.header, Some(Instant::now() + granted.life.mul_f64(0.8)))
            }
        };
        self.state().held.insert(ask.scope.clone(), Held { header: header.clone(), stale_at });
        Ok(header)
    }
}

/// Why a 401 stays one.
pub(crate) enum Renewal {
    /// The challenge cannot be met; the reason where there is one to tell.
    Unmet(String),
    /// Meeting it failed.
    Failed(Error),
}

/// The request that an authorization is for.
pub(crate) struct AuthRequest<'a> {
    pub(crate) host: &'a Host,
    pub(crate) client: &'a Client,
    pub(crate) scope: &'a Scope,
    /// Method and address, for messages.
    pub(crate) action: &'a str,
    pub(crate) observer: &'a dyn Observer,
}

impl AuthRequest<'_> {
    fn unauthenticated(&self, details: &str) -> Error {
        Error::Answered {
            action: self.action.to_owned(),
            status: 401,
            details: details.to_owned(),
            retry_after: None,
            registry: self.host.name.clone(),
        }
    }
}

fn basic(user: &str, password: &str) -> HeaderValue {
    let encoded = STANDARD.encode(format!("{user}:{password}"));
    let mut header = HeaderValue::from_str(&format!("Basic {encoded}")).expect("base64 is header text");
    header.set_sensitive(true);
    header
}
