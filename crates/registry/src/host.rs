//! A registry's name, where its API lives, and over which scheme it is spoken to.

use std::net::{Ipv4Addr, Ipv6Addr};

use reqwest::Url;

use crate::error::Error;
use crate::options::RegistryOptions;

/// The name under which everyone knows Docker's registry.
const DOCKER_HUB: &str = "docker.io";
/// Where Docker's registry answers.
const DOCKER_HUB_API: &str = "registry-1.docker.io";

/// A registry.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// `host[:port]`, as references and Docker's configuration write it.
    pub(crate) name: String,
    /// Scheme, host and port, with an empty path.
    pub(crate) base: Url,
    /// Whether secrets may travel over http to hosts other than this machine.
    pub(crate) plain_http: bool,
}

impl Host {
    pub(crate) fn new(name: &str, options: &RegistryOptions) -> Result<Self, Error> {
        let wrong = || Error::Host { host: name.chars().take(120).collect() };
        let name = match name {
            "index.docker.io" | DOCKER_HUB_API => DOCKER_HUB,
            other => other,
        };
        let api = if name == DOCKER_HUB { DOCKER_HUB_API } else { name };
        let parsed = Url::parse(&format!("https://{api}/")).map_err(|_| wrong())?;
        let plain = parsed.path() == "/" && parsed.query().is_none() && parsed.fragment().is_none();
        if !plain || !parsed.username().is_empty() || parsed.password().is_some() || api.contains(['/', '?', '#', '@'])
        {
            return Err(wrong());
        }
        let tls_is_meant =
            options.insecure || !options.ca_certificates.is_empty() || options.client_certificate.is_some();
        let http = options.plain_http || (is_loopback(&parsed) && !tls_is_meant);
        // Parsed again with the right scheme, because a URL drops a port that is its scheme's default.
        let scheme = if http { "http" } else { "https" };
        let base = Url::parse(&format!("{scheme}://{api}/")).map_err(|_| wrong())?;
        Ok(Self { name: name.to_owned(), base, plain_http: options.plain_http })
    }

    /// The name by which the registry knows `repository`: Docker's keeps those without an owner under `library/`.
    pub(crate) fn repository_name(&self, repository: &str) -> String {
        let owner = if self.name == DOCKER_HUB && !repository.contains('/') { "library/" } else { "" };
        format!("{owner}{repository}")
    }

    /// The address of `path` within a repository.
    pub(crate) fn url(&self, repository: &str, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("/v2/{repository}/{path}"));
        url
    }

    /// Whether `url` is this registry itself: the only place that gets its credentials.
    pub(crate) fn is_origin_of(&self, url: &Url) -> bool {
        self.base.origin() == url.origin()
    }

    /// Whether a secret may be sent to `url` at all.
    pub(crate) fn may_carry_secrets(&self, url: &Url) -> bool {
        url.scheme() == "https" || (url.scheme() == "http" && (self.plain_http || is_loopback(url)))
    }

    /// Whether content may be fetched from `url`, to which the registry sent us: never from https down to http.
    pub(crate) fn may_follow(&self, url: &Url) -> bool {
        match url.scheme() {
            "https" => true,
            "http" => self.base.scheme() == "http" || self.plain_http,
            _ => false,
        }
    }
}

/// Whether `url` names this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let inner = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host.ends_with(".localhost")
        || inner.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())
        || inner.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http_is_spoken_to_this_machine_and_on_request_alone() {
        let check = |host: &str, plain_http: bool, ca: bool, base: &str| {
            let ca_certificates = if ca { vec![Vec::new()] } else { Vec::new() };
            let options = RegistryOptions { plain_http, ca_certificates, ..RegistryOptions::default() };
            assert_eq!(Host::new(host, &options).unwrap().base.as_str(), base, "{host}");
        };
        check("127.0.0.1:5000", false, false, "http://127.0.0.1:5000/");
        check("127.0.0.1:5000", false, true, "https://127.0.0.1:5000/");
        check("[::1]:5000", false, false, "http://[::1]:5000/");
        check("localhost", false, false, "http://localhost/");
        check("localhost:443", false, false, "http://localhost:443/");
        check("127.0.0.1.example.com", false, false, "https://127.0.0.1.example.com/");
        check("localhost.example.com", false, false, "https://localhost.example.com/");
        check("10.0.0.1:5000", false, false, "https://10.0.0.1:5000/");
        check("10.0.0.1:5000", true, false, "http://10.0.0.1:5000/");
        check("docker.io", false, false, "https://registry-1.docker.io/");
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for bad in ["", "a/b", "user@host", "user:pw@host", "host?x", "host#x", "host:99999", "ho st", "[::1"] {
            assert!(Host::new(bad, &RegistryOptions::default()).is_err(), "{bad}");
        }
    }

    #[test]
    fn repositories_without_an_owner_are_the_librarys_at_docker_alone() {
        let url = |host, repository| {
            let host = Host::new(host, &RegistryOptions::default()).unwrap();
            host.url(&host.repository_name(repository), "tags/list").to_string()
        };
        assert_eq!(url("docker.io", "a"), "https://registry-1.docker.io/v2/library/a/tags/list");
        assert_eq!(url("docker.io", "o/a"), "https://registry-1.docker.io/v2/o/a/tags/list");
        assert_eq!(url("ghcr.io", "a"), "https://ghcr.io/v2/a/tags/list");
    }

    #[test]
    fn secrets_and_credentials_stay_where_they_belong() {
        let host = Host::new("reg.example", &RegistryOptions::default()).unwrap();
        let url = |text: &str| text.parse::<Url>().unwrap();
        assert!(host.is_origin_of(&url("https://reg.example/v2/x?y")));
        for other in
            ["http://reg.example/", "https://reg.example:444/", "https://cdn.reg.example/", "https://reg.example.x/"]
        {
            assert!(!host.is_origin_of(&url(other)), "{other}");
        }
        assert!(host.may_carry_secrets(&url("https://auth.example/")));
        assert!(!host.may_carry_secrets(&url("http://auth.example/")));
        assert!(!host.may_follow(&url("http://reg.example/")));
        assert!(!host.may_follow(&url("file:///etc/passwd")));
    }
}
