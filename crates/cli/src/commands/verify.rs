//! `mlxctl verify`: the store's bytes are what their digests say, and the models answer as their recipes promise.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use mlxctl_artifact::{Descriptor, Reference};
use mlxctl_content::{Observer, Outcome};

use crate::context::Context;
use crate::daemon;
use crate::failure::Failure;
use crate::output::Finding;

/// Hash every blob of these artifacts, or of the whole store.
///
/// Example: mlxctl verify --smoke pebble
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The artifacts; default: all.
    #[arg(value_name = "REF")]
    names: Vec<Reference>,

    /// Replay the recipe's tests too: greedy answers, compared with what they expect.
    #[arg(long, requires = "names")]
    smoke: bool,

    /// Print an array of {digest, path, problem} as JSON; empty where all is well.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let store = context.store()?;
    let observer = Counted::default();
    let found = store.verify(&args.names, &observer)?;
    if args.json {
        context.printer.json(&found.iter().map(Finding::of).collect::<Vec<_>>())?;
    } else {
        for finding in &found {
            eprintln!("error: {finding}\nhint: {}", finding.hint());
        }
    }
    if !found.is_empty() {
        return Err(Failure::new(format!("{} problems; everything else is as its digest says", found.len())));
    }
    if !args.json {
        let (blobs, bytes) = (observer.blobs.load(Ordering::Relaxed), observer.bytes.load(Ordering::Relaxed));
        context.printer.note(format!("{blobs} blobs, {}: all as their digests say", crate::printer::size(bytes)));
    }
    if args.smoke {
        for name in &args.names {
            smoke(context, name, args.json)?;
        }
    }
    Ok(())
}

/// Counts what was hashed.
#[derive(Default)]
struct Counted {
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Observer for Counted {
    fn finished(&self, descriptor: &Descriptor, _: Outcome) {
        self.blobs.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(descriptor.size, Ordering::Relaxed);
    }
}

/// The runtime replays the tests: this program links no engine.
fn smoke(context: &Context, name: &Reference, json: bool) -> Result<(), Failure> {
    let program = daemon::program()?;
    let mut command = Command::new(&program);
    command.arg("smoke").arg("--home").arg(&context.settings.home).arg(name.to_string());
    if json {
        command.stdout(std::process::Stdio::null());
    }
    let status = command.status().map_err(|error| Failure::new(format!("{}: {error}", program.display())))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("{name} does not answer as its recipe promises"))) }
}
