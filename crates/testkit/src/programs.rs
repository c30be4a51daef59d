//! The two programs as a person runs them, each with a home of its own; and Python with the real clients.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

/// How long a server may take until it listens.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The folder that holds `mlxctl` and `mlxserve`: where cargo put this test's own program's neighbours.
///
/// # Panics
/// Where they were not built.
pub fn programs() -> PathBuf {
    let own = std::env::current_exe().expect("a running test knows its program");
    // target/PROFILE/deps/test-…
    let folder = own.ancestors().nth(2).expect("tests lie two folders below the programs").to_owned();
    for name in ["mlxctl", "mlxserve"] {
        assert!(folder.join(name).is_file(), "{name} is not built: run `cargo xtask test`, or `cargo build` first");
    }
    folder
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is two folders up")
}

/// A home of mlxctl, empty and gone with the value.
pub struct Home {
    folder: TempDir,
}

impl Default for Home {
    fn default() -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder") }
    }
}

impl Home {
    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// `mlxctl` in this home, run in the workspace's folder, with nothing of the tester's own settings.
    pub fn mlxctl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(programs().join("mlxctl"));
        command.args(arguments).current_dir(workspace()).stdin(Stdio::null());
        clean(&mut command).env("MLXCTL_HOME", self.path()).env("DOCKER_CONFIG", self.path());
        command
    }

    /// Runs `mlxctl` to success and gives what it printed on stdout, trimmed.
    ///
    /// # Panics
    /// Where it fails, with what it said.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.mlxctl(arguments).output().expect("mlxctl can be started");
        assert!(output.status.success(), "mlxctl {arguments:?}: {}\n{}", output.status, said(&output));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Runs `mlxctl` to failure and gives the exit code and what it said on stderr.
    ///
    /// # Panics
    /// Where it succeeds.
    pub fn fail(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.mlxctl(arguments).output().expect("mlxctl can be started");
        assert!(!output.status.success(), "mlxctl {arguments:?} succeeded\n{}", said(&output));
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts `mlxserve` in this home on a free port.
    pub fn serve(&self, arguments: &[&str]) -> Server {
        let mut command = Command::new(programs().join("mlxserve"));
        command.arg("--home").arg(self.path()).args(["--port", "0"]).args(arguments).current_dir(workspace());
        Server::start(clean(&mut command))
    }

    /// Starts the embedded registry over this home's store on a free port.
    pub fn registry(&self, arguments: &[&str]) -> Server {
        Server::start(self.mlxctl(&["registry", "serve", "--listen", "127.0.0.1:0"]).args(arguments))
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Takes the tester's own settings away.
fn clean(command: &mut Command) -> &mut Command {
    for variable in ["MLXCTL_HOME", "MLX_HOST", "MLX_PORT", "MLXCTL_REGISTRY", "MLXCTL_LOG", "MLXCTL_THREADS"] {
        command.env_remove(variable);
    }
    for variable in ["HF_ENDPOINT", "HF_TOKEN", "HF_HOME", "HF_HUB_CACHE"] {
        command.env_remove(variable);
    }
    for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env_remove(variable);
    }
    command
}

/// A program that listens and says where in the first line of its stdout; it ends with the value.
pub struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stdin(Stdio::null()).spawn().expect("the server can be started");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            // Whoever waits for the line sees that none came.
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = tell.send(line);
        });
        let line = told.recv_timeout(START_LIMIT).unwrap_or_default();
        let address = line.trim().trim_start_matches("http://").to_owned();
        if !address.contains(':') {
            let _ = child.kill();
            let ended = child.wait();
            panic!("the server did not say where it listens: {line:?}, {ended:?}");
        }
        Self { child, address }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the program's end.
    pub fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().expect("the server is a child")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Python with the packages of `tests/requirements/test.txt`, as `cargo xtask test` installs them. `None`, with the
/// reason on stderr, where it was not named.
///
/// # Panics
/// Where `CI` is set: a skip is a failure there.
pub fn python() -> Option<PathBuf> {
    let named = std::env::var_os("MLXCTL_TEST_PYTHON").map(PathBuf::from);
    if named.is_none() {
        let reason = "MLXCTL_TEST_PYTHON names no Python with the test packages; `cargo xtask test` installs one";
        assert!(std::env::var_os("CI").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
    }
    named
}
