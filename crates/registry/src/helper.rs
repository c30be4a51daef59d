//! Runs a Docker credential helper: a program that prints one credential as JSON.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;

use crate::credentials::{Credential, Secret};
use crate::error::printable;

/// The most that is read of a helper's answer.
const MAX_ANSWER: u64 = 64 << 10;
/// The user's name by which a helper says that its secret is an identity token.
const TOKEN_USER: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Where helpers are looked up, and how long they may take.
#[derive(Clone, Copy)]
pub(crate) struct Helpers<'a> {
    pub(crate) folders: Option<&'a OsStr>,
    pub(crate) limit: Duration,
}

/// What `docker-credential-<name> get` says of `server`; `None` where it knows no credential.
///
/// # Errors
/// The reason, without what the program printed: that may be a secret.
pub(crate) async fn ask(name: &str, server: &str, helpers: Helpers<'_>) -> Result<Option<Credential>, String> {
    let (status, answer) = call(name, "get", format!("{server}\n"), helpers).await?;
    if !status.success() {
        return if is_unknown(&answer) { Ok(None) } else { Err(format!("docker-credential-{name} failed ({status})")) };
    }
    let answer: Answer =
        serde_json::from_slice(&answer).map_err(|_| format!("docker-credential-{name} answered no credential"))?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        (TOKEN_USER, secret) => Some(Credential::IdentityToken(Secret::new(secret))),
        (user, secret) => Some(Credential::Basic { user: user.to_owned(), password: Secret::new(secret) }),
    })
}

/// Gives a credential into the keeping of `docker-credential-<name>`.
pub(crate) async fn store(
    name: &str,
    server: &str,
    credential: &Credential,
    helpers: Helpers<'_>,
) -> Result<(), String> {
    let (user, secret) = match credential {
        Credential::Basic { user, password } => (user.as_str(), password.reveal()),
        Credential::IdentityToken(token) => (TOKEN_USER, token.reveal()),
        Credential::Anonymous => return erase(name, server, helpers).await.map(drop),
    };
    let input = serde_json::json!({"ServerURL": server, "Username": user, "Secret": secret}).to_string();
    let (status, _) = call(name, "store", input, helpers).await?;
    if status.success() { Ok(()) } else { Err(format!("docker-credential-{name} failed to store ({status})")) }
}

/// Makes `docker-credential-<name>` forget a server; whether it knew it.
pub(crate) async fn erase(name: &str, server: &str, helpers: Helpers<'_>) -> Result<bool, String> {
    let (status, answer) = call(name, "erase", format!("{server}\n"), helpers).await?;
    match status.success() {
        true => Ok(true),
        false if is_unknown(&answer) => Ok(false),
        false => Err(format!("docker-credential-{name} failed to erase ({status})")),
    }
}

/// docker-credential-helpers prints this sentence, and all others follow it.
fn is_unknown(answer: &[u8]) -> bool {
    String::from_utf8_lossy(answer).to_ascii_lowercase().contains("credentials not found")
}

async fn call(
    name: &str,
    verb: &str,
    input: String,
    helpers: Helpers<'_>,
) -> Result<(std::process::ExitStatus, Vec<u8>), String> {
    // The name becomes part of a program's: nothing that could lead to another folder.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err(format!("'{}' is not the name of a credential helper", printable(name, 60)));
    }
    let program = format!("docker-credential-{name}");
    let mut command = Command::new(&program);
    if let Some(folders) = helpers.folders {
        command.env("PATH", folders);
    }
    let mut child = command
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} cannot be started: {error}"))?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(format!("{program} has no input and output"));
    };
    let talk = async {
        // A helper that does not read its input has closed it already; its answer decides.
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        let mut answer = Vec::new();
        let read = stdout.take(MAX_ANSWER + 1).read_to_end(&mut answer).await;
        read.map_err(|error| format!("{program}: {error}"))?;
        if answer.len() as u64 > MAX_ANSWER {
            return Err(format!("{program} answered more than 64 KiB"));
        }
        let status = child.wait().await.map_err(|error| format!("{program}: {error}"))?;
        Ok((status, answer))
    };
    let limit = helpers.limit;
    let done = tokio::time::timeout(limit, talk).await;
    done.map_err(|_| format!("{program} gave no answer within {} s", limit.as_secs()))?
}
