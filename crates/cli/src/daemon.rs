//! The way to a running `mlxserve`: found by what it wrote when it started, or started in the background.

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mlxctl_client::Client;
use serde::Deserialize;

use crate::context::Context;
use crate::failure::Failure;

/// How long a daemon that was just started may take until it answers.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How often it is asked meanwhile.
const POLL: Duration = Duration::from_millis(50);

/// What a running `mlxserve` leaves in `run/mlxserve.json`.
#[derive(Deserialize)]
struct RunFile {
    host: String,
    port: u16,
}

/// The program `mlxserve`: beside this one, else on the path.
pub(crate) fn program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().map_err(|error| Failure::new(format!("cannot find this program: {error}")))?;
    let beside = own.with_file_name("mlxserve");
    if beside.is_file() {
        return Ok(beside);
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|folder| folder.join("mlxserve")).find(|path| path.is_file());
    found.ok_or_else(|| {
        Failure::new(format!("mlxserve is neither beside {} nor on the path", own.display()))
            .hint("install mlxserve: it serves the models that mlxctl builds and moves")
    })
}

/// The running server of this home; `None` where none answers.
pub(crate) async fn find(context: &Context) -> Option<Client> {
    let announced = std::fs::read(context.settings.run_file()).ok();
    let announced = announced.and_then(|bytes| serde_json::from_slice::<RunFile>(&bytes).ok());
    let configured = (context.settings.host.clone(), context.settings.port);
    for (host, port) in announced.map(|file| (file.host, file.port)).into_iter().chain([configured]) {
        if port == 0 {
            continue;
        }
        let client = Client::new(&authority(&host, port));
        if client.version().await.is_ok() {
            return Some(client);
        }
    }
    None
}

/// The running server of this home, started in the background where there is none.
pub(crate) async fn find_or_start(context: &Context) -> Result<Client, Failure> {
    if let Some(client) = find(context).await {
        return Ok(client);
    }
    let program = program()?;
    let log_path = context.settings.home.join("logs").join("mlxserve.log");
    let log = open_log(&log_path).map_err(|error| Failure::new(format!("{}: {error}", log_path.display())))?;
    let mut command = Command::new(&program);
    command.arg("--home").arg(&context.settings.home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // A group of its own: Ctrl-C here does not end it.
    command.process_group(0);
    let mut child = command.spawn().map_err(|error| Failure::new(format!("{}: {error}", program.display())))?;
    context.printer.note(format!("started mlxserve (process {}), log in {}", child.id(), log_path.display()));
    let started = Instant::now();
    loop {
        if let Some(client) = find(context).await {
            return Ok(client);
        }
        let ended = child.try_wait().ok().flatten().map(|status| format!("mlxserve ended at once ({status})"));
        let late = (started.elapsed() > START_LIMIT).then(|| format!("mlxserve did not answer in {START_LIMIT:?}"));
        if let Some(reason) = ended.or(late) {
            return Err(Failure::new(reason).hint(format!("its log is {}", log_path.display())));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn open_log(path: &std::path::Path) -> std::io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().append(true).create(true).open(path)
}

/// `host:port`, an IPv6 address in brackets; an address that means "every interface" is reached through loopback.
fn authority(host: &str, port: u16) -> String {
    match host {
        "0.0.0.0" => format!("127.0.0.1:{port}"),
        "::" => format!("[::1]:{port}"),
        _ if host.contains(':') && !host.starts_with('[') => format!("[{host}]:{port}"),
        _ => format!("{host}:{port}"),
    }
}

impl From<mlxctl_client::Error> for Failure {
    fn from(error: mlxctl_client::Error) -> Self {
        Self::new(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::authority;

    #[test]
    fn addresses_are_reachable_as_written() {
        for (host, text) in [
            ("127.0.0.1", "127.0.0.1:1"),
            ("0.0.0.0", "127.0.0.1:1"),
            ("::", "[::1]:1"),
            ("::1", "[::1]:1"),
            ("[::1]", "[::1]:1"),
            ("localhost", "localhost:1"),
        ] {
            assert_eq!(authority(host, 1), text);
        }
    }
}
