//! From a name on the command line to a registry: the flags that push and pull share, and short names completed.

use std::io::{BufRead as _, Read as _};
use std::path::PathBuf;
use std::sync::Arc;

use mlxctl_artifact::Reference;
use mlxctl_content::Observer;
use mlxctl_registry::{DockerConfig, Proxy, Registry, RegistryOptions, RemoteRepository, Secret};

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

    /// Blobs on their way at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,
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
    let mut options =
        RegistryOptions { plain_http: args.plain_http, proxy: Proxy::System, observer, ..RegistryOptions::default() };
    if let Some(path) = &args.ca_file {
        let pem = std::fs::read(path).map_err(|error| Failure::wrong(format!("{}: {error}", path.display())))?;
        options.ca_certificates.push(pem);
    }
    if let Some(path) = &context.settings.docker_config {
        options.credentials = Arc::new(DockerConfig::new(path));
    }
    Ok(Registry::new(host, &options)?.repository(reference))
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
