//! The one account of a protected registry, by HTTP's basic authentication (RFC 7617).

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mlxctl_artifact::Digest;

/// A user and a password, kept as their hash: every request has to show them.
#[derive(Clone)]
pub struct Account {
    hash: Digest,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(account)")
    }
}

impl Account {
    /// An account; `None` where the user's name is empty or holds a colon, which the protocol cannot carry.
    pub fn new(user: &str, password: &str) -> Option<Self> {
        let fits = !user.is_empty() && !user.contains(':');
        fits.then(|| Self { hash: Digest::sha256_of(format!("{user}:{password}").as_bytes()) })
    }

    /// Whether a request shows it. Hashes are compared, so that the time taken tells nothing of the password.
    pub(crate) fn admits(&self, headers: &HeaderMap) -> bool {
        let text = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let Some((scheme, shown)) = text.split_once(' ') else { return false };
        let shown = STANDARD.decode(shown.trim()).unwrap_or_default();
        scheme.eq_ignore_ascii_case("basic") && Digest::sha256_of(&shown) == self.hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_right_password_is_admitted_and_nothing_else() {
        let account = Account::new("ada", "s3:cret").unwrap();
        let check = |shown: &str, admitted: bool| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, shown.parse().unwrap())]);
            assert_eq!(account.admits(&headers), admitted, "{shown}");
        };
        let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
        check(&basic("ada:s3:cret"), true);
        check(&basic("ada:s3:cret").replace("Basic", "basic"), true);
        check(&basic("ada:s3"), false);
        check(&basic("ada:s3:cret:"), false);
        check(&basic(""), false);
        check("Basic %%%", false);
        check(&basic("ada:s3:cret").replace("Basic", "Bearer"), false);
        assert!(!account.admits(&HeaderMap::new()));
        assert!(Account::new("a:b", "c").is_none() && Account::new("", "c").is_none());
    }
}
