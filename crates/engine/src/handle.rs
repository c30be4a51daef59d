//! The way in for requests: checked and counted on the caller's thread, then sent to the engine's.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use mlxctl_backend::{Sampling, TokenId};
use mlxctl_prompt::TextStream;
use tokio::sync::mpsc;

use crate::mounted::Facts;
use crate::thread::{Command, ModelId};
use crate::{Generation, Refused};

/// A request for an answer.
#[derive(Debug)]
pub struct Request {
    /// What to go on from; at least one token.
    pub prompt: Vec<TokenId>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Seeds the choice where `sampling` names no seed.
    pub entropy: u64,
    /// Tokens of the answer at the most; none is as many as the context has room for.
    pub max_tokens: Option<usize>,
    /// Tokens that end the answer.
    pub eos: Arc<BTreeSet<TokenId>>,
    /// Whether the answer goes on after a token of `eos`; benchmarks want that.
    pub ignore_eos: bool,
    /// The way from tokens to text, with the stop strings.
    pub text: TextStream,
}

/// A request on its way to the engine thread.
pub(crate) struct Submission {
    pub(crate) request: Request,
    /// Tokens of the answer at the most, at least one, within the context.
    pub(crate) most: usize,
    pub(crate) submitted: Instant,
    pub(crate) events: mpsc::Sender<crate::Event>,
    pub(crate) permit: Permit,
}

/// One of the places that a model has for requests; given back when dropped.
pub(crate) struct Permit(Arc<Shared>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What handles and the engine thread both look at.
pub(crate) struct Shared {
    /// Requests running or waiting.
    pub(crate) open: AtomicUsize,
    /// As many as are taken.
    pub(crate) limit: usize,
    /// Why the model is gone, once it is.
    pub(crate) stopped: OnceLock<String>,
}

/// The last handle's end unmounts the model, once its requests are done.
struct Mount {
    id: ModelId,
    commands: Sender<Command>,
    shared: Arc<Shared>,
    facts: Facts,
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A thread that is gone has unmounted it already.
        let _ = self.commands.send(Command::Unmount(self.id));
    }
}

/// A mounted model. Clones share it; when the last one is dropped, the model is unmounted as soon as the requests it
/// has taken are done.
#[derive(Clone)]
pub struct EngineHandle(Arc<Mount>);

impl std::fmt::Debug for EngineHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EngineHandle").field("facts", &self.0.facts).finish_non_exhaustive()
    }
}

impl EngineHandle {
    pub(crate) fn new(id: ModelId, commands: Sender<Command>, shared: Arc<Shared>, facts: Facts) -> Self {
        Self(Arc::new(Mount { id, commands, shared, facts }))
    }

    /// What the engine knows of the model.
    pub fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// Requests that are running or waiting.
    pub fn open_requests(&self) -> usize {
        self.0.shared.open.load(Ordering::Acquire)
    }

    /// Why the model is gone for good, if it is: it has to be mounted anew.
    pub fn stopped(&self) -> Option<&str> {
        self.0.shared.stopped.get().map(String::as_str)
    }

    /// Hands a request to the engine; never waits.
    pub fn submit(&self, request: Request) -> Result<Generation, Refused> {
        let Mount { id, commands, shared, facts } = &*self.0;
        let prompt = request.prompt.len();
        if prompt == 0 {
            return Err(Refused::EmptyPrompt);
        }
        if prompt >= facts.context {
            return Err(Refused::TooLong { prompt, context: facts.context });
        }
        let vocabulary = facts.details.vocabulary;
        if let Some(&token) = request.prompt.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Refused::Vocabulary { token, vocabulary });
        }
        request.sampling.check(vocabulary).map_err(|error| Refused::Sampling { message: error.to_string() })?;
        let gone = |reason: Option<&String>| Refused::Stopped {
            reason: reason.map_or_else(|| "its engine thread is gone".to_owned(), Clone::clone),
        };
        if let Some(reason) = shared.stopped.get() {
            return Err(gone(Some(reason)));
        }
        let permit = shared.clone().permit()?;
        let room = facts.context - prompt;
        let most = request.max_tokens.map_or(room, |most| most.clamp(1, room));
        // Every token makes one event at the most, and the end makes one: sending never has to wait.
        let (events, receiver) = mpsc::channel(most + 1);
        let submission = Submission { request, most, submitted: Instant::now(), events, permit };
        match commands.send(Command::Submit(*id, Box::new(submission))) {
            Ok(()) => Ok(Generation { events: receiver }),
            Err(_) => Err(gone(shared.stopped.get())),
        }
    }
}

impl Shared {
    fn permit(self: Arc<Self>) -> Result<Permit, Refused> {
        let taken =
            self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, |open| (open < self.limit).then_some(open + 1));
        match taken {
            Ok(_) => Ok(Permit(self)),
            Err(open) => Err(Refused::Overloaded { open }),
        }
    }
}
