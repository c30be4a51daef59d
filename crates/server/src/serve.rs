//! The daemon's life: settings, listening, mounting, serving, draining.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use mlxctl_artifact::{Expectation, Reference};
use mlxctl_settings::{Environment, Flags, Settings};
use mlxctl_store::Store;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::app::{App, Phase, apart, router};
use crate::options::{Action, BackendKind, Command, MountArgs, ServeArgs, SmokeArgs, Target};
use crate::pull::pull;
use crate::{Catalogue, Error, Guard, MountOptions, SmokeOutcome, smoke, start_engine};

/// The code of a program that was interrupted twice: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// `run/mlxserve.json` in the home folder: how to reach the daemon. Clients on the machine read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunFile {
    /// The process.
    pub pid: u32,
    /// The address it listens on.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// Does what the command line says.
pub fn run(command: Command) -> ExitCode {
    let done = match command.action {
        Some(Action::Smoke(args)) => run_smoke(&args),
        None => run_serve(command.serve),
    };
    done.unwrap_or_else(|error| {
        let mut stderr = std::io::stderr().lock();
        // Nobody is left to tell where stderr is closed.
        let _ = writeln!(stderr, "error: {error}");
        if let Some(hint) = error.hint() {
            let _ = writeln!(stderr, "hint: {hint}");
        }
        ExitCode::FAILURE
    })
}

/// Everything that the settings decide, in one place.
fn resolve(args: &MountArgs, host: Option<String>, port: Option<u16>) -> Result<(Settings, MountOptions), Error> {
    let flags = Flags { home: args.home.clone(), host, port, config: args.config.clone() };
    let settings = Settings::resolve(flags, &Environment::of_process())?;
    if args.backend == BackendKind::Mlx {
        return Err(Error::Backend { name: "mlx".to_owned() });
    }
    let mut options = MountOptions::default();
    if let Some(threads) = args.threads.or(settings.threads.and_then(std::num::NonZeroUsize::new)) {
        options.threads = threads;
    }
    options.context = args.context.map(Into::into);
    options.verify = args.verify;
    options.engine.max_sequences = args.max_sequences.into();
    options.engine.queue = args.queue;
    options.engine.step_tokens = args.step_tokens.into();
    options.engine.kv_bytes = (usize::from(args.kv_memory) as u64).saturating_mul(1 << 20);
    Ok((settings, options))
}

fn log_to_stderr(filter: &str) {
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_else(|_| "info".into());
    // Set already only where a test runs the daemon twice in one process.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
}

fn run_smoke(args: &SmokeArgs) -> Result<ExitCode, Error> {
    let (settings, options) = resolve(&args.mount, None, None)?;
    log_to_stderr("warn");
    let store = match &args.model {
        Target::Folder(..) if !settings.store().exists() => None,
        _ => Some(Store::open(&settings.store())?),
    };
    let catalogue = Catalogue::new(store, settings.registry.clone());
    let name = match &args.model {
        Target::Folder(path, digest) => catalogue.add_folder(path, *digest)?,
        Target::Reference(reference) => reference.to_string(),
        Target::Short(text) => text.clone(),
    };
    let report = smoke(&catalogue, &name, &options)?;
    let mut out = String::new();
    if args.json {
        out = serde_json::to_string(&report)
            .map_err(|error| Error::Internal { what: "writing the report", reason: error.to_string() })?;
        out.push('\n');
    } else {
        for test in &report.tests {
            let verdict = if test.passed { "passed" } else { "FAILED" };
            let answer = test.error.as_deref().unwrap_or(&test.answer);
            out.extend([verdict, ": ", &format!("{:?} → {answer:?}", test.prompt)]);
            if !test.passed {
                out.extend([", expected ", &expected(test)]);
            }
            out.push('\n');
        }
    }
    std::io::stdout()
        .write_all(out.as_bytes())
        .map_err(|source| Error::Io { what: "write the report".to_owned(), source })?;
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a test that failed expected; tokens stand beside those that came.
fn expected(test: &SmokeOutcome) -> String {
    match &test.expected {
        Expectation::Contains(text) => format!("an answer with {text:?}"),
        Expectation::Equals(text) => format!("{text:?}"),
        Expectation::Tokens(tokens) => format!("the tokens {tokens:?}, got {:?}", test.tokens),
    }
}

fn run_serve(args: ServeArgs) -> Result<ExitCode, Error> {
    let (settings, options) = resolve(&args.mount, args.host.clone(), args.port)?;
    log_to_stderr(&settings.log);
    // Registries are reached by TLS; which implementation is ours to say, once a process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Io { what: "start the runtime".to_owned(), source })?;
    let done = runtime.block_on(serve(args, settings, options));
    // A model that is being hashed or loaded does not hold the end up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    done.map(|()| ExitCode::SUCCESS)
}

async fn serve(args: ServeArgs, settings: Settings, options: MountOptions) -> Result<(), Error> {
    let listener = TcpListener::bind((settings.host.as_str(), settings.port))
        .await
        .map_err(|source| Error::Io { what: format!("listen on {}:{}", settings.host, settings.port), source })?;
    let address = listener.local_addr().map_err(|source| Error::Io { what: "tell the address".to_owned(), source })?;
    let mut stopping = stop_signals(settings.run_file())?;

    let (home, prefix) = (settings.store(), settings.registry.clone());
    let catalogue = apart("opening the store", move || Ok(Catalogue::new(Some(Store::open(&home)?), prefix))).await?;
    let engine = start_engine()?;
    let guard = Guard::new(&settings.host, &args.allow_hosts);
    let app = App::new(catalogue, engine, options, guard);

    let _run_file = announce(&settings, address)?;
    let mut shutdown = stopping.clone();
    let drained = {
        let app = app.clone();
        async move {
            let _ = shutdown.wait_for(|stop| *stop).await;
            app.enter(Phase::Stopping);
        }
    };
    // A token is a packet of some hundred bytes; it must not wait for the next one.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "small answers may wait");
        }
    });
    let server = tokio::spawn(axum::serve(listener, router(app.clone())).with_graceful_shutdown(drained).into_future());
    let reaper = tokio::spawn(app.clone().reap());

    let mounted = tokio::select! {
        mounted = mount(&app, &args, &settings) => mounted,
        _ = stopping.wait_for(|stop| *stop) => Ok(()),
    };
    if mounted.is_err() {
        server.abort();
        reaper.abort();
        return mounted;
    }
    let _ = stopping.wait_for(|stop| *stop).await;
    tracing::info!("draining; interrupt again to leave at once");
    let drain = Duration::from_secs(args.drain);
    if tokio::time::timeout(drain, server).await.is_err() {
        tracing::warn!("requests were still running after {} s and are cut off", drain.as_secs());
    }
    reaper.abort();
    Ok(())
}

/// Pulls what is absent, then mounts what was named.
async fn mount(app: &Arc<App>, args: &ServeArgs, settings: &Settings) -> Result<(), Error> {
    let mut names = Vec::new();
    let mut folders = Vec::new();
    for target in &args.models {
        match target {
            Target::Folder(path, digest) => folders.push((path.clone(), *digest)),
            Target::Short(text) => names.push(text.clone()),
            Target::Reference(reference) => {
                ensure(app, reference, args.offline, settings).await?;
                names.push(reference.to_string());
            }
        }
    }
    app.mount(&names, &folders).await
}

async fn ensure(app: &Arc<App>, reference: &Reference, offline: bool, settings: &Settings) -> Result<(), Error> {
    let (catalogue, name) = (app.catalogue.clone(), reference.to_string());
    match apart("looking a model up", move || catalogue.find(&name)).await {
        Err(unknown @ Error::UnknownModel { .. }) => {
            let is_remote = reference.registry().is_some() || settings.registry.is_some();
            let Some(store) = app.catalogue.store().filter(|_| is_remote && !offline) else { return Err(unknown) };
            app.enter(Phase::Starting(format!("pulling {reference}")));
            pull(store, settings, reference).await.map(drop)
        }
        other => other.map(drop),
    }
}

/// One line for people and scripts, and the file for clients; it is removed when the daemon ends.
fn announce(settings: &Settings, address: SocketAddr) -> Result<RemovedAtEnd, Error> {
    let port = address.port();
    let host = if settings.host.contains(':') { format!("[{}]", settings.host) } else { settings.host.clone() };
    // The address is the one result of this program; whoever started it may read it or not.
    let _ = writeln!(std::io::stdout(), "http://{host}:{port}");
    let _ = writeln!(std::io::stderr(), "mlxserve is listening on http://{host}:{port}");
    let path = settings.run_file();
    let file = RunFile { pid: std::process::id(), host: settings.host.clone(), port };
    let text = serde_json::to_vec(&file)
        .map_err(|error| Error::Internal { what: "writing the run file", reason: error.to_string() })?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let fresh = path.with_extension(format!("{}.tmp", file.pid));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(&fresh, text))
        .and_then(|()| std::fs::rename(&fresh, &path));
    if let Err(error) = written {
        // A home that can only be read serves all the same; clients then need the address.
        tracing::warn!(path = %path.display(), %error, "how to reach this daemon could not be written");
    }
    Ok(RemovedAtEnd(path))
}

struct RemovedAtEnd(PathBuf);

impl Drop for RemovedAtEnd {
    fn drop(&mut self) {
        withdraw(&self.0);
    }
}

/// Removes the run file if it is this process's: another daemon of the same home may have written its own by now.
fn withdraw(path: &Path) {
    let current = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<RunFile>(&bytes).ok());
    if current.is_some_and(|file| file.pid == std::process::id()) {
        // Whoever reads a file that could not be removed finds no process of that number.
        let _ = std::fs::remove_file(path);
    }
}

/// Becomes true with the first SIGINT or SIGTERM; the second ends the process at once.
fn stop_signals(run_file: PathBuf) -> Result<watch::Receiver<bool>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |source| Error::Io { what: "listen for signals".to_owned(), source };
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        for pressed in 0.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if pressed > 0 {
                withdraw(&run_file);
                std::process::exit(INTERRUPTED);
            }
            // The daemon is over where nobody listens.
            let _ = sender.send(true);
        }
    });
    Ok(receiver)
}
