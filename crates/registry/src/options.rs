//! What a caller decides about the way to a registry; the command line fills it from flags, files and environment.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use mlxctl_content::{Observer, Quiet};

use crate::credentials::{Anonymous, Credentials};
use crate::retry::RetryPolicy;
use crate::sessions::Sessions;

/// Which proxy stands between here and the registry.
#[derive(Clone, Default)]
pub enum Proxy {
    /// None: the environment's proxy variables are ignored.
    #[default]
    Direct,
    /// What the environment and the operating system say.
    System,
    /// This one for every host.
    Url(String),
}

/// How to reach a registry. [`RegistryOptions::default`] is anonymous, verifies certificates against the system's
/// roots, and uses no proxy.
#[derive(Clone)]
pub struct RegistryOptions {
    /// Speak http, credentials included. Loopback hosts get http without it, unless `ca_certificates`, `insecure` or `client_certificate`
    /// say that TLS is meant.
    pub plain_http: bool,
    /// Accept any certificate. The caller says so aloud to its user.
    pub insecure: bool,
    /// PEM bundles of authorities to trust beside the system's.
    pub ca_certificates: Vec<Vec<u8>>,
    /// A certificate and its key, in one PEM, to show to a registry that asks who we are.
    pub client_certificate: Option<Vec<u8>>,
    /// The proxy.
    pub proxy: Proxy,
    /// Who we are.
    pub credentials: Arc<dyn Credentials>,
    /// `User-Agent` of every request.
    pub user_agent: String,
    /// When and how often to try again.
    pub retry: RetryPolicy,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest silence of a connection before it is given up and replaced.
    pub stall_timeout: Duration,
    /// The longest wait for a registry that has all bytes of a blob and is storing them.
    pub commit_timeout: Duration,
    /// Blobs, and ranges of them, that are fetched at once; at least one.
    pub connections: usize,
    /// Bytes of a chunk of an upload where the registry has no wish of its own: what a broken connection costs at
    /// the most.
    pub chunk_bytes: u64,
    /// The most bytes a second, both ways and all transfers together.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Where upload sessions are kept for the next run.
    pub sessions: Option<Arc<dyn Sessions>>,
    /// Hears the notices of pulls, which have no observer of their own; its other methods are not called.
    pub observer: Arc<dyn Observer>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            plain_http: false,
            insecure: false,
            ca_certificates: Vec::new(),
            client_certificate: None,
            proxy: Proxy::default(),
            credentials: Arc::new(Anonymous),
            user_agent: concat!("mlxctl/", env!("CARGO_PKG_VERSION")).to_owned(),
            retry: RetryPolicy::default(),
            connect_timeout: Duration::from_secs(15),
            stall_timeout: Duration::from_secs(30),
            commit_timeout: Duration::from_mins(10),
            connections: 4,
            chunk_bytes: 64 << 20,
            bytes_per_second: None,
            sessions: None,
            observer: Arc::new(Quiet),
        }
    }
}

impl fmt::Debug for RegistryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A proxy's URL may hold a password, and credentials are nobody's business.
        f.debug_struct("RegistryOptions")
            .field("plain_http", &self.plain_http)
            .field("insecure", &self.insecure)
            .field("ca_certificates", &self.ca_certificates.len())
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
