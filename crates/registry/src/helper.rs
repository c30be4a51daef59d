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

/// What `docker-credential-<name> get` says of `server`; `None` where it knows no credential.
///
/// # Errors
/// The reason, without what the program printed: that may be a secret.
pub(crate) async fn ask(
    name: &str,
    server: &str,
    folders: Option<&OsStr>,
    limit: Duration,
) -> Result<Option<Credential>, String> {
    // The name becomes part of a program's: nothing that could lead to another folder.
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return Err(format!("'{}' is not the name of a credential helper", printable(name, 60)));
    }
    let program = format!("docker-credential-{name}");
    let mut command = Command::new(&program);
    if let Some(folders) = folders {
        command.env("PATH", folders);
    }
    let mut child = command
        .arg("get")
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
        let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
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
    let done = tokio::time::timeout(limit, talk).await;
    let (status, answer) = done.map_err(|_| format!("{program} gave no answer within {} s", limit.as_secs()))??;
    if !status.success() {
        // docker-credential-helpers prints this sentence, and all others follow it.
        let unknown = String::from_utf8_lossy(&answer).to_ascii_lowercase().contains("credentials not found");
        return if unknown { Ok(None) } else { Err(format!("{program} failed ({status})")) };
    }
    let answer: Answer = serde_json::from_slice(&answer).map_err(|_| format!("{program} answered no credential"))?;
    Ok(match (answer.username.as_str(), answer.secret) {
        (_, secret) if secret.is_empty() => None,
        (TOKEN_USER, secret) => Some(Credential::IdentityToken(Secret::new(secret))),
        (user, secret) => Some(Credential::Basic { user: user.to_owned(), password: Secret::new(secret) }),
    })
}
