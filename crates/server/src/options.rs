//! The command line of `mlxserve`.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};
use mlxctl_artifact::{Digest, Reference};

/// Mounts models by digest and serves them over HTTP: Ollama's API under /api, OpenAI's under /v1.
#[derive(Debug, Parser)]
#[command(name = "mlxserve", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Example: mlxserve pebble:1.0.0 --port 8081\n         mlxserve dir:/models/pebble")]
pub struct Command {
    /// What else it can do.
    #[command(subcommand)]
    pub action: Option<Action>,
    /// How to serve.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What `mlxserve` does beside serving.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Replay the tests of a model's recipe; `mlxctl verify --smoke` calls this.
    #[command(hide = true)]
    Smoke(SmokeArgs),
}

/// Which models to serve, where and how.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// References to mount at the start, pulled where the store has none, or model folders: `dir:PATH[@sha256:…]`.
    /// Other models of the store are mounted when a request names them.
    #[arg(value_name = "REF|dir:PATH")]
    pub models: Vec<Target>,
    /// The address to listen on [default: 127.0.0.1].
    #[arg(long)]
    pub host: Option<String>,
    /// The port to listen on; 0 is any free one [default: 8081].
    #[arg(long)]
    pub port: Option<u16>,
    /// A further name by which clients may address this server.
    #[arg(long = "allow-host", value_name = "NAME")]
    pub allow_hosts: Vec<String>,
    /// Never pull.
    #[arg(long)]
    pub offline: bool,
    /// Seconds that running requests are given at the end.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub drain: u64,
    /// What all commands share.
    #[command(flatten)]
    pub mount: MountArgs,
}

/// How models are mounted.
#[derive(Debug, Clone, Args)]
pub struct MountArgs {
    /// The folder of store, logs and settings [default: ~/.mlxctl].
    #[arg(long)]
    pub home: Option<PathBuf>,
    /// The configuration file [default: config.yaml in the home folder].
    #[arg(long)]
    pub config: Option<PathBuf>,
    /// What computes.
    #[arg(long, value_enum, default_value_t)]
    pub backend: BackendKind,
    /// Threads of the CPU backend [default: the machine's cores].
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
    /// Tokens of prompt and answer together at the most [default: the recipe's, else the model's].
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<NonZeroUsize>,
    /// Requests of a model that run at once.
    #[arg(long, default_value = "8", value_name = "N")]
    pub max_sequences: NonZeroUsize,
    /// Requests of a model that may wait.
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub queue: usize,
    /// Tokens of one step, over all requests that share it.
    #[arg(long, default_value = "512", value_name = "TOKENS")]
    pub step_tokens: NonZeroUsize,
    /// Memory of a model's keys and values at the most, in MiB.
    #[arg(long, default_value = "4096", value_name = "MIB")]
    pub kv_memory: NonZeroUsize,
    /// Hash the weights even where a seal vouches for them.
    #[arg(long)]
    pub verify: bool,
}

/// Which model's tests to replay.
#[derive(Debug, Clone, Args)]
pub struct SmokeArgs {
    /// The model.
    #[arg(value_name = "REF|dir:PATH")]
    pub model: Target,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// What all commands share.
    #[command(flatten)]
    pub mount: MountArgs,
}

/// What computes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BackendKind {
    /// The best that this build has for this machine.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// MLX.
    Mlx,
}

/// A model named on the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A model of the store or of a registry, by its name in full.
    Reference(Reference),
    /// Something that only the store can complete, such as a shortened digest.
    Short(String),
    /// A folder, with the digest of the manifest that its files must be those of.
    Folder(PathBuf, Option<Digest>),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(folder) = text.strip_prefix("dir:") {
            let (path, digest) = match folder.rsplit_once("@sha256:") {
                Some((path, hex)) => {
                    (path, Some(format!("sha256:{hex}").parse::<Digest>().map_err(|error| error.to_string())?))
                }
                None => (folder, None),
            };
            if path.is_empty() {
                return Err("expected a path after dir:".to_owned());
            }
            return Ok(Self::Folder(PathBuf::from(path), digest));
        }
        match text.parse::<Reference>() {
            Ok(reference) => Ok(Self::Reference(reference)),
            Err(_) if text.contains('@') || text.starts_with("sha256:") => Ok(Self::Short(text.to_owned())),
            Err(error) => Err(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Command::command().debug_assert();
    }

    #[test]
    fn targets_are_references_or_folders() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let folder = |text: &str| match text.parse::<Target>() {
            Ok(Target::Folder(path, digest)) => (path.display().to_string(), digest.is_some()),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(folder("dir:/a/b"), ("/a/b".to_owned(), false));
        assert_eq!(folder("dir:a@b"), ("a@b".to_owned(), false));
        assert_eq!(folder(&format!("dir:/a@{digest}")), ("/a".to_owned(), true));
        assert!("dir:".parse::<Target>().is_err());
        assert!("dir:/a@sha256:12".parse::<Target>().is_err());
        assert!(matches!("pebble:1".parse::<Target>(), Ok(Target::Reference(_))));
        assert!(matches!("pebble@sha256:abcdef".parse::<Target>(), Ok(Target::Short(_))));
        assert!("Pebble!".parse::<Target>().is_err());
    }
}
