//! Replays the `tests:` of a recipe through the same mount and engine that serve requests.

use std::sync::Arc;
use std::time::Instant;

use mlxctl_api::Message;
use mlxctl_artifact::{Expectation, SmokeTest};
use mlxctl_engine::{Event, Finish};
use serde::Serialize;

use crate::Error;
use crate::ask::{Ask, Conversation, said};
use crate::catalogue::Catalogue;
use crate::fault::Dialect;
use crate::model::{LoadedModel, MountOptions, start_engine};

/// Tokens of an answer at the most where the recipe does not say.
const MAX_TOKENS: usize = 256;

/// What became of the tests of one model.
#[derive(Debug, Clone, Serialize)]
pub struct SmokeReport {
    /// The model.
    pub name: String,
    /// Its manifest.
    pub digest: String,
    /// What computed.
    pub fingerprint: String,
    /// Whether every test passed; true where there is none.
    pub passed: bool,
    /// One a test, in the recipe's order.
    pub tests: Vec<SmokeOutcome>,
}

/// What became of one test.
#[derive(Debug, Clone, Serialize)]
pub struct SmokeOutcome {
    /// What the user said.
    pub prompt: String,
    /// Whether the answer was as expected.
    pub passed: bool,
    /// What was expected.
    pub expected: Expectation,
    /// What the model said.
    pub answer: String,
    /// Its tokens, without the one that ended it.
    pub tokens: Vec<u32>,
    /// Why there is no answer, where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it took.
    pub milliseconds: u64,
}

/// Mounts a model of the catalogue and asks it the prompts of its recipe, greedily. Blocks.
pub fn smoke(catalogue: &Catalogue, name: &str, options: &MountOptions) -> Result<SmokeReport, Error> {
    let found = catalogue.find(name)?;
    let files = catalogue.files(&found)?;
    let engine: Arc<_> = start_engine()?;
    let model = LoadedModel::mount(&engine, &files, catalogue.store(), options)?;
    let tests: Vec<SmokeOutcome> = model.spec.tests.iter().map(|test| replay(&model, test)).collect();
    Ok(SmokeReport {
        name: model.name.clone(),
        digest: model.digest.to_string(),
        fingerprint: model.fingerprint.clone(),
        passed: tests.iter().all(|test| test.passed),
        tests,
    })
}

fn replay(model: &LoadedModel, test: &SmokeTest) -> SmokeOutcome {
    let started = Instant::now();
    let (answer, tokens, error) = match answer(model, &test.prompt) {
        Ok((answer, tokens)) => (answer, tokens, None),
        Err(error) => (String::new(), Vec::new(), Some(error)),
    };
    let as_expected = match &test.expect {
        Expectation::Contains(text) => answer.contains(text.as_str()),
        Expectation::Equals(text) => answer.trim() == text.trim(),
        Expectation::Tokens(expected) => {
            // A recipe may name the token that ends the answer, or leave it out.
            let spoken: Vec<u32> = match expected.split_last() {
                Some((last, rest)) if model.prompt.eos.contains(last) => rest.to_vec(),
                _ => expected.clone(),
            };
            tokens == spoken
        }
    };
    SmokeOutcome {
        prompt: test.prompt.clone(),
        passed: error.is_none() && as_expected,
        expected: test.expect.clone(),
        answer,
        tokens,
        error,
        milliseconds: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

fn answer(model: &LoadedModel, prompt: &str) -> Result<(String, Vec<u32>), String> {
    let most = model.spec.parameters.max_tokens.map_or(MAX_TOKENS, |most| most as usize);
    // Greedy, whatever the recipe's own parameters are: a test has one right answer.
    let ask = Ask { temperature: Some(0.0), repetition_penalty: Some(1.0), max_tokens: Some(most), ..Ask::default() };
    let prompt = if model.prompt.has_template() {
        let messages: Vec<Message> = vec![said("user", prompt)];
        Conversation { messages, ..Conversation::default() }.tokens(model).map_err(|fault| fault.message)?
    } else {
        model.prompt.encode_plain(prompt).map_err(|error| error.to_string())?
    };
    let request = ask.request(model, Dialect::OpenAi, prompt, 0).map_err(|fault| fault.message)?;
    let mut generation = model.engine.submit(request).map_err(|refused| refused.to_string())?;
    let (mut text, mut tokens) = (String::new(), Vec::new());
    while let Some(event) = generation.blocking_next() {
        match event {
            Event::Token { token, text: piece } => {
                tokens.push(token);
                text.push_str(&piece);
            }
            Event::Done(done) => {
                text.push_str(&done.text);
                return match done.reason {
                    Finish::Stop | Finish::Length => Ok((text, tokens)),
                    Finish::Cancelled => Err("the answer was cut off".to_owned()),
                    Finish::Error(message) => Err(message),
                };
            }
        }
    }
    Err("the engine ended without a word".to_owned())
}
