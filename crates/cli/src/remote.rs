//! From a name on the command line to a registry: the flags that push and pull share, and short names completed.

use std::io::{BufRead as _, Read as _};
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use mlxctl_artifact::Reference;
use mlxctl_content::Observer;
use mlxctl_registry::{DockerConfig, Proxy, Registry, RegistryOptions, RemoteRepository, Secret, SessionFolder};

use crate::context::Context;
use crate::failure::Failure;

/// The longest password; tokens that serve as one have a few thousand bytes.
const MAX_PASSWORD_BYTES: u64 = 64 << 10;

/// How to reach a registry.
#[derive(clap::Args)]
pub(crate) struct Flags {
    /// Speak http to a registry that is not on this machine; credentials then travel in the clear.
    #[arg(long)]
    plain_http: bool,

    /// Trust the certificate authorities of this PEM file too.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,

    /// Blobs, and ranges of large ones, on their way at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,

    /// The most bytes a second, as in 500k, 20M or 1G; all transfers together.
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit_rate: Option<NonZeroU64>,

    /// Accept any certificate: whoever stands between here and the registry can read and change everything.
    #[arg(long, conflicts_with = "plain_http")]
    insecure: bool,

    /// Show this certificate to the registry (PEM, the key may stand in it).
    #[arg(long, value_name = "FILE")]
    client_cert: Option<PathBuf>,

    /// The key of the client's certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
}

/// A name at a registry: as given, or completed by the configured one.
pub(crate) fn reference(context: &Context, name: &Reference) -> Result<Reference, Failure> {
    match (name.registry(), &context.settings.registry) {
        (Some(_), _) => Ok(name.clone()),
        (None, Some(prefix)) => Ok(name.under(prefix)?),
        (None, None) => Err(Failure::wrong(format!("{name} names no registry"))
            .hint("name one, as in ghcr.io/org/model:tag, or set MLXCTL_REGISTRY")),
    }
}

/// The repository that a completed reference names.
pub(crate) fn repository(
    context: &Context,
    args: &Flags,
    reference: &Reference,
    observer: Arc<dyn Observer>,
) -> Result<RemoteRepository, Failure> {
    let host = reference.registry().ok_or_else(|| Failure::wrong(format!("{reference} names no registry")))?;
    Ok(Registry::new(host, &options(context, args, observer)?)?.repository(reference))
}

/// The flags, the files they name, and the credentials of Docker's configuration.
pub(crate) fn options(
    context: &Context,
    args: &Flags,
    observer: Arc<dyn Observer>,
) -> Result<RegistryOptions, Failure> {
    let read =
        |path: &PathBuf| std::fs::read(path).map_err(|error| Failure::wrong(format!("{}: {error}", path.display())));
    let mut options = RegistryOptions {
        plain_http: args.plain_http,
        insecure: args.insecure,
        proxy: Proxy::System,
        connections: args.jobs.into(),
        bytes_per_second: args.limit_rate,
        observer,
        ..RegistryOptions::default()
    };
    if args.insecure {
        context.printer.note("warning: --insecure accepts any certificate; what comes may be anybody's");
    }
    if let Some(path) = &args.ca_file {
        options.ca_certificates.push(read(path)?);
    }
    if let Some(path) = &args.client_cert {
        let mut pem = read(path)?;
        if let Some(key) = &args.client_key {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        options.client_certificate = Some(pem);
    }
    options.sessions = Some(Arc::new(SessionFolder::new(context.settings.home.join("uploads"))));
    if let Some(path) = &context.settings.docker_config {
        options.credentials = Arc::new(DockerConfig::new(path));
    }
    Ok(options)
}

/// A rate such as `20M`: decimal units, as sizes are shown.
fn rate(text: &str) -> Result<NonZeroU64, String> {
    let wrong = || format!("'{text}' is no rate; expected bytes a second such as 500k, 20M or 1G");
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (&text[..at], 1_000),
        Some((at, 'm' | 'M')) => (&text[..at], 1_000_000),
        Some((at, 'g' | 'G')) => (&text[..at], 1_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).and_then(NonZeroU64::new).ok_or_else(wrong)
}

/// A registry as it is named to `login`: an address is cut down to its host and port.
pub(crate) fn registry_name(text: &str) -> Result<String, Failure> {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = host.trim_end_matches('/');
    let host = if matches!(host, "index.docker.io" | "index.docker.io/v1" | "registry-1.docker.io") {
        "docker.io"
    } else {
        host
    };
    if host.is_empty() || host.contains(['/', '@', ' ']) {
        return Err(
            Failure::wrong(format!("'{text}' is not a registry")).hint("name a host, as in ghcr.io or localhost:5000")
        );
    }
    Ok(host.to_owned())
}

/// Runs `read` while the terminal does not show what is typed.
pub(crate) fn without_echo<T>(read: impl FnOnce() -> T) -> T {
    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin();
    let before = tcgetattr(&stdin).ok();
    if let Some(before) = &before {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        // Where the terminal does not obey, the person sees it.
        let _ = tcsetattr(&stdin, OptionalActions::Flush, &silent);
    }
    let result = read();
    if let Some(before) = &before {
        let _ = tcsetattr(&stdin, OptionalActions::Flush, before);
    }
    result
}

/// The first line of stdin: a password that no process list shows.
pub(crate) fn password_from_stdin() -> Result<Secret, Failure> {
    let mut line = String::new();
    let read = std::io::stdin().lock().take(MAX_PASSWORD_BYTES).read_line(&mut line);
    read.map_err(|error| Failure::wrong(format!("the password could not be read from stdin: {error}")))?;
    let password = line.trim_end_matches(['\n', '\r']);
    if password.is_empty() {
        return Err(Failure::wrong("stdin holds no password on its first line"));
    }
    Ok(Secret::new(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(rate(text).ok().map(NonZeroU64::get), bytes, "{text}");
        check("1", Some(1));
        check("500k", Some(500_000));
        check("20M", Some(20_000_000));
        check("1G", Some(1_000_000_000));
        for bad in ["", "0", "k", "-1", "1.5M", "99999999999999999999", "99999999999G", "1T", "é"] {
            check(bad, None);
        }
    }
}
