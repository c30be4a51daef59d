//! Who may speak to the daemon. A web page that a user visits can send requests to loopback; the `Host` list keeps out
//! pages whose name was rebound to us, the `Origin` check those that do not hide where they come from.

use std::net::IpAddr;

use axum::http::{HeaderMap, Method, StatusCode, Uri, header};

use crate::fault::Fault;

/// Names under which the daemon may be addressed beside the loopback ones.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    names: Vec<String>,
    /// Bound to more than loopback: an address as host is then as good as any, for no name can be rebound to it.
    any_address: bool,
}

impl Guard {
    /// The guard of a daemon that listens on `bound`, and goes by further names.
    pub fn new(bound: &str, further: &[String]) -> Self {
        let mut names: Vec<String> = vec!["host.docker.internal".to_owned(), bound.to_ascii_lowercase()];
        names.extend(further.iter().map(|name| name.to_ascii_lowercase()));
        let any_address = match bound.parse::<IpAddr>() {
            Ok(address) => !address.is_loopback(),
            Err(_) => !is_loopback(bound),
        };
        Self { names, any_address }
    }

    /// Refuses a request whose `Host` is not on the list, or that changes something for a foreign page.
    pub(crate) fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Fault> {
        let host = match headers.get(header::HOST) {
            Some(value) => value.to_str().ok().map(str::to_owned),
            None => uri.authority().map(ToString::to_string),
        };
        let many = headers.get_all(header::HOST).iter().count() > 1;
        match host {
            Some(host) if !many && self.allows(&host) => {}
            other => {
                let host: String = other.unwrap_or_default().chars().take(100).collect();
                let message = format!(
                    "the Host '{host}' is not one that this server goes by; name it with --allow-host if it should be"
                );
                return Err(Fault::new(StatusCode::FORBIDDEN, message).coded("host_not_allowed"));
            }
        }
        if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Ok(());
        }
        let foreign = |what: String| {
            let message = format!("a request from a foreign page is refused ({what})");
            Err(Fault::new(StatusCode::FORBIDDEN, message).coded("origin_not_allowed"))
        };
        if headers.get("sec-fetch-site").is_some_and(|site| site.as_bytes().eq_ignore_ascii_case(b"cross-site")) {
            return foreign("Sec-Fetch-Site: cross-site".to_owned());
        }
        for origin in headers.get_all(header::ORIGIN) {
            let text = origin.to_str().unwrap_or_default();
            let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
            if !host.is_some_and(|host| self.allows(host)) {
                return foreign(format!("Origin: {}", text.chars().take(100).collect::<String>()));
            }
        }
        Ok(())
    }

    /// Whether `host[:port]` is one of ours, whatever the port.
    fn allows(&self, host: &str) -> bool {
        let Some(name) = host_name(host) else { return false };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        is_loopback(bare)
            || self.names.iter().any(|known| known == bare)
            || (self.any_address && bare.parse::<IpAddr>().is_ok())
    }
}

/// The host of `host[:port]`, brackets included.
fn host_name(host: &str) -> Option<&str> {
    let (name, port) = match host.rfind(']') {
        Some(end) => {
            (&host[..=end], host[end + 1..].strip_prefix(':').or_else(|| host[end + 1..].is_empty().then_some("0")))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, Some("0")),
        },
    };
    let is_port =
        port.is_some_and(|port| !port.is_empty() && port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit()));
    (is_port && !name.is_empty()).then_some(name)
}

fn is_loopback(name: &str) -> bool {
    name == "localhost"
        || name.ends_with(".localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn verdict(guard: &Guard, method: Method, pairs: &[(&'static str, &str)]) -> bool {
        let headers: HeaderMap = pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        guard.check(&method, &Uri::from_static("/api/chat"), &headers).is_ok()
    }

    #[test]
    fn hosts_are_loopback_names_or_on_the_list() {
        let guard = Guard::new("127.0.0.1", &["box.lan".to_owned()]);
        for good in [
            "localhost",
            "localhost:8081",
            "LOCALHOST:1",
            "127.0.0.1:8081",
            "127.1.2.3",
            "[::1]:8081",
            "[::1]",
            "host.docker.internal:8081",
            "box.lan",
            "localhost.",
            "x.localhost",
        ] {
            assert!(verdict(&guard, Method::GET, &[("host", good)]), "{good}");
        }
        for bad in [
            "evil.com",
            "evil.com:8081",
            "localhost.evil.com",
            "evil.com:localhost",
            "192.168.1.5",
            "0.0.0.0",
            "",
            ":80",
            "localhost:",
            "localhost:x",
            "[::1",
            "[::1]x",
            "localhost@evil.com",
            "127.0.0.1.evil.com",
        ] {
            assert!(!verdict(&guard, Method::GET, &[("host", bad)]), "{bad}");
        }
        assert!(!verdict(&guard, Method::GET, &[]), "no host at all");
    }

    #[test]
    fn bound_to_the_world_addresses_are_let_in_and_names_are_not() {
        let guard = Guard::new("0.0.0.0", &[]);
        assert!(verdict(&guard, Method::GET, &[("host", "192.168.1.5:8081")]));
        assert!(!verdict(&guard, Method::GET, &[("host", "evil.com")]));
    }

    #[test]
    fn foreign_pages_change_nothing() {
        let guard = Guard::new("127.0.0.1", &[]);
        let check = |method: Method, name: &'static str, value: &str, good: bool| {
            assert_eq!(verdict(&guard, method, &[("host", "localhost"), (name, value)]), good, "{name}: {value}");
        };
        check(Method::POST, "origin", "http://localhost:3000", true);
        check(Method::POST, "origin", "https://127.0.0.1", true);
        check(Method::POST, "origin", "http://evil.com", false);
        check(Method::POST, "origin", "null", false);
        check(Method::POST, "origin", "http://localhost.evil.com", false);
        check(Method::POST, "sec-fetch-site", "cross-site", false);
        check(Method::POST, "sec-fetch-site", "same-origin", true);
        check(Method::DELETE, "origin", "http://evil.com", false);
        check(Method::GET, "origin", "http://evil.com", true);
    }
}
