//! Credentials from Docker's `config.json`: `auths`, `credHelpers`, `credsStore`. Read only.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::credentials::{Credential, Credentials, Secret};
use crate::error::{Error, printable};
use crate::helper::{self, Helpers};

/// The largest `config.json` that is read.
const MAX_CONFIG: u64 = 1 << 20;
/// Under this key Docker's own registry is kept.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Looks credentials up as Docker does. The file is read at each lookup, so that a login during a long transfer is
/// seen; a file that does not exist holds no credentials.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    path: PathBuf,
    helper_path: Option<OsString>,
    helper_timeout: Duration,
}

impl DockerConfig {
    /// The configuration at `path`, for example `~/.docker/config.json`. Credential helpers are looked up on the
    /// process's program path and get half a minute to answer.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), helper_path: None, helper_timeout: Duration::from_secs(30) }
    }

    /// The same with another list of folders, in the form of `PATH`, in which helpers are looked up.
    pub fn with_helper_path(mut self, folders: impl Into<OsString>) -> Self {
        self.helper_path = Some(folders.into());
        self
    }

    /// The same with another time limit for helpers.
    pub fn with_helper_timeout(mut self, limit: Duration) -> Self {
        self.helper_timeout = limit;
        self
    }
}

/// Where a credential is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keeper {
    /// In a helper's store, by the name of its program.
    Helper(String),
    /// In Docker's configuration, readable by its owner alone and not encrypted.
    File(PathBuf),
}

impl DockerConfig {
    fn helpers(&self) -> Helpers<'_> {
        Helpers { folders: self.helper_path.as_deref(), limit: self.helper_timeout }
    }

    /// Keeps a credential as Docker does: in the helper that is configured for the registry, else in the file. What
    /// else the file holds stays as it is.
    ///
    /// # Errors
    /// [`Error::Credentials`].
    pub async fn store(&self, registry: &str, credential: &Credential) -> Result<Keeper, Error> {
        let wrong = |reason: String| Error::Credentials { registry: registry.to_owned(), reason };
        let config = read(&self.path).map_err(wrong)?;
        if let Some(name) = config.helper(registry) {
            helper::store(name, server(registry), credential, self.helpers()).await.map_err(wrong)?;
            // Docker leaves an empty entry, by which it lists its logins.
            self.write(registry, Some(serde_json::json!({}))).map_err(wrong)?;
            return Ok(Keeper::Helper(format!("docker-credential-{name}")));
        }
        let entry = match credential {
            Credential::Basic { user, password } => {
                serde_json::json!({"auth": STANDARD.encode(format!("{user}:{}", password.reveal()))})
            }
            Credential::IdentityToken(token) => {
                serde_json::json!({"auth": STANDARD.encode("00000000-0000-0000-0000-000000000000:"), "identitytoken": token.reveal()})
            }
            Credential::Anonymous => return Err(wrong("there is nothing to keep".to_owned())),
        };
        self.write(registry, Some(entry)).map_err(wrong)?;
        Ok(Keeper::File(self.path.clone()))
    }

    /// Forgets what is kept for a registry, in the helper and in the file; whether there was something.
    ///
    /// # Errors
    /// [`Error::Credentials`].
    pub async fn erase(&self, registry: &str) -> Result<bool, Error> {
        let wrong = |reason: String| Error::Credentials { registry: registry.to_owned(), reason };
        let config = read(&self.path).map_err(wrong)?;
        let mut erased = false;
        if let Some(name) = config.helper(registry) {
            erased = helper::erase(name, server(registry), self.helpers()).await.map_err(wrong)?;
        }
        Ok(self.write(registry, None).map_err(wrong)? || erased)
    }

    /// Replaces the entry of a registry; whether there was one. The file is replaced in one step.
    fn write(&self, registry: &str, entry: Option<serde_json::Value>) -> Result<bool, String> {
        // A link leads to where its owner keeps the file.
        let path = std::fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let named = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut document = match std::fs::read(&path) {
            Ok(content) if !content.trim_ascii().is_empty() => serde_json::from_slice(&content)
                .map_err(|_| format!("{}: not the shape of Docker's config.json", path.display()))?,
            Ok(_) => serde_json::json!({}),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => serde_json::json!({}),
            Err(error) => return Err(named(error)),
        };
        let shape = || format!("{}: not the shape of Docker's config.json", path.display());
        let auths = document.as_object_mut().ok_or_else(shape)?.entry("auths").or_insert_with(|| serde_json::json!({}));
        let auths = auths.as_object_mut().ok_or_else(shape)?;
        let before = auths.len();
        auths.retain(|key, _| !is_key_of(key, registry));
        let was_there = auths.len() < before;
        match entry {
            Some(entry) => drop(auths.insert(server(registry).to_owned(), entry)),
            None if !was_there => return Ok(false),
            None => {}
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(named)?;
        let fresh = path.with_extension(format!("json.{}", std::process::id()));
        let text = serde_json::to_string_pretty(&document).map_err(|error| error.to_string())? + "\n";
        let mut options = std::fs::OpenOptions::new();
        let written = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh);
        written.and_then(|mut file| file.write_all(text.as_bytes())).map_err(named)?;
        std::fs::rename(&fresh, &path).map_err(named)?;
        Ok(was_there)
    }
}

/// The name by which helpers and the file know a registry.
fn server(registry: &str) -> &str {
    if registry == "docker.io" { DOCKER_HUB_KEY } else { registry }
}

impl Config {
    /// The helper that keeps a registry's credentials.
    fn helper(&self, registry: &str) -> Option<&str> {
        let named = self.cred_helpers.iter().find(|(key, _)| is_key_of(key, registry)).map(|(_, helper)| helper);
        named.or(self.creds_store.as_ref()).map(String::as_str).filter(|name| !name.is_empty())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[async_trait]
impl Credentials for DockerConfig {
    async fn for_registry(&self, registry: &str) -> Result<Credential, Error> {
        let wrong = |reason: String| Error::Credentials { registry: registry.to_owned(), reason };
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path));
        let config = read.await.map_err(|error| wrong(error.to_string()))?.map_err(wrong)?;
        if let Some(name) = config.helper(registry) {
            let found = helper::ask(name, server(registry), self.helpers()).await.map_err(wrong)?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        // An exact key goes before one that only means the same registry.
        let exact = config.auths.get(registry);
        let entry =
            exact.or_else(|| config.auths.iter().find(|(key, _)| is_key_of(key, registry)).map(|(_, entry)| entry));
        entry.map_or(Ok(Credential::Anonymous), |entry| entry.credential().map_err(wrong))
    }
}

impl Entry {
    fn credential(&self) -> Result<Credential, String> {
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Credential::IdentityToken(Secret::new(token)));
        }
        if let Some(auth) = filled(&self.auth) {
            let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = decoded.as_deref().and_then(|text| text.trim_end_matches('\0').split_once(':'));
            let (user, password) =
                pair.ok_or("the 'auth' entry of Docker's config.json is not base64 of 'user:password'")?;
            return Ok(Credential::Basic { user: user.to_owned(), password: Secret::new(password) });
        }
        match (filled(&self.username), filled(&self.password)) {
            (Some(user), Some(password)) => Ok(Credential::Basic { user, password: Secret::new(password) }),
            // Docker leaves an empty entry where a store holds the secret.
            _ => Ok(Credential::Anonymous),
        }
    }
}

/// Keys are a host, or an address from the time of Docker's first registry.
fn is_key_of(key: &str, registry: &str) -> bool {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = host.split('/').next().unwrap_or(host);
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    host.eq_ignore_ascii_case(registry)
}

fn read(path: &Path) -> Result<Config, String> {
    let named = |what: &str| format!("{}: {what}", path.display());
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Config::default()),
        Err(error) => return Err(named(&error.to_string())),
    };
    let mut bytes = Vec::new();
    file.take(MAX_CONFIG + 1).read_to_end(&mut bytes).map_err(|error| named(&error.to_string()))?;
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(named("the file is larger than 1 MiB"));
    }
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Config::default());
    }
    // serde quotes the value that has the wrong type, which may be a secret: line and column say enough.
    serde_json::from_slice(&bytes).map_err(|error| {
        let place = format!("line {}, column {}: not the shape of Docker's config.json", error.line(), error.column());
        named(&printable(&place, 200))
    })
}

/// Reads a configuration and every entry of it; no helper is run.
pub(crate) fn examine(bytes: &[u8]) {
    let Ok(config) = serde_json::from_slice::<Config>(bytes) else { return };
    for (key, entry) in &config.auths {
        let _ = (is_key_of(key, "docker.io"), entry.credential());
    }
    let _ = config.helper("docker.io");
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn look_up(config: &str, registry: &str) -> Result<Credential, Error> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        DockerConfig::new(path).for_registry(registry).await
    }

    fn basic(user: &str, password: &str) -> Credential {
        Credential::Basic { user: user.to_owned(), password: Secret::new(password) }
    }

    #[tokio::test]
    async fn entries_are_found_under_every_key_docker_writes() {
        // base64("ada:s3:cret")
        let auth = r#"{"auth":"YWRhOnMzOmNyZXQ="}"#;
        for (key, registry) in [
            ("reg.io:5000", "reg.io:5000"),
            ("https://reg.io/v2/", "reg.io"),
            ("http://reg.io", "reg.io"),
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
        ] {
            let config = format!(r#"{{"auths":{{"other.io":{{}},"{key}":{auth}}},"HttpHeaders":{{}}}}"#);
            assert_eq!(look_up(&config, registry).await.unwrap(), basic("ada", "s3:cret"), "{key}");
        }
        let config = format!(r#"{{"auths":{{"reg.io":{auth}}}}}"#);
        for other in ["reg.io:5000", "evil-reg.io", "io"] {
            assert_eq!(look_up(&config, other).await.unwrap(), Credential::Anonymous, "{other}");
        }
    }

    #[tokio::test]
    async fn every_form_of_an_entry_is_understood() {
        let one = |entry: &str| format!(r#"{{"auths":{{"r.io":{entry}}}}}"#);
        let token = Credential::IdentityToken(Secret::new("t"));
        assert_eq!(look_up(&one(r#"{"auth":"YTpi","identitytoken":"t"}"#), "r.io").await.unwrap(), token);
        assert_eq!(look_up(&one(r#"{"username":"a","password":"b"}"#), "r.io").await.unwrap(), basic("a", "b"));
        assert_eq!(look_up(&one("{}"), "r.io").await.unwrap(), Credential::Anonymous);
        assert_eq!(look_up("  ", "r.io").await.unwrap(), Credential::Anonymous);
        let absent = DockerConfig::new("/nonexistent/config.json").for_registry("r.io").await;
        assert_eq!(absent.unwrap(), Credential::Anonymous);
    }

    #[tokio::test]
    async fn a_broken_configuration_is_an_error_that_keeps_its_secrets() {
        let check = async |config: &str, expected: &str| {
            let message = look_up(config, "r.io").await.unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        };
        check(r#"{"auths":{"r.io":{"auth":"hunter2!"}}}"#, "base64").await;
        check(r#"{"auths":{"r.io":{"auth":["hunter2"]}}}"#, "line 1").await;
        check(r#"{"auths":{"r.io":"hunter2"}}"#, "line 1").await;
        check("{", "line 1").await;
        check(r#"{"credsStore":"../../bin/evil"}"#, "name").await;
        check(r#"{"credHelpers":{"r.io":"no-such-helper-here"}}"#, "docker-credential-no-such-helper-here").await;
    }

    /// A helper that runs `script`, and a configuration that names it.
    async fn helped(script: &str, config: &str) -> Result<Credential, Error> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("docker-credential-test");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        let folders = format!("{}:/usr/bin:/bin", folder.path().display());
        let config = DockerConfig::new(path).with_helper_path(folders).with_helper_timeout(Duration::from_secs(5));
        config.for_registry("r.io").await
    }

    #[tokio::test]
    async fn helpers_are_asked_for_the_registry() {
        let by_name = r#"{"credHelpers":{"r.io":"test"},"credsStore":"absent"}"#;
        let by_store = r#"{"credsStore":"test","auths":{"r.io":{"auth":"YTpi"}}}"#;
        let echo =
            r#"read server; [ "$1" = get ] && printf '{"ServerURL":"%s","Username":"%s","Secret":"s"}' x "$server""#;
        for config in [by_name, by_store] {
            assert_eq!(helped(echo, config).await.unwrap(), basic("r.io", "s"), "{config}");
        }
        let token = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(helped(token, by_name).await.unwrap(), Credential::IdentityToken(Secret::new("t")));
        // A store that does not know the registry leaves the word to the entry.
        let unknown = "echo 'credentials not found in native keychain'; exit 1";
        assert_eq!(helped(unknown, by_store).await.unwrap(), basic("a", "b"));
        assert_eq!(helped(unknown, by_name).await.unwrap(), Credential::Anonymous);
    }

    #[tokio::test]
    async fn a_helper_that_fails_is_an_error_and_what_it_printed_stays_secret() {
        let config = r#"{"credsStore":"test","auths":{"r.io":{"auth":"YTpi"}}}"#;
        let check = async |script: &str, expected: &str| {
            let message = helped(script, config).await.unwrap_err().to_string();
            assert!(message.contains(expected) && message.contains("docker-credential-test"), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        };
        check("echo hunter2; echo hunter2 >&2; exit 3", "failed").await;
        check("echo hunter2", "no credential").await;
        check("yes hunter2", "more than 64 KiB").await;
    }

    #[tokio::test]
    async fn what_is_stored_is_found_and_erased_and_the_rest_of_the_file_stays() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real/config.json"), folder.path().join("config.json"));
        std::os::unix::fs::symlink(&path, &link).unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::fs::write(
            &path,
            r#"{"auths":{"a.io":{"auth":"YTpi"},"https://index.docker.io/v1/":{}},"currentContext":"x"}"#,
        )
        .unwrap();
        let config = DockerConfig::new(&link);
        assert_eq!(config.store("r.io", &basic("ada", "s:cret")).await.unwrap(), Keeper::File(link.clone()));
        assert_eq!(config.for_registry("r.io").await.unwrap(), basic("ada", "s:cret"));
        let token = Credential::IdentityToken(Secret::new("t"));
        config.store("docker.io", &token).await.unwrap();
        assert_eq!(config.for_registry("docker.io").await.unwrap(), token);
        assert_eq!(config.for_registry("a.io").await.unwrap(), basic("a", "b"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(config.erase("docker.io").await.unwrap() && !config.erase("docker.io").await.unwrap());
        assert!(config.erase("r.io").await.unwrap());
        let left: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(left, serde_json::json!({"auths": {"a.io": {"auth": "YTpi"}}, "currentContext": "x"}));
    }

    #[tokio::test]
    async fn a_helper_keeps_what_is_stored_and_the_file_does_not() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("docker-credential-test");
        let kept = folder.path().join("kept");
        let script = format!(
            "#!/bin/sh\ncase $1 in store) cat > {0};; erase) rm {0};; get) cat {0} 2>/dev/null || {{ echo credentials not found in native keychain; exit 1; }};; esac\n",
            kept.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, r#"{"credsStore":"test"}"#).unwrap();
        let config = DockerConfig::new(&path).with_helper_path(format!("{}:/usr/bin:/bin", folder.path().display()));
        let keeper = config.store("r.io", &basic("ada", "hunter2")).await.unwrap();
        assert_eq!(keeper, Keeper::Helper("docker-credential-test".to_owned()));
        assert_eq!(config.for_registry("r.io").await.unwrap(), basic("ada", "hunter2"));
        assert!(!std::fs::read_to_string(&path).unwrap().contains("hunter2"));
        assert!(config.erase("r.io").await.unwrap());
        assert_eq!(config.for_registry("r.io").await.unwrap(), Credential::Anonymous);
    }

    #[tokio::test(start_paused = true)]
    async fn a_helper_that_never_answers_is_given_up() {
        let refused = helped("exec sleep 600", r#"{"credsStore":"test"}"#).await.unwrap_err().to_string();
        assert!(refused.contains("no answer within 5 s"), "{refused}");
    }
}
