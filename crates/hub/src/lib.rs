//! A repository of the hub as files on this machine: a revision pinned to its commit, the files listed, downloaded with
//! resume and checked, in the cache that the hub's own tools use.
//!
//! `mlxctl create` calls it for `from.hf`. What it fetches is data of strangers: paths never leave their folder, sizes
//! are bounded before anything is read, and a file is believed once its digest is right. Endpoint, token and cache come
//! in through [`HubOptions`]; nothing here reads the environment.

mod api;
mod cache;
mod download;
mod error;

use std::path::PathBuf;
use std::time::Duration;

use reqwest::{Client, Url};

pub use api::HubFile;
pub use download::Fetched;
pub use error::Error;

/// How to reach a hub.
#[derive(Clone)]
pub struct HubOptions {
    /// For example `https://huggingface.co`.
    pub endpoint: String,
    /// Sent to the endpoint alone, never to where it redirects.
    pub token: Option<String>,
    /// The folder `hub` of the hub's home, which holds `models--…`.
    pub cache: PathBuf,
    /// Whether the proxy of the environment and the operating system is used.
    pub system_proxy: bool,
    /// `User-Agent` of every request.
    pub user_agent: String,
    /// Tries in a row that may fail before a download is given up; one that moved on starts counting anew.
    pub tries: u32,
    /// The wait after the first failure; it doubles with each further one.
    pub pause: Duration,
    /// The longest silence of a connection.
    pub stall_timeout: Duration,
}

impl HubOptions {
    /// Anonymous, patient, without a proxy.
    pub fn new(endpoint: impl Into<String>, cache: impl Into<PathBuf>) -> Self {
        Self {
            endpoint: endpoint.into(),
            token: None,
            cache: cache.into(),
            system_proxy: false,
            user_agent: concat!("mlxctl/", env!("CARGO_PKG_VERSION")).to_owned(),
            tries: 6,
            pause: Duration::from_millis(400),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// A hub.
pub struct Hub {
    options: HubOptions,
    endpoint: Url,
    client: Client,
}

impl Hub {
    /// Checks the options; nothing is sent.
    pub fn new(options: HubOptions) -> Result<Self, Error> {
        let text = options.endpoint.trim_end_matches('/').to_owned();
        let wrong = |reason: String| Error::Endpoint { endpoint: error::plain(&text), reason };
        let endpoint: Url = text.parse().map_err(|reason| wrong(format!("{reason}")))?;
        if !matches!(endpoint.scheme(), "http" | "https") || endpoint.host_str().is_none() {
            return Err(wrong("expected an http or https address".to_owned()));
        }
        let is_loopback = matches!(endpoint.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if options.token.is_some() && endpoint.scheme() == "http" && !is_loopback {
            return Err(wrong("a token is sent to https alone".to_owned()));
        }
        // Whoever comes first installs it; there is but one provider in the program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = Client::builder()
            .user_agent(options.user_agent.clone())
            .connect_timeout(Duration::from_secs(15))
            .read_timeout(options.stall_timeout)
            .redirect(reqwest::redirect::Policy::custom(|attempt| {
                let leaves_tls = attempt.url().scheme() == "http"
                    && attempt.previous().iter().any(|previous| previous.scheme() == "https");
                if leaves_tls || attempt.previous().len() > 5 { attempt.stop() } else { attempt.follow() }
            }));
        if !options.system_proxy {
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| wrong(error.to_string()))?;
        Ok(Self { options, endpoint, client })
    }
}
