//! A model on its device, and the step: schedule, build the ragged batch, compute, sample, tell.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use mlxctl_backend::{Backend, Batch, KvLayout};
use mlxctl_models::{Details, Model};

use crate::handle::{Shared, Submission};
use crate::scheduler::{Effect, Event, Limits, Scheduler, SequenceId};
use crate::sequence::Sequence;
use crate::thread::Served;
use crate::{Finish, MountError};

/// Failures in a row after which a model is given up.
const MAX_FAILURES: u32 = 3;

/// How much a mounted model may take on.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Sequences that share a step.
    pub max_sequences: usize,
    /// Tokens of one step, prefills and decodes together.
    pub step_tokens: usize,
    /// Requests that may wait beside those that run.
    pub queue: usize,
    /// Tokens of a sequence at the most; the model's own limit where there is none.
    pub context: Option<usize>,
    /// Bytes of keys and values at the most, counted as f32; the pool is no larger than what all sequences could use.
    pub kv_bytes: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self { max_sequences: 8, step_tokens: 512, queue: 512, context: None, kv_bytes: 4 << 30 }
    }
}

/// What the engine knows of a mounted model.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The device, its instruction set, its kernels' revision.
    pub fingerprint: String,
    /// Tokens of a sequence at the most, prompt and answer together.
    pub context: usize,
    /// Blocks of the KV pool.
    pub kv_blocks: usize,
    /// Tokens of a block.
    pub block_size: usize,
    /// What the model says of itself.
    pub details: Details,
}

/// What can be lost to a panic and built anew.
struct Device<B: Backend> {
    backend: B,
    model: Box<dyn Model<B>>,
    kv: B::Kv,
}

pub(crate) struct Mounted<B: Backend, F> {
    factory: F,
    options: EngineOptions,
    device: Option<Device<B>>,
    scheduler: Scheduler,
    sequences: BTreeMap<SequenceId, Sequence>,
    next: u64,
    failures: u32,
    started: Instant,
    facts: Facts,
    shared: Arc<Shared>,
}

/// A part of a step whose next token is wanted, with the row of its logits.
struct Wanted {
    id: SequenceId,
    row: usize,
}

impl<B, E, F> Mounted<B, F>
where
    B: Backend,
    E: std::fmt::Display,
    F: Fn() -> Result<(B, Box<dyn Model<B>>), E>,
{
    pub(crate) fn new(factory: F, options: EngineOptions) -> Result<Self, MountError> {
        let (device, facts) = build(&factory, &options)?;
        let limit = options.max_sequences.max(1).saturating_add(options.queue);
        let shared = Arc::new(Shared { open: AtomicUsize::new(0), limit, stopped: OnceLock::new() });
        let scheduler = scheduler(&options, &facts);
        Ok(Self {
            factory,
            options,
            device: Some(device),
            scheduler,
            sequences: BTreeMap::new(),
            next: 0,
            failures: 0,
            started: Instant::now(),
            facts,
            shared,
        })
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn leave(&mut self, id: SequenceId, reason: Finish) {
        let now = self.now();
        self.scheduler.step(Event::Left { id }, now);
        if let Some(sequence) = self.sequences.remove(&id) {
            sequence.finish(reason, Instant::now());
        }
    }

    /// Those whose clients have gone take no part in the next step.
    fn drop_abandoned(&mut self) {
        let gone: Vec<SequenceId> =
            self.sequences.iter().filter(|(_, sequence)| sequence.is_abandoned()).map(|(id, _)| *id).collect();
        for id in gone {
            self.leave(id, Finish::Cancelled);
        }
    }

    /// Gives the model up: everything ends, and nothing is taken any more.
    fn give_up(&mut self, reason: String) {
        tracing::error!(%reason, "a model is given up");
        // Set first: who hears of the end finds the model stopped.
        let _ = self.shared.stopped.set(reason.clone());
        for id in self.sequences.keys().copied().collect::<Vec<_>>() {
            self.leave(id, Finish::Error(reason.clone()));
        }
        self.device = None;
    }

    fn sample(&mut self, logits: &B::Tensor, wanted: &[Wanted]) -> Result<(), mlxctl_backend::Error> {
        let Some(device) = &self.device else { return Ok(()) };
        let mut host = device.backend.to_host(logits)?;
        let vocabulary = self.facts.details.vocabulary;
        for Wanted { id, row } in wanted {
            let Some(sequence) = self.sequences.get_mut(id) else { continue };
            let found = host.len();
            let Some(row) = host.get_mut(row * vocabulary..(row + 1) * vocabulary) else {
                let expected = wanted.len() * vocabulary;
                let message = format!("expected {expected} logits, got {found}");
                return Err(mlxctl_backend::Error::Device { operation: "forward", message });
            };
            // One sequence's trouble is not its neighbours': a panic here ends it alone.
            let ended = catch_unwind(AssertUnwindSafe(|| sequence.choose(row)))
                .unwrap_or_else(|panic| Some(Finish::Error(words(&*panic))));
            if let Some(reason) = ended {
                self.leave(*id, reason);
            }
        }
        Ok(())
    }
}

impl<B, E, F> Served for Mounted<B, F>
where
    B: Backend,
    E: std::fmt::Display,
    F: Fn() -> Result<(B, Box<dyn Model<B>>), E>,
{
    fn take(&mut self, submission: Submission) {
        let sequence = Sequence::new(submission);
        if let Some(reason) = self.shared.stopped.get() {
            sequence.finish(Finish::Error(reason.clone()), Instant::now());
            return;
        }
        let id = SequenceId(self.next);
        self.next += 1;
        let tokens = sequence.tokens().len();
        self.sequences.insert(id, sequence);
        let now = self.now();
        self.scheduler.step(Event::Arrived { id, tokens }, now);
    }

    fn step(&mut self) -> bool {
        self.drop_abandoned();
        if self.sequences.is_empty() {
            return false;
        }
        let now = self.now();
        let effects = self.scheduler.step(Event::Tick, now);
        let mut batch = Batch::default();
        let mut wanted = Vec::new();
        let mut computed = Vec::new();
        for effect in &effects {
            match effect {
                Effect::Admitted { id, .. } => {
                    if let Some(sequence) = self.sequences.get_mut(id) {
                        sequence.admitted(Instant::now());
                    }
                }
                Effect::Preempted { id } => tracing::debug!(sequence = id.0, "gave its KV blocks back"),
                Effect::Compute { id, position, length, blocks, sample } => {
                    let Some(sequence) = self.sequences.get(id) else { continue };
                    if *sample {
                        wanted.push(Wanted { id: *id, row: batch.logits.len() });
                    }
                    batch.push(&sequence.tokens()[*position..position + length], *position, blocks, *sample);
                    computed.push(Event::Computed { id: *id, length: *length, sampled: *sample });
                }
            }
        }
        let Some(device) = &mut self.device else { return false };
        if batch.tokens.is_empty() {
            return false;
        }
        let logits = match device.model.forward(&device.backend, &batch, &mut device.kv) {
            Ok(logits) => logits,
            Err(error) => {
                self.recover(&error.to_string());
                return true;
            }
        };
        for event in computed {
            self.scheduler.step(event, now);
        }
        if let Err(error) = self.sample(&logits, &wanted) {
            self.recover(&error.to_string());
            return true;
        }
        self.failures = 0;
        true
    }

    fn recover(&mut self, reason: &str) {
        let message = format!("the model failed: {reason}");
        for id in self.scheduler.running().collect::<Vec<_>>() {
            self.leave(id, Finish::Error(message.clone()));
        }
        self.failures += 1;
        if self.failures >= MAX_FAILURES {
            return self.give_up(format!("it failed {MAX_FAILURES} times in a row, last with: {reason}"));
        }
        // What a device does while it is taken apart after a failure is anyone's guess.
        let built = catch_unwind(AssertUnwindSafe(|| {
            self.device = None;
            build(&self.factory, &self.options)
        }))
        .unwrap_or_else(|panic| Err(MountError::Load { message: words(&*panic) }));
        match built {
            Ok((device, _)) => {
                self.device = Some(device);
                // Those that waited, wait on; the order of their numbers is the order in which they came.
                let now = self.now();
                self.scheduler = scheduler(&self.options, &self.facts);
                for (id, sequence) in &self.sequences {
                    self.scheduler.step(Event::Arrived { id: *id, tokens: sequence.tokens().len() }, now);
                }
            }
            Err(error) => self.give_up(format!("it could not be loaded again: {error}")),
        }
    }

    fn is_idle(&self) -> bool {
        self.sequences.is_empty()
    }

    fn end(&mut self) {
        let _ = self.shared.stopped.set("its engine was stopped".to_owned());
        for id in self.sequences.keys().copied().collect::<Vec<_>>() {
            self.leave(id, Finish::Cancelled);
        }
    }
}

fn build<B, E, F>(factory: &F, options: &EngineOptions) -> Result<(Device<B>, Facts), MountError>
where
    B: Backend,
    E: std::fmt::Display,
    F: Fn() -> Result<(B, Box<dyn Model<B>>), E>,
{
    let (backend, model) = factory().map_err(|error| MountError::Load { message: error.to_string() })?;
    let layout = model.kv_layout();
    let details = model.details();
    let wish = options.context.unwrap_or(usize::MAX).min(model.max_context()).max(2);
    let kv_blocks = pool_blocks(&layout, options, wish);
    let context = wish.min(kv_blocks.saturating_mul(layout.block_size));
    if context < wish {
        let megabytes = options.kv_bytes >> 20;
        tracing::warn!(context, wish, "the context is cut to what {megabytes} MiB of keys and values have room for");
    }
    let kv = backend.kv_pool(&layout, kv_blocks).map_err(|source| MountError::Pool { blocks: kv_blocks, source })?;
    let facts =
        Facts { fingerprint: backend.fingerprint(), context, kv_blocks, block_size: layout.block_size, details };
    Ok((Device { backend, model, kv }, facts))
}

/// As many blocks as all sequences can use, within the bytes allowed, and one at least.
fn pool_blocks(layout: &KvLayout, options: &EngineOptions, context: usize) -> usize {
    let useful = layout.blocks_for(context).saturating_mul(options.max_sequences.max(1));
    let block_bytes = (layout.features() as u64).saturating_mul(layout.block_size as u64).saturating_mul(4).max(1);
    let affordable = usize::try_from(options.kv_bytes / block_bytes).unwrap_or(usize::MAX);
    // Blocks have 32-bit numbers.
    useful.min(affordable).clamp(1, u32::MAX as usize)
}

fn scheduler(options: &EngineOptions, facts: &Facts) -> Scheduler {
    Scheduler::new(Limits {
        max_sequences: options.max_sequences,
        step_tokens: options.step_tokens,
        blocks: facts.kv_blocks,
        block_size: facts.block_size,
    })
}

/// The words of a panic.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("no reason given"))
}
