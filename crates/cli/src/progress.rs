//! Progress of transfers and builds: bars on a terminal, a plain line a file elsewhere.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use mlxctl_artifact::{Descriptor, Digest, media_type};
use mlxctl_builder::Progress;
use mlxctl_content::{Observer, Outcome};

use crate::printer::{Printer, size};

/// Shows what moves. Documents of a few bytes get no bar.
pub(crate) struct Transfers {
    speaks: bool,
    draws: bool,
    bars: MultiProgress,
    running: Mutex<HashMap<Digest, ProgressBar>>,
}

impl Transfers {
    pub(crate) fn new(printer: &Printer) -> Self {
        let draws = printer.draws();
        let target = if draws { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self {
            speaks: printer.speaks(),
            draws,
            bars: MultiProgress::with_draw_target(target),
            running: Mutex::default(),
        }
    }

    fn line(&self, text: &str) {
        if self.draws {
            // A line that cannot be drawn is lost to nobody: the bar shows the same.
            let _ = self.bars.println(text);
        } else if self.speaks {
            eprintln!("{text}");
        }
    }
}

/// The name that a layer's file has, else its short digest.
fn name(descriptor: &Descriptor) -> String {
    let annotations = &descriptor.annotations;
    let path = annotations.get(media_type::FILEPATH).or_else(|| annotations.get(media_type::TITLE));
    match path {
        // A remote wrote this: nothing in it may move the cursor.
        Some(path) => path.chars().filter(|c| !c.is_control()).take(60).collect(),
        None if media_type::is_manifest(&descriptor.media_type) => "manifest".to_owned(),
        None if descriptor.media_type == media_type::MODEL_CONFIG => "config".to_owned(),
        None => descriptor.digest.short(),
    }
}

fn bar(length: u64, name: String) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{msg:28!} {bar:30} {bytes:>11} / {total_bytes:11} {bytes_per_sec:>12} {eta:>4}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style.progress_chars("━╸ ")).with_message(name)
}

impl Observer for Transfers {
    fn started(&self, descriptor: &Descriptor) {
        if self.draws {
            let bar = self.bars.add(bar(descriptor.size, name(descriptor)));
            self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(descriptor.digest, bar);
        }
    }

    fn moved(&self, descriptor: &Descriptor, bytes: i64) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = running.get(&descriptor.digest) {
            bar.set_position(bar.position().saturating_add_signed(bytes));
        }
    }

    fn finished(&self, descriptor: &Descriptor, outcome: Outcome) {
        let bar = self.running.lock().unwrap_or_else(PoisonError::into_inner).remove(&descriptor.digest);
        if let Some(bar) = bar {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
        let what = match outcome {
            Outcome::Present => "already there",
            Outcome::Moved => "done",
        };
        self.line(&format!(
            "{:14} {:28} {:>9}  {what}",
            descriptor.digest.short(),
            name(descriptor),
            size(descriptor.size)
        ));
    }

    fn notice(&self, message: &str) {
        self.line(&format!("note: {message}"));
    }
}

/// Shows what is built.
pub(crate) struct Build {
    speaks: bool,
    draws: bool,
    bar: Mutex<ProgressBar>,
}

impl Build {
    pub(crate) fn new(printer: &Printer) -> Self {
        Self { speaks: printer.speaks(), draws: printer.draws(), bar: Mutex::new(ProgressBar::hidden()) }
    }

    /// Takes the last bar away.
    pub(crate) fn finish(&self) {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).finish_and_clear();
    }
}

impl Progress for Build {
    fn file(&self, path: &str, bytes: u64) {
        if self.draws {
            let mut current = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
            current.finish_and_clear();
            *current = bar(bytes, path.to_owned());
        } else if self.speaks {
            eprintln!("adding {path} ({})", size(bytes));
        }
    }

    fn advanced(&self, bytes: u64) {
        self.bar.lock().unwrap_or_else(PoisonError::into_inner).inc(bytes);
    }

    fn notice(&self, message: &str) {
        if self.speaks {
            eprintln!("note: {message}");
        }
    }
}
