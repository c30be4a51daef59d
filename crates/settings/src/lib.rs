//! Where both programs get their settings: flags beat the environment, the environment beats `config.yaml` in the home
//! folder, and that beats the defaults. No other room reads the environment.

mod environment;
mod file;
pub mod variables;

use std::path::PathBuf;

pub use environment::Environment;
pub use file::ConfigFile;

/// The port that `mlxserve` listens on where nothing else is said.
pub const DEFAULT_PORT: u16 = 8081;
/// The address that `mlxserve` listens on where nothing else is said.
pub const DEFAULT_HOST: &str = "127.0.0.1";

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A variable or key whose value does not fit.
    #[error("{origin}: {found:?} is not {expected}")]
    Value {
        /// The variable, flag or key.
        origin: String,
        /// Its value.
        found: String,
        /// What it should be.
        expected: &'static str,
    },
    /// The configuration file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The configuration file does not follow its schema.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        message: String,
    },
    /// There is no home folder to keep the store in.
    #[error("no home folder: neither {} nor HOME is set", variables::MLXCTL_HOME.name)]
    NoHome,
}

/// What the command line says; what it does not say is `None`.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    /// `--home`.
    pub home: Option<PathBuf>,
    /// `--host`.
    pub host: Option<String>,
    /// `--port`.
    pub port: Option<u16>,
    /// `--config`.
    pub config: Option<PathBuf>,
}

/// The settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The folder of everything that is kept: store, cache, logs.
    pub home: PathBuf,
    /// The address of `mlxserve`.
    pub host: String,
    /// The port of `mlxserve`; 0 is any free one.
    pub port: u16,
    /// What completes short names on push and pull, for example `ghcr.io/org`.
    pub registry: Option<String>,
    /// The filter of log lines, for example `info` or `mlxserve=debug`.
    pub log: String,
    /// Docker's `config.json`, which holds credentials and their helpers.
    pub docker_config: Option<PathBuf>,
    /// Threads of the CPU backend; the machine's cores where nothing is said.
    pub threads: Option<usize>,
    /// The hub that recipes name.
    pub hub: HubSettings,
}

/// How to reach the hub.
#[derive(Clone, PartialEq, Eq)]
pub struct HubSettings {
    /// Its address.
    pub endpoint: String,
    /// The folder of its own tools: their token, and the cache unless it lies elsewhere. `None` without a home.
    pub home: Option<PathBuf>,
    /// The cache.
    pub cache: Option<PathBuf>,
    token: Option<String>,
}

impl std::fmt::Debug for HubSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubSettings")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl HubSettings {
    fn resolve(environment: &Environment, user_home: Option<&PathBuf>) -> Result<Self, Error> {
        let text = |variable| environment.text(variable);
        let home = text(&variables::HF_HOME)?.map(PathBuf::from);
        let home = home.or_else(|| user_home.map(|home| home.join(".cache").join("huggingface")));
        let cache = text(&variables::HF_HUB_CACHE)?.map(PathBuf::from);
        Ok(Self {
            endpoint: text(&variables::HF_ENDPOINT)?.unwrap_or_else(|| "https://huggingface.co".to_owned()),
            cache: cache.or_else(|| home.as_ref().map(|home| home.join("hub"))),
            token: text(&variables::HF_TOKEN)?,
            home,
        })
    }

    /// The token: the environment's, else the one that the hub's own tools keep.
    pub fn token(&self) -> Option<String> {
        let kept = || std::fs::read_to_string(self.home.as_ref()?.join("token")).ok();
        let token = self.token.clone().or_else(kept)?;
        Some(token.trim().to_owned()).filter(|token| !token.is_empty())
    }
}

impl Settings {
    /// Puts flags, environment, file and defaults together.
    pub fn resolve(flags: Flags, environment: &Environment) -> Result<Self, Error> {
        let user_home = environment.text(&variables::HOME)?.map(PathBuf::from);
        let home = match (flags.home, environment.text(&variables::MLXCTL_HOME)?) {
            (Some(home), _) => home,
            (None, Some(home)) => PathBuf::from(home),
            (None, None) => user_home.as_ref().ok_or(Error::NoHome)?.join(".mlxctl"),
        };
        let file = match flags.config {
            Some(path) => ConfigFile::read(&path)?,
            None => ConfigFile::read_if_present(&home.join("config.yaml"))?,
        };
        let docker_folder = environment.text(&variables::DOCKER_CONFIG)?.map(PathBuf::from);
        let hub = HubSettings::resolve(environment, user_home.as_ref())?;
        let docker_folder = docker_folder.or_else(|| user_home.map(|home| home.join(".docker")));
        Ok(Self {
            hub,
            host: flags
                .host
                .or(environment.text(&variables::MLX_HOST)?)
                .or(file.host)
                .unwrap_or_else(|| DEFAULT_HOST.to_owned()),
            port: match flags.port {
                Some(port) => port,
                None => environment
                    .number(&variables::MLX_PORT, "a port, 0 to 65535")?
                    .or(file.port)
                    .unwrap_or(DEFAULT_PORT),
            },
            registry: environment.text(&variables::MLXCTL_REGISTRY)?.or(file.registry),
            log: environment.text(&variables::MLXCTL_LOG)?.or(file.log).unwrap_or_else(|| "info".to_owned()),
            threads: environment
                .number(&variables::MLXCTL_THREADS, "a number of threads")?
                .or(file.threads)
                .filter(|n| *n > 0),
            docker_config: docker_folder.map(|folder| folder.join("config.json")),
            home,
        })
    }

    /// The local store.
    pub fn store(&self) -> PathBuf {
        self.home.join("store")
    }

    /// Where a running `mlxserve` says how to reach it.
    pub fn run_file(&self) -> PathBuf {
        self.home.join("run").join("mlxserve.json")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    #[test]
    fn flags_beat_the_environment_beats_the_file_beats_defaults() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().to_str().unwrap();
        let port = |flag: Option<u16>, pairs: &[(&str, &str)]| {
            let flags = Flags { port: flag, ..Flags::default() };
            Settings::resolve(flags, &environment(&[&[("MLXCTL_HOME", at)], pairs].concat())).unwrap().port
        };
        assert_eq!(port(None, &[]), 8081);
        std::fs::write(home.path().join("config.yaml"), "port: 1\nregistry: ghcr.io/org\n").unwrap();
        assert_eq!(port(None, &[]), 1);
        assert_eq!(port(None, &[("MLX_PORT", "2")]), 2);
        assert_eq!(port(Some(3), &[("MLX_PORT", "2")]), 3);
    }

    #[test]
    fn the_hub_is_reached_as_its_own_tools_reach_it() {
        let home = tempfile::tempdir().unwrap();
        let at = home.path().to_str().unwrap();
        let hub = |pairs: &[(&str, &str)]| {
            let pairs = [&[("HOME", at), ("MLXCTL_HOME", at)], pairs].concat();
            Settings::resolve(Flags::default(), &environment(&pairs)).unwrap().hub
        };
        let plain = hub(&[]);
        assert_eq!(plain.endpoint, "https://huggingface.co");
        assert_eq!(plain.cache, Some(home.path().join(".cache/huggingface/hub")));
        assert_eq!(plain.token(), None);
        std::fs::write(home.path().join("token"), "hf_kept\n").unwrap();
        assert_eq!(hub(&[("HF_HOME", at)]).token().as_deref(), Some("hf_kept"));
        let set = hub(&[("HF_HOME", at), ("HF_TOKEN", "hf_set"), ("HF_HUB_CACHE", "/c"), ("HF_ENDPOINT", "http://h")]);
        assert_eq!((set.token().as_deref(), set.cache.as_deref()), (Some("hf_set"), Some("/c".as_ref())));
        assert!(!format!("{set:?}").contains("hf_set"));
    }

    #[test]
    fn a_value_that_does_not_fit_names_its_variable() {
        let found = Settings::resolve(Flags::default(), &environment(&[("HOME", "/nowhere"), ("MLX_PORT", "70000")]));
        assert_eq!(found.unwrap_err().to_string(), "MLX_PORT: \"70000\" is not a port, 0 to 65535");
    }

    #[test]
    fn a_mistyped_key_of_the_file_names_its_place_and_the_nearest_key() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("config.yaml"), "host: localhost\nprot: 1\n").unwrap();
        let flags = Flags { home: Some(home.path().to_owned()), ..Flags::default() };
        let message = Settings::resolve(flags, &Environment::default()).unwrap_err().to_string();
        assert!(message.contains("config.yaml") && message.contains("prot") && message.contains(":2"), "{message}");
    }

    #[test]
    fn without_any_home_the_error_says_so() {
        let error = Settings::resolve(Flags::default(), &Environment::default()).unwrap_err();
        assert_eq!(error.to_string(), "no home folder: neither MLXCTL_HOME nor HOME is set");
    }
}
