//! Reads `WWW-Authenticate`: what a registry wants to see before it answers.

use http_auth::parse_challenges;
use reqwest::Url;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The longest header that is parsed, and the most headers.
const MAX_LENGTH: usize = 4096;
const MAX_HEADERS: usize = 8;

/// What a registry asks for. Where it offers several ways, a token is taken before a password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A token from the service at `realm` (distribution's token authentication).
    Bearer {
        /// The token service.
        realm: Url,
        /// The name that the registry has there.
        service: Option<String>,
    },
    /// User and password (RFC 7617).
    Basic,
}

impl Challenge {
    /// The challenge of an answer.
    ///
    /// # Errors
    /// The reason, where there is none that we can meet.
    pub(crate) fn read(headers: &HeaderMap) -> Result<Self, String> {
        let mut basic = false;
        let mut unusable = None;
        for value in headers.get_all(WWW_AUTHENTICATE).iter().take(MAX_HEADERS) {
            let Some(text) = value.to_str().ok().filter(|text| text.len() <= MAX_LENGTH) else {
                unusable = Some("its challenge is too long or not text".to_owned());
                continue;
            };
            let Ok(challenges) = parse_challenges(text) else {
                unusable = Some("its challenge cannot be parsed".to_owned());
                continue;
            };
            for challenge in challenges {
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = true;
                } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let parameter = |name: &str| {
                        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                        found.map(|(_, value)| value.to_unescaped())
                    };
                    match parameter("realm").and_then(|realm| Url::parse(&realm).ok()) {
                        Some(realm) if matches!(realm.scheme(), "http" | "https") && realm.has_host() => {
                            return Ok(Self::Bearer { realm, service: parameter("service") });
                        }
                        _ => unusable = Some("its token service ('realm') is no web address".to_owned()),
                    }
                }
            }
        }
        match unusable {
            _ if basic => Ok(Self::Basic),
            Some(reason) => Err(reason),
            None => Err("it names no way to log in that we know (Bearer or Basic)".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(values: &[&str]) -> Result<Challenge, String> {
        Challenge::read(&values.iter().map(|value| (WWW_AUTHENTICATE, value.parse().unwrap())).collect())
    }

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>| {
            Ok(Challenge::Bearer { realm: realm.parse().unwrap(), service: service.map(str::to_owned) })
        };
        // Docker's token specification, its example.
        let example = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:samalba/my-app:pull,push""#;
        assert_eq!(read(&[example]), bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        assert_eq!(read(&[r#"bearer realm="http://a/t""#]), bearer("http://a/t", None));
        assert_eq!(read(&[r#"Basic realm="r", Bearer realm="https://a/t""#]), bearer("https://a/t", None));
        assert_eq!(read(&[r#"Basic realm="r""#, r#"Bearer realm="https://a/t""#]), bearer("https://a/t", None));
        assert_eq!(read(&["BASIC realm=\"a\\\"b\""]), Ok(Challenge::Basic));
        assert_eq!(read(&[r#"Bearer realm="file:///etc/passwd""#, "Basic realm=x"]), Ok(Challenge::Basic));
    }

    #[test]
    fn challenges_that_cannot_be_met_are_refused() {
        let long = format!("Bearer realm=\"https://a/{}\"", "x".repeat(MAX_LENGTH));
        for bad in ["", "Negotiate", "Bearer", "Bearer realm=\"/token\"", "Bearer realm=\"file:///x\"", ",,,=", &long] {
            assert!(read(&[bad]).is_err(), "{bad}");
        }
        assert!(read(&[]).is_err());
    }

    proptest! {
        #[test]
        fn foreign_headers_never_panic(text in "([Bb]earer |Basic |realm=|\"|\\\\|,|=|[ -~]){0,30}") {
            let _ = read(&[&text]);
        }
    }
}
