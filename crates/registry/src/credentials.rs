//! Who we are at a registry: credentials, and the trait by which they are looked up.

use std::fmt;

use async_trait::async_trait;

use crate::error::Error;

/// A password or a token: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one header or form field it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// What to show a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// Nothing.
    Anonymous,
    /// A user's name and password, or a robot's.
    Basic {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, exchanged for access tokens at the registry's token service.
    IdentityToken(Secret),
}

/// Looks credentials up.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The credential for `registry`, a `host[:port]` as references write it.
    ///
    /// # Errors
    /// [`Error::Credentials`] where a credential is configured and cannot be had: that is never taken for "none".
    async fn for_registry(&self, registry: &str) -> Result<Credential, Error>;
}

/// No credentials anywhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn for_registry(&self, _: &str) -> Result<Credential, Error> {
        Ok(Credential::Anonymous)
    }
}

/// One credential for one registry, nothing for any other: what `login` checks before it stores it.
#[derive(Debug, Clone)]
pub struct Static {
    /// The registry's `host[:port]`.
    pub registry: String,
    /// What to show there.
    pub credential: Credential,
}

#[async_trait]
impl Credentials for Static {
    async fn for_registry(&self, registry: &str) -> Result<Credential, Error> {
        Ok(if registry == self.registry { self.credential.clone() } else { Credential::Anonymous })
    }
}
