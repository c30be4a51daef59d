//! What can go wrong on the way to a registry, and what it becomes in the terms of the content traits.

use std::time::Duration;

use mlxctl_content as content;
use reqwest::Url;

/// A failed dealing with a registry. The traits return it as `content::Error`; constructors and credential lookups
/// return it as it is. No variant holds a secret, a query string or a control character.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Not `host[:port]`.
    #[error("'{host}' is not a registry: expected a host with an optional port")]
    Host {
        /// The text as given, shortened.
        host: String,
    },
    /// Options that cannot be used: a certificate that is none, a proxy without an address.
    #[error("{what}")]
    Options {
        /// What was expected and what was found.
        what: String,
    },
    /// A credential is configured and cannot be had.
    #[error("credentials for {registry}: {reason}")]
    Credentials {
        /// The registry.
        registry: String,
        /// What was tried and how it failed.
        reason: String,
    },
    /// No answer came, or the connection broke.
    #[error("{action}: {reason}")]
    Unreachable {
        /// Method and address.
        action: String,
        /// The chain of causes.
        reason: String,
        /// What the causes point to.
        cause: Cause,
    },
    /// The connection was silent for too long.
    #[error("{action}: nothing came for {} s", .after.as_secs())]
    Stalled {
        /// Method and address.
        action: String,
        /// How long.
        after: Duration,
    },
    /// The registry or its token service refused or failed.
    #[error("{action}: status {status}{}{details}", if .details.is_empty() { "" } else { ": " })]
    Answered {
        /// Method and address.
        action: String,
        /// The HTTP status.
        status: u16,
        /// What the answer says, bounded and made printable.
        details: String,
        /// The wait that the answer asks for.
        retry_after: Option<Duration>,
        /// Whose login could help.
        registry: String,
    },
    /// The other side does not follow the specification, or tries what we do not let it do.
    #[error("{action}: {reason}")]
    Protocol {
        /// Method and address.
        action: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// An answer ended before its time.
    #[error("{action}: the answer ended {missing} bytes early")]
    Short {
        /// Method and address.
        action: String,
        /// Bytes that did not come.
        missing: u64,
    },
}

/// What a broken connection points to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The certificate's authority is not trusted.
    UnknownAuthority,
    /// TLS was spoken to a port that does not.
    PlainHttp,
    /// Something that another try will not mend: a name that does not exist, a certificate for another host.
    Lasting,
    /// Something that may pass.
    Passing,
}

impl Error {
    /// The error of a failed exchange.
    pub(crate) fn of_exchange(action: String, error: &reqwest::Error) -> Self {
        let reason = chain(error);
        // A bad signature is what an authority that shares the name of a trusted one, and not its key, looks like.
        let unknown = ["UnknownIssuer", "BadSignature"].iter().any(|sign| reason.contains(sign));
        let cause = if unknown {
            Cause::UnknownAuthority
        } else if reason.contains("InvalidContentType") || reason.contains("corrupt message") {
            Cause::PlainHttp
        } else if reason.contains("invalid peer certificate") || error.is_builder() {
            Cause::Lasting
        } else {
            Cause::Passing
        };
        Self::Unreachable { action, reason, cause }
    }

    /// Whether another try can succeed.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { cause, .. } => *cause == Cause::Passing,
            Self::Stalled { .. } | Self::Short { .. } => true,
            Self::Answered { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answered { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The HTTP status where an answer came.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Unreachable { cause: Cause::UnknownAuthority, .. } => {
                "if the registry has a private authority, name its certificate with --ca-file".to_owned()
            }
            Self::Unreachable { reason, .. } if reason.contains("CaUsedAsEndEntity") => {
                "the registry shows an authority's certificate as its own: sign one for the server with it, and name the \
                 authority with --ca-file"
                    .to_owned()
            }
            Self::Unreachable { cause: Cause::PlainHttp, .. } => {
                "the registry seems to speak http; if that is meant, use --plain-http".to_owned()
            }
            Self::Answered { status: 401, registry, .. } => {
                format!("log in with `mlxctl login {registry}`, or check the name of the repository")
            }
            Self::Answered { status: 403, registry, .. } => {
                format!("these credentials may not do this; log in as another with `mlxctl login {registry}`")
            }
            Self::Answered { status: 400, details, .. } if details.to_ascii_lowercase().contains("https server") => {
                "the registry speaks https; leave --plain-http away, or name its certificate with --ca-file".to_owned()
            }
            Self::Answered { status: 413, .. } => {
                "the registry, or a proxy before it, limits the size of uploads".to_owned()
            }
            Self::Answered { retry_after: Some(asked), .. } => {
                format!("the registry asks to wait {} s before the next try", asked.as_secs())
            }
            Self::Answered { status: 404, .. } => "check the name of the repository and the tag".to_owned(),
            _ => return None,
        };
        Some(hint)
    }
}

impl From<Error> for content::Error {
    fn from(error: Error) -> Self {
        let (status, hint) = (error.status(), error.hint());
        Self::Remote { message: error.to_string(), status, hint }
    }
}

/// A method and an address for messages: no user, no query, no fragment.
pub(crate) fn action(method: &reqwest::Method, url: &Url) -> String {
    format!("{method} {}", shown(url))
}

/// An address for messages.
pub(crate) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_username("");
    let _ = url.set_password(None);
    printable(url.as_str(), 300)
}

/// A foreign text with control characters made visible as spaces, at most `limit` characters of it.
pub(crate) fn printable(text: &str, limit: usize) -> String {
    // Bidirectional overrides could make a line read as what it is not.
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    let mut shown: String = text.trim().chars().take(limit).map(|c| if hidden(c) { ' ' } else { c }).collect();
    if text.trim().chars().nth(limit).is_some() {
        shown.push('…');
    }
    shown
}

/// An error and what caused it, in one line. `reqwest` puts the address into the first link, query included, so that
/// link is left out.
fn chain(error: &reqwest::Error) -> String {
    let mut links = Vec::new();
    let mut next = std::error::Error::source(error);
    while let Some(link) = next {
        let text = printable(&link.to_string(), 200);
        if links.last() != Some(&text) && links.len() < 6 {
            links.push(text);
        }
        next = link.source();
    }
    if links.is_empty() {
        let kind = if error.is_timeout() { "it took too long" } else { "the request failed" };
        return kind.to_owned();
    }
    links.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_secrets() {
        let url: Url = "https://user:pw@cdn.example/a/b?X-Amz-Signature=abc#f".parse().unwrap();
        assert_eq!(action(&reqwest::Method::GET, &url), "GET https://cdn.example/a/b");
    }

    #[test]
    fn foreign_texts_are_bounded_and_cannot_steer_a_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\r\nc\u{202e}d", 100), "a [31mb  c d");
        assert_eq!(printable("abcdef", 3), "abc…");
    }
}
