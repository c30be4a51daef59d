//! Real processes on one store: killed at any instant, waiting for each other, and out of disk.
//!
//! A process of its own is this test program again, told by the environment which job to do (`a_process_of_its_own`).

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use mlxctl_artifact::{Descriptor, Index, LayerKind, Manifest, ModelLayer, media_type};
use mlxctl_content::{ByteStream, CopyOptions, Error, Fetch, Memory, Push as _, Quiet, Tag as _, copy};
use mlxctl_store::{GcOptions, Store};

use crate::{Home, files_below, name};

const JOB: &str = "STORE_TEST_JOB";
const FOLDER: &str = "STORE_TEST_FOLDER";
const SEED: &str = "STORE_TEST_SEED";
/// After this long a push that could fetch has fetched.
const PATIENCE: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(30);

/// A process with a job; it dies with its test.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    fn start(job: &str, folder: &Path, seed: u64) -> Self {
        Self::start_after("", job, folder, seed)
    }

    /// The same, after these commands of the shell.
    fn start_after(commands: &str, job: &str, folder: &Path, seed: u64) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", &format!("{commands} exec \"$0\" \"$@\"")])
            .arg(program)
            .args(["--exact", "processes::a_process_of_its_own", "--nocapture", "--test-threads=1"])
            .env(JOB, job)
            .env(FOLDER, folder)
            .env(SEED, seed.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The next line that the job says.
    fn hear(&mut self) -> String {
        let mut line = String::new();
        while !line.starts_with('>') {
            line.clear();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "the process ended without a word");
        }
        line[1..].trim_end().to_owned()
    }

    fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_process_of_its_own() {
    let Ok(job) = std::env::var(JOB) else { return };
    let folder = PathBuf::from(std::env::var(FOLDER).unwrap());
    let seed = std::env::var(SEED).unwrap().parse().unwrap();
    let store = Store::open(&folder.join("store")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match job.as_str() {
        "churn" => runtime.block_on(churn(&store, seed)),
        "collect" => loop {
            store.gc(false).unwrap();
        },
        "push" => runtime.block_on(async {
            say("pushing");
            let source = Gated { folder };
            let target = store.repository("m").unwrap();
            let blob = Gated::blob();
            let mut push = target.push(&blob, &source, &Quiet);
            let pushed = tokio::select! {
                pushed = &mut push => pushed,
                () = tokio::time::sleep(PATIENCE) => {
                    say("still pushing");
                    push.await
                }
            };
            match pushed {
                Ok(()) => say("pushed"),
                Err(error) => say(&format!("failed: {error}")),
            }
        }),
        other => panic!("no such job: {other}"),
    }
}

fn say(line: &str) {
    // The harness has begun a line of its own.
    println!("\n>{line}");
    std::io::stdout().flush().unwrap();
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// xorshift64*: the seed decides everything.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % bound
    }
}

/// One of a few models, so that processes meet on the same digests.
fn model(source: &Memory, which: u64) -> Descriptor {
    let layers: Vec<ModelLayer> = (0..3)
        .map(|layer| {
            let content = vec![(which + layer) as u8; 20_000 + 300_000 * (which + layer) as usize % 700_000];
            let blob = source.insert(media_type::OCTET_STREAM, content);
            ModelLayer::of_file(LayerKind::Weight, format!("{layer}").parse().unwrap(), &blob)
        })
        .collect();
    let config = source.insert(media_type::MODEL_CONFIG, &b"{}"[..]);
    source.insert(media_type::OCI_MANIFEST, Manifest::of_model(config, &layers, BTreeMap::new()).to_bytes())
}

/// Does everything that a store can do, for ever.
async fn churn(store: &Store, seed: u64) {
    let mut random = Random(seed);
    loop {
        let source = Memory::default();
        let node = model(&source, random.below(6));
        let tag = format!("{}", random.below(3));
        match random.below(8) {
            0..4 => {
                let target = store.repository("m").unwrap();
                copy(&source, &target, &node, CopyOptions::default(), &Quiet).await.unwrap();
                target.tag(&node, &tag).await.unwrap();
            }
            4 => {
                let content = vec![random.below(256) as u8; random.below(1 << 20) as usize];
                store.ingest_bytes("a/b", &content).unwrap();
            }
            5 => {
                store.gc(false).unwrap();
            }
            // The other process may have been faster.
            6 => drop(store.untag(&name(&format!("m:{tag}")))),
            _ => store.settle(),
        }
    }
}

#[test]
fn a_kill_at_any_instant_leaves_a_store_that_opens_clean() {
    let home = Home::new();
    let mut random = Random(20_260_729);
    let mut named = 0;
    for round in 0..14 {
        let mut pair = [round * 2 + 1, round * 2 + 2].map(|seed| Process::start("churn", home.folder.path(), seed));
        for child in &mut pair {
            // The instant is what is drawn here; nothing is waited for.
            std::thread::sleep(Duration::from_micros(20_000 + random.below(150_000)));
            assert!(child.runs(), "round {round}: the process failed by itself");
            child.kill();
        }
        let store = home.open();
        assert_eq!(store.verify(&[], &Quiet).unwrap(), [], "round {round}");
        let listing = store.list().unwrap();
        assert!(listing.problems.is_empty(), "round {round}: {:?}", listing.problems);
        let index = Index::parse(&fs::read(store.root().join("index.json")).unwrap()).unwrap();
        assert_eq!(index.manifests.len(), listing.names.len(), "round {round}");
        store.gc(round % 2 == 0).unwrap();
        assert_eq!(store.verify(&[], &Quiet).unwrap(), [], "round {round}, after the collector");
        named += listing.names.len();
    }
    assert!(named > 0, "nothing was ever named: the test tests nothing");
    let store = home.open();
    let at_once = GcOptions { keep_partials: Duration::ZERO, now: SystemTime::now(), dry_run: false };
    store.gc_with(&at_once).unwrap();
    for folder in ["ingest", "uploads", "leases", "scratch"] {
        let left = files_below(&store.root().join(folder));
        assert!(left.is_empty(), "{left:?}");
    }
    assert_eq!(store.gc(true).unwrap().blobs, []);
}

/// Bytes that stop half-way until a file `go` appears, with a line in `log` for each fetch.
struct Gated {
    folder: PathBuf,
}

const GATED_BYTES: usize = 200_000;

impl Gated {
    fn content() -> Vec<u8> {
        (0..GATED_BYTES).map(|at| (at * 31 % 253) as u8).collect()
    }

    fn blob() -> Descriptor {
        Descriptor::of("a/b", &Self::content())
    }

    fn log(folder: &Path) -> Vec<String> {
        let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

#[async_trait]
impl Fetch for Gated {
    async fn fetch(&self, _: &Descriptor, range: Range<u64>) -> Result<ByteStream, Error> {
        let mut log = OpenOptions::new().append(true).create(true).open(self.folder.join("log")).unwrap();
        log.write_all(format!("{}\n", range.start).as_bytes()).unwrap();
        let content = Self::content()[range.start as usize..range.end as usize].to_vec();
        let (first, second) = content.split_at(content.len() / 2);
        let (first, second) = (Bytes::copy_from_slice(first), Bytes::copy_from_slice(second));
        let go = self.folder.join("go");
        let gate = stream::once(async move {
            while !go.exists() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(second)
        });
        Ok(Box::pin(stream::iter([Ok(first)]).chain(gate)))
    }
}

#[test]
fn two_processes_that_pull_one_blob_download_it_once() {
    let home = Home::new();
    let folder = home.folder.path();
    let mut first = Process::start("push", folder, 0);
    wait_for("the first fetch", || !Gated::log(folder).is_empty());
    let mut second = Process::start("push", folder, 0);
    assert_eq!((second.hear().as_str(), second.hear().as_str()), ("pushing", "still pushing"));
    assert_eq!(Gated::log(folder), ["0"]);
    fs::write(folder.join("go"), "").unwrap();
    assert_eq!(second.hear(), "pushed");
    assert!(first.child.wait().unwrap().success() && second.child.wait().unwrap().success());
    assert_eq!(Gated::log(folder), ["0"]);
    assert_eq!(home.open().map(&Gated::blob()).unwrap(), Gated::content());
}

#[test]
fn who_waits_for_a_killed_process_goes_on_where_it_stopped() {
    let home = Home::new();
    let folder = home.folder.path();
    let blob = Gated::blob();
    let data = home.path().join(format!("ingest/sha256-{}/data", blob.digest.hex()));
    let mut first = Process::start("push", folder, 0);
    let half = GATED_BYTES as u64 / 2;
    wait_for("half of the blob", || fs::metadata(&data).is_ok_and(|meta| meta.len() == half));
    let mut second = Process::start("push", folder, 0);
    assert_eq!((second.hear().as_str(), second.hear().as_str()), ("pushing", "still pushing"));
    assert_eq!(Gated::log(folder), ["0"]);
    first.kill();
    wait_for("the second fetch", || Gated::log(folder).len() == 2);
    fs::write(folder.join("go"), "").unwrap();
    assert_eq!(second.hear(), "pushed");
    assert_eq!(Gated::log(folder), ["0".to_owned(), half.to_string()]);
    assert_eq!(home.open().map(&blob).unwrap(), Gated::content());
}

#[test]
fn a_full_disk_is_told_and_what_arrived_is_kept() {
    let home = Home::new();
    let folder = home.folder.path();
    fs::write(folder.join("go"), "").unwrap();
    // No file beyond 64 or 128 blocks of 512 bytes or 1 KiB: a write fails in its middle, as on a full disk.
    let mut limited = Process::start_after("trap '' XFSZ; ulimit -f 128;", "push", folder, 0);
    assert_eq!(limited.hear(), "pushing");
    let failed = limited.hear();
    assert!(failed.starts_with("failed: cannot write ") && failed.contains("data: "), "{failed}");
    assert!(limited.child.wait().unwrap().success());
    let store = home.open();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let source = Gated { folder: folder.to_owned() };
    runtime.block_on(store.repository("m").unwrap().push(&Gated::blob(), &source, &Quiet)).unwrap();
    let log = Gated::log(folder);
    let held: usize = log[1].parse().unwrap();
    assert!(log.len() == 2 && (64 << 10..=128 << 10).contains(&held), "{log:?}");
}

#[test]
fn the_collector_of_another_process_takes_nothing_from_a_pull() {
    let home = Home::new();
    let store = home.open();
    let mut collector = Process::start("collect", home.folder.path(), 0);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut collected = 0;
    runtime.block_on(async {
        for round in 0..40 {
            let source = Memory::default();
            let node = model(&source, round % 6);
            let target = store.repository("m").unwrap();
            collected += copy(&source, &target, &node, CopyOptions::default(), &Quiet).await.unwrap().moved;
            target.tag(&node, "latest").await.unwrap();
            assert_eq!(store.verify(&[], &Quiet).unwrap(), [], "round {round}");
            drop(target);
            store.untag(&name("m")).unwrap();
        }
    });
    assert!(collector.runs(), "the collector failed");
    // Six models hold 6 manifests, 8 layers and a configuration: more moves than that, and the collector was at work.
    assert!(collected > 15, "{collected}");
}
