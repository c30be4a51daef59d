//! What comes back of a request: its events, and how it ended.

use std::time::Duration;

use mlxctl_backend::TokenId;
use tokio::sync::mpsc;

/// A step of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A token was generated. Its text is empty while a character or a possible stop string is incomplete, and may
    /// hold what earlier tokens kept back.
    Token {
        /// The token; the one that ends an answer comes in [`Finished`].
        token: TokenId,
        /// Text that is final.
        text: String,
    },
    /// The answer ended; nothing follows.
    Done(Finished),
}

/// How an answer ended, and what it took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Text that had been kept back until nothing more could come.
    pub text: String,
    /// Why it ended.
    pub reason: Finish,
    /// The token by which the model ended it.
    pub end: Option<TokenId>,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens that were generated, the one that ended the answer included.
    pub generated_tokens: usize,
    /// Where the time went.
    pub timings: Timings,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it, or a stop string did.
    Stop,
    /// It reached the tokens asked for, or the end of the context.
    Length,
    /// The model was unmounted, or its engine stopped.
    Cancelled,
    /// It failed.
    Error(String),
}

/// Where the time of an answer went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Timings {
    /// From its submission until it first ran.
    pub queue: Duration,
    /// From there to the first token.
    pub prefill: Duration,
    /// From there to the end.
    pub decode: Duration,
}

/// The events of one request. Dropping it cancels the request.
#[derive(Debug)]
pub struct Generation {
    pub(crate) events: mpsc::Receiver<Event>,
}

impl Generation {
    /// The next event; none after [`Event::Done`], or where the engine thread died without a word.
    pub async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// The same, for a caller outside of a runtime.
    pub fn blocking_next(&mut self) -> Option<Event> {
        self.events.blocking_recv()
    }
}
