//! Push and pull through a proxy that misbehaves by a seed: each run ends with the same bytes, whatever happened in
//! between, and a run that is given up says why. `cargo xtask faults` makes many of them.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{StreamExt as _, stream};
use mlxctl_artifact::{Descriptor, LayerKind, Manifest, ModelLayer, Reference, media_type};
use mlxctl_content::{CopyOptions, Error, Quiet, Repository, Resolve as _, Tag as _, copy};
use mlxctl_registry::{
    Credential, Registry, RegistryOptions, RemoteRepository, RetryPolicy, Secret, SessionFolder, Static,
};
use mlxctl_registry_server::{Listener, Options, Repositories, router, serve};
use mlxctl_store::{LocalRepository, Store, Verify};
use mlxctl_testkit::faults::{Fault, FaultyRegistry, Quirks, Seeded};

/// Runs of the proxy that may fail before it is calmed.
const STORMY: usize = 6;
/// Runs at once.
const SIDE_BY_SIDE: usize = 12;
/// How long one run may take.
const RUN_LIMIT: Duration = Duration::from_mins(4);

struct One(Arc<LocalRepository>);

#[async_trait]
impl Repositories for One {
    fn repository(&self, _: &str) -> Result<Arc<dyn Repository>, Error> {
        Ok(Arc::clone(&self.0) as Arc<dyn Repository>)
    }

    async fn names(&self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}

/// What a run came to.
#[derive(Default)]
struct Report {
    faults: Vec<Fault>,
    /// Attempts that ended with an error.
    errors: Vec<String>,
    /// Bytes of the model.
    size: u64,
    /// Bytes of bodies on the wire, both ways.
    moved: u64,
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Seeded::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.below(u64::MAX).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A model in a store: its manifest, and everything it is made of.
fn model(store: &Store, seed: u64) -> (Descriptor, Vec<Descriptor>) {
    let mut random = Seeded::new(seed);
    // Every eighth is large enough for ranges side by side.
    let large = if seed.is_multiple_of(8) { 18 << 20 } else { 100_000 + random.below(900_000) as usize };
    let lengths = [large, random.below(70_000) as usize, 0];
    let layers: Vec<_> = lengths
        .into_iter()
        .enumerate()
        .map(|(at, length)| {
            let blob = store.ingest_bytes(media_type::OCTET_STREAM, &noise(seed + at as u64, length)).unwrap();
            ModelLayer::of_file(LayerKind::Weight, format!("{at}.bin").parse().unwrap(), &blob)
        })
        .collect();
    let config = store.ingest_bytes(media_type::MODEL_CONFIG, b"{}").unwrap();
    let manifest = Manifest::of_model(config, &layers, BTreeMap::new());
    let parts: Vec<_> = manifest.blobs().cloned().collect();
    (store.ingest_bytes(media_type::OCI_MANIFEST, &manifest.to_bytes()).unwrap(), parts)
}

fn client(address: &str, folder: &std::path::Path) -> RemoteRepository {
    let retry = RetryPolicy { tries: 3, base: Duration::from_millis(1), ..RetryPolicy::default() };
    let credential = Credential::Basic { user: "ada".to_owned(), password: Secret::new("s3cret") };
    let options = RegistryOptions {
        retry,
        stall_timeout: Duration::from_millis(400),
        commit_timeout: Duration::from_secs(2),
        chunk_bytes: 60_000,
        connections: 3,
        credentials: Arc::new(Static { registry: address.to_owned(), credential }),
        sessions: Some(Arc::new(SessionFolder::new(folder))),
        ..RegistryOptions::default()
    };
    let reference: Reference = format!("{address}/org/m").parse().unwrap();
    Registry::new(address, &options).unwrap().repository(&reference)
}

/// Whatever a store shows is what its name says.
fn holds_nothing_bad(store: &Store, parts: &[Descriptor], seed: u64) {
    for part in parts {
        if store.contains(&part.digest).unwrap() {
            store.map_with(part, Verify::Always).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
    }
}

async fn run(seed: u64) -> Report {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str| Store::open(&folder.path().join(name)).unwrap();
    let (here, there, back) = (open("here"), open("there"), open("back"));
    let (root, parts) = model(&here, seed);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let served = router(Arc::new(One(Arc::new(there.repository("org/m").unwrap()))), Options::default());
    let serving = tokio::spawn(serve(Listener::plain(listener).unwrap(), served, std::future::pending()));
    let mut random = Seeded::new(seed ^ 0xfau64);
    let (one_in, faults) = (2 + random.below(8), random.below(30) as u32);
    let proxy = FaultyRegistry::start(&address, seed, Quirks::of(seed), one_in, faults).await;
    let mut report = Report { size: parts.iter().map(|part| part.size).sum(), ..Report::default() };
    let options = CopyOptions { jobs: 3 };
    let (source, target) = (here.repository("m").unwrap(), back.repository("m").unwrap());
    for direction in ["push", "pull"] {
        let mut attempt = 0;
        loop {
            // Each attempt is a new process, as far as the registry can see.
            let remote = client(proxy.address(), &folder.path().join("sessions"));
            let done = if direction == "push" {
                match copy(&source, &remote, &root, options, &Quiet).await {
                    Ok(_) => remote.tag(&root, "v1").await,
                    Err(error) => Err(error),
                }
            } else {
                match remote.resolve("v1").await {
                    Ok(found) => {
                        assert_eq!(found.digest, root.digest, "seed {seed}");
                        copy(&remote, &target, &found, options, &Quiet).await.map(drop)
                    }
                    Err(error) => Err(error),
                }
            };
            holds_nothing_bad(if direction == "push" { &there } else { &back }, &parts, seed);
            attempt += 1;
            let Err(error) = done else { break };
            let message = error.to_string();
            assert!(message.len() > 10, "seed {seed}: an error that says nothing: {message:?}");
            assert!(attempt <= STORMY + 3, "seed {seed}, {direction}: {message}, although all is calm now");
            report.errors.push(message);
            if attempt >= STORMY {
                proxy.calm();
            }
        }
        let store = if direction == "push" { &there } else { &back };
        for part in parts.iter().chain([&root]) {
            let found = store.map_with(part, Verify::Always).unwrap();
            assert_eq!(found, here.map(part).unwrap(), "seed {seed}, {direction}");
        }
    }
    serving.abort();
    (report.faults, report.moved) = (proxy.happened(), proxy.moved());
    report
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().map_or(default, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_seed_ends_with_the_same_bytes() {
    let (first, runs) = (number("MLXCTL_FAULT_SEED", 1), number("MLXCTL_FAULT_RUNS", 10));
    let start = Instant::now();
    let mut happened: BTreeMap<Fault, usize> = BTreeMap::new();
    let (mut errors, mut size, mut moved, mut with_errors) = (0, 0, 0, 0);
    // Side by side, because most of a run's time is waiting for what never comes.
    let mut reports = stream::iter(first..first + runs)
        .map(|seed| async move {
            let report = tokio::time::timeout(RUN_LIMIT, run(seed)).await;
            report.unwrap_or_else(|_| panic!("seed {seed} comes to no end"))
        })
        .buffer_unordered(SIDE_BY_SIDE);
    while let Some(report) = reports.next().await {
        report.faults.iter().for_each(|fault| *happened.entry(*fault).or_default() += 1);
        errors += report.errors.len();
        with_errors += usize::from(!report.errors.is_empty());
        (size, moved) = (size + report.size, moved + report.moved);
    }
    println!("{runs} runs from seed {first} in {} s: every one ended with the same bytes", start.elapsed().as_secs());
    println!("faults: {happened:?}");
    println!("{errors} attempts of {with_errors} runs ended with an error and were made again");
    println!(
        "{moved} bytes moved for {size} bytes each way ({:.2} of what is needed)",
        moved as f64 / (2 * size) as f64
    );
}
