//! One or several answers under way: submitted together, merged into one stream of events, and cancelled together when
//! the client goes away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::{BoxStream, SelectAll, select_all, unfold};
use mlxctl_engine::{Event, Finish, Finished, Generation, Request, Timings};

use crate::fault::Fault;
use crate::residency::InUse;

/// Answers under way. Dropping it before its end cancels them.
pub(crate) struct Run {
    pub(crate) model: Arc<InUse>,
    events: SelectAll<BoxStream<'static, (u32, Event)>>,
    left: usize,
    started: Instant,
    /// The answer has begun: if the client goes away now, nobody else says so.
    pub(crate) streaming: bool,
    /// Of all prompts.
    pub(crate) prompt_tokens: u64,
    /// Of all answers so far.
    pub(crate) generated_tokens: u64,
    /// Of the answer that ended last.
    pub(crate) timings: Timings,
}

/// An event of one of the answers.
pub(crate) enum Step {
    /// Text was added.
    Token { index: u32, token: u32, text: String },
    /// An answer ended, with what was kept back of its text, and the token by which the model ended it.
    End { index: u32, text: String, reason: &'static str, end: Option<u32> },
}

impl Run {
    /// Submits requests. `prompts` is how many different prompts they have, for usage counts each of those once.
    pub(crate) fn submit(
        model: Arc<InUse>,
        requests: Vec<Request>,
        prompts: usize,
        started: Instant,
    ) -> Result<Self, Fault> {
        let each = requests.len() / prompts.max(1);
        let prompt_tokens = requests.iter().step_by(each.max(1)).map(|request| request.prompt.len() as u64).sum();
        let mut streams = Vec::new();
        for (index, request) in (0_u32..).zip(requests) {
            let generation: Generation = model.engine.submit(request)?;
            let stream = unfold(generation, move |mut generation| async move {
                let event = generation.next().await?;
                Some(((index, event), generation))
            });
            streams.push(stream.boxed());
        }
        let left = streams.len();
        let events = select_all(streams);
        let timings = Timings::default();
        Ok(Self { model, events, left, started, streaming: false, prompt_tokens, generated_tokens: 0, timings })
    }

    /// The next event; none after the last answer's end. A failed answer fails all of them.
    pub(crate) async fn next(&mut self) -> Option<Result<Step, Fault>> {
        if self.left == 0 {
            return None;
        }
        let Some((index, event)) = self.events.next().await else {
            self.left = 0;
            return Some(Err(Fault::internal("the engine ended without a word")));
        };
        Some(match event {
            Event::Token { token, text } => Ok(Step::Token { index, token, text }),
            Event::Done(Finished { text, reason, end, generated_tokens, timings, .. }) => {
                self.left -= 1;
                self.generated_tokens += generated_tokens as u64;
                self.timings = timings;
                match reason {
                    Finish::Stop => Ok(Step::End { index, text, reason: "stop", end }),
                    Finish::Length => Ok(Step::End { index, text, reason: "length", end }),
                    Finish::Cancelled => self.fail("the model was unloaded".to_owned()),
                    Finish::Error(message) => self.fail(message),
                }
            }
        })
    }

    fn fail(&mut self, message: String) -> Result<Step, Fault> {
        self.left = 0;
        tracing::error!(model = self.model.name, %message, "an answer failed");
        Err(Fault::internal(message))
    }

    /// From the request until now.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.left > 0 && self.streaming {
            let ms = self.started.elapsed().as_millis();
            tracing::info!(
                status = 499,
                model = self.model.name,
                tokens = self.generated_tokens,
                ms,
                "client went away"
            );
        }
    }
}
