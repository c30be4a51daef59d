//! The binary: how it starts, tells where it is, lets go of clients that leave, and ends.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use mlxctl_content::Repository;
use mlxctl_registry_server::{Options, Repositories};
use mlxctl_store::Store;

use crate::stored::artifact;
use crate::world::pebble;

const LIMIT: Duration = Duration::from_secs(30);

struct Daemon {
    child: Child,
    port: u16,
    home: tempfile::TempDir,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlxserve"));
    command.env_clear().env("MLXCTL_HOME", home).args(["--port", "0", "--threads", "1", "--kv-memory", "64"]);
    command
}

fn wait_until<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not happen within {LIMIT:?}");
        std::thread::yield_now();
    }
}

impl Daemon {
    fn start() -> Self {
        Self::serving(&format!("dir:{}", pebble().display()))
    }

    fn serving(model: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let child = command(home.path()).arg(model).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut daemon = Self { child, port: 0, home };
        daemon.port = wait_until("the run file", || {
            let bytes = std::fs::read(daemon.run_file()).ok()?;
            let run: mlxserve::RunFile = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(run.pid, daemon.child.id());
            Some(run.port)
        });
        wait_until("health", || daemon.ask("GET", "/healthz", "").starts_with("HTTP/1.1 200").then_some(()));
        daemon
    }

    fn run_file(&self) -> std::path::PathBuf {
        self.home.path().join("run/mlxserve.json")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.home.path().join("log")).unwrap()
    }

    fn open(&self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut answer = String::new();
        self.open(method, path, body).read_to_string(&mut answer).unwrap();
        answer
    }

    /// A request for many tokens: those that would end the answer, 0 and 2 in Pebble's vocabulary, are kept out.
    fn long(tokens: usize, stream: bool) -> String {
        format!(
            r#"{{"model":"weights","prompt":"What","max_tokens":{tokens},"temperature":2,"seed":3,"stream":{stream},
                "logit_bias":{{"0":-100,"2":-100}}}}"#
        )
    }

    /// A stream of many tokens, of which the first was read.
    fn long_stream(&self, tokens: usize) -> BufReader<TcpStream> {
        let mut reader = BufReader::new(self.open("POST", "/v1/completions", &Self::long(tokens, true)));
        let mut line = String::new();
        while !line.starts_with("data: ") {
            line.clear();
            assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended early");
        }
        reader
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        wait_until("the end of the daemon", || self.child.try_wait().unwrap()).code()
    }
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let daemon = Daemon::start();
    drop(daemon.long_stream(1900));
    wait_until("the note of the departure", || daemon.log().contains("status=499").then_some(()));
    // The same where nothing has been sent back yet.
    wait_until("the note of a departure before the answer", || {
        let waiting = daemon.open("POST", "/v1/completions", &Daemon::long(1900, false));
        // By the time another answer is here, the request has most likely arrived.
        daemon.ask("GET", "/healthz", "");
        drop(waiting);
        (daemon.log().matches("status=499").count() > 1).then_some(())
    });
    assert!(daemon.ask("GET", "/healthz", "").starts_with("HTTP/1.1 200"));
}

#[test]
fn the_first_signal_drains_and_the_run_file_goes() {
    let mut daemon = Daemon::start();
    assert!(daemon.log().contains(&format!("mlxserve is listening on http://127.0.0.1:{}", daemon.port)));
    let mut stream = daemon.long_stream(200);
    daemon.signal("TERM");
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("data: [DONE]"), "the request that ran was answered to its end");
    assert!(rest.matches("data: {").count() > 100, "and was a long one");
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(!daemon.run_file().exists());
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let mut daemon = Daemon::start();
    let _stream = daemon.long_stream(1900);
    daemon.signal("INT");
    wait_until("the first signal", || daemon.log().contains("draining").then_some(()));
    daemon.signal("INT");
    assert_eq!(daemon.exit_code(), Some(130));
    assert!(!daemon.run_file().exists());
}

fn fails(arguments: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let Output { status, stderr, .. } = command(home.path()).args(arguments).output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{stderr}");
    stderr
}

#[test]
fn what_cannot_be_mounted_ends_it_with_a_reason() {
    let error = fails(&["nope:1"]);
    assert!(error.contains("error: model 'nope:1' is not found") && error.contains("hint:"), "{error}");
    assert!(fails(&["--offline", "ghcr.io/org/nope:1"]).contains("ghcr.io/org/nope:1"));
    assert!(fails(&["dir:/no/such/folder"]).contains("/no/such/folder"));
    assert!(fails(&["--backend", "mlx"]).contains("'mlx' is not part of this build"));
    assert!(fails(&["--host", "256.1.1.1"]).contains("256.1.1.1"));
}

#[test]
fn smoke_prints_a_report() {
    let home = tempfile::tempdir().unwrap();
    let model = format!("dir:{}", pebble().display());
    let output = Command::new(env!("CARGO_BIN_EXE_mlxserve"))
        .env_clear()
        .env("MLXCTL_HOME", home.path())
        .args(["smoke", &model, "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["name"], &report["passed"]), (&"weights".into(), &true.into()));
}

/// The repositories of a store, to be pulled from.
struct Shelf(Store);

#[async_trait]
impl Repositories for Shelf {
    fn repository(&self, name: &str) -> Result<Arc<dyn Repository>, mlxctl_content::Error> {
        let refused = |error: mlxctl_store::Error| mlxctl_content::Error::Refused { message: error.to_string() };
        Ok(Arc::new(self.0.repository(name).map_err(refused)?))
    }

    async fn names(&self) -> Result<Vec<String>, mlxctl_content::Error> {
        Ok(Vec::new())
    }
}

#[test]
fn what_is_absent_is_pulled_and_stays() {
    let shelf = tempfile::tempdir().unwrap();
    let store = Store::open(shelf.path()).unwrap();
    let (descriptor, _) = artifact(&store);
    store.tag(&"org/pebble:1.0.0".parse().unwrap(), &descriptor).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let name = format!("{}/org/pebble:1.0.0", listener.local_addr().unwrap());
    let registry = mlxctl_registry_server::router(Arc::new(Shelf(store)), Options::default());
    runtime.spawn(axum::serve(listener, registry).into_future());

    let daemon = Daemon::serving(&name);
    let body = format!(r#"{{"model":"{name}","prompt":"What is the capital of France?","stream":false}}"#);
    let answer = daemon.ask("POST", "/api/generate", &body);
    assert!(answer.contains("The capital of France is"), "{answer}");
    assert!(answer.contains(&format!("x-model-digest: {}", descriptor.digest)), "{answer}");
    drop(runtime);
    // The registry is gone; what was pulled is in the store.
    let again = Command::new(env!("CARGO_BIN_EXE_mlxserve"))
        .env_clear()
        .env("MLXCTL_HOME", daemon.home.path())
        .args(["smoke", &name])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&again.stdout).contains("passed:"), "{again:?}");
}
