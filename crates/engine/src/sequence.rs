//! One request on the engine thread: its tokens, its sampler, its way to text, and the channel to whoever asked.

use std::time::{Duration, Instant};

use mlxctl_backend::{Sampler, TokenId};

use crate::handle::{Permit, Submission};
use crate::{Event, Finish, Finished, Request, Timings};

/// A request that the engine has taken.
pub(crate) struct Sequence {
    request: Request,
    /// The prompt, and what was generated.
    tokens: Vec<TokenId>,
    sampler: Sampler,
    /// Tokens of the answer at the most.
    most: usize,
    generated: usize,
    events: tokio::sync::mpsc::Sender<Event>,
    _permit: Permit,
    clock: Clock,
}

/// When what happened.
struct Clock {
    submitted: Instant,
    admitted: Option<Instant>,
    first: Option<Instant>,
}

impl Sequence {
    pub(crate) fn new(submission: Submission) -> Self {
        let Submission { mut request, most, submitted, events, permit } = submission;
        let tokens = std::mem::take(&mut request.prompt);
        let mut sampler = Sampler::new(request.sampling.clone(), request.entropy);
        sampler.observe(&tokens);
        let clock = Clock { submitted, admitted: None, first: None };
        Self { request, tokens, sampler, most, generated: 0, events, _permit: permit, clock }
    }

    pub(crate) fn tokens(&self) -> &[TokenId] {
        &self.tokens
    }

    /// Whether whoever asked has gone.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.events.is_closed()
    }

    /// The first admission counts; a preempted sequence is not in the queue again for its caller.
    pub(crate) fn admitted(&mut self, now: Instant) {
        self.clock.admitted.get_or_insert(now);
    }

    /// Chooses the next token from its logits, takes it in, tells of it, and says whether and why the answer ends.
    pub(crate) fn choose(&mut self, logits: &mut [f32]) -> Option<Finish> {
        match self.sampler.sample(logits) {
            Ok(sampled) => self.push(sampled.token, Instant::now()),
            Err(error) => Some(Finish::Error(error.to_string())),
        }
    }

    /// Takes the next token in, tells of it, and says whether and why the answer ends with it.
    fn push(&mut self, token: TokenId, now: Instant) -> Option<Finish> {
        self.clock.first.get_or_insert(now);
        self.tokens.push(token);
        self.generated += 1;
        if self.ends(token) {
            return Some(Finish::Stop);
        }
        match self.request.text.push(token) {
            Err(error) => return Some(Finish::Error(error.to_string())),
            Ok(piece) => {
                self.send(Event::Token { token, text: piece.text });
                if piece.stopped.is_some() {
                    return Some(Finish::Stop);
                }
            }
        }
        (self.generated >= self.most).then_some(Finish::Length)
    }

    fn ends(&self, token: TokenId) -> bool {
        !self.request.ignore_eos && self.request.eos.contains(&token)
    }

    /// Ends the answer.
    pub(crate) fn finish(mut self, mut reason: Finish, now: Instant) {
        let mut text = String::new();
        if matches!(reason, Finish::Stop | Finish::Length) {
            match self.request.text.finish() {
                Ok(piece) => {
                    text = piece.text;
                    if piece.stopped.is_some() {
                        reason = Finish::Stop;
                    }
                }
                Err(error) => reason = Finish::Error(error.to_string()),
            }
        }
        let Clock { submitted, admitted, first } = self.clock;
        let between = |from: Option<Instant>, to: Option<Instant>| match (from, to) {
            (Some(from), to) => to.unwrap_or(now).saturating_duration_since(from),
            (None, _) => Duration::ZERO,
        };
        let timings = Timings {
            queue: between(Some(submitted), admitted),
            prefill: between(admitted, first),
            decode: between(first, None),
        };
        let prompt_tokens = self.tokens.len() - self.generated;
        let end = self.tokens.last().copied().filter(|last| self.generated > 0 && self.ends(*last));
        let done = Finished { text, reason, end, prompt_tokens, generated_tokens: self.generated, timings };
        self.send(Event::Done(done));
    }

    /// The channel has room for everything that is ever sent; it fails only where nobody listens, and then the next
    /// step ends the sequence.
    fn send(&self, event: Event) {
        let _ = self.events.try_send(event);
    }
}
