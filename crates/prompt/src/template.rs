//! Chat templates: Jinja as transformers renders it, within bounds, because templates come with foreign models.
//!
//! `Prompt` compiles one template a name; the builder compiles the recipe's to check it. What minijinja does otherwise
//! than Python is put right in the submodules.

mod builtins;
mod clock;
mod json;
mod methods;
mod source;

use std::io;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind, UndefinedBehavior};
use serde_json::Map;

pub use clock::WallClock;

use self::builtins::Refusal;
use crate::{Error, messages};

/// Largest template, in bytes; the longest published ones have about 20 KB.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Stack of the thread that compiles, in bytes; enough in an unoptimised build for what `source::check` lets through.
const COMPILE_STACK_BYTES: usize = 64 << 20;
/// Most steps of one rendering; a long conversation with tools takes some hundred thousand.
const MAX_STEPS: u64 = 10_000_000;
/// Most bytes one rendering may write; far more than any context holds.
const MAX_OUTPUT_BYTES: usize = 16 << 20;
/// Deepest nesting of macros and blocks. Small enough for the stack of a worker thread.
const MAX_DEPTH: usize = 120;
/// The template's name inside the engine.
const MAIN: &str = "chat";

/// A compiled chat template. Rendering needs no lock: threads share one.
pub struct ChatTemplate {
    name: String,
    environment: Environment<'static>,
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChatTemplate").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What a template is rendered with.
#[derive(Debug, Clone, Copy)]
pub struct ChatInput<'a> {
    /// OpenAI-shaped messages, an array of objects; see [`crate::openai_messages`].
    pub messages: &'a serde_json::Value,
    /// OpenAI-shaped tools, an array of objects.
    pub tools: Option<&'a serde_json::Value>,
    /// Whether the text ends with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The tokenizer's special tokens by name, `bos_token` and `eos_token` among them.
    pub special_tokens: &'a Map<String, serde_json::Value>,
    /// Further variables, such as `enable_thinking`. They cannot replace the fields above.
    pub variables: &'a Map<String, serde_json::Value>,
    /// What `strftime_now` tells.
    pub now: WallClock,
}

impl ChatTemplate {
    /// Compiles a template. `name` is what messages about it say.
    pub fn compile(source: &str, name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        if source.len() > MAX_SOURCE_BYTES {
            let file = format!("chat template {name:?}");
            return Err(Error::TooLarge { file, found: source.len(), limit: MAX_SOURCE_BYTES });
        }
        let source = source::prepare(source);
        let syntax = |line, reason| Error::TemplateSyntax { template: name.clone(), line, reason };
        source::check(&source).map_err(|(line, reason)| syntax(line, reason))?;
        let mut environment = environment();
        // Parser and code generator recurse along chains of operators, further than a worker's stack reaches.
        std::thread::scope(|scope| {
            let compile = || environment.add_template_owned(MAIN, source);
            let thread = std::thread::Builder::new().stack_size(COMPILE_STACK_BYTES).spawn_scoped(scope, compile);
            match thread.map(std::thread::ScopedJoinHandle::join) {
                Ok(Ok(Ok(()))) => Ok(()),
                Ok(Ok(Err(error))) => Err(syntax(error.line().unwrap_or(1), reason(&error))),
                Ok(Err(_)) => Err(syntax(1, "the parser gave up".into())),
                Err(error) => Err(syntax(1, format!("no thread to compile it on: {error}"))),
            }
        })?;
        Ok(Self { name, environment })
    }

    /// The name it was compiled under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Renders a conversation. [`Error::Refused`] and [`Error::Messages`] are the sender's to mend, other errors the
    /// template author's.
    pub fn render(&self, input: &ChatInput<'_>) -> Result<String, Error> {
        let mut context: Map<String, serde_json::Value> = input.special_tokens.clone();
        context.insert("documents".into(), serde_json::Value::Null);
        context.extend(input.variables.iter().map(|(key, value)| (key.clone(), value.clone())));
        context.insert("messages".into(), messages::for_template(input.messages)?.into());
        context.insert("tools".into(), input.tools.cloned().unwrap_or_default());
        context.insert("add_generation_prompt".into(), input.add_generation_prompt.into());
        let now = input.now;
        let strftime_now = Value::from_function(move |format: &str| now.format(format));
        let variables = context.iter().map(|(key, value)| (key.as_str(), Value::from(Serde(value))));
        let context = Value::from_pairs(variables.chain([("strftime_now", strftime_now)]));

        let template = self.environment.get_template(MAIN).map_err(|error| self.failure(&error, false))?;
        let mut output = Bounded { bytes: Vec::new(), full: false };
        match template.render_captured_to(context, &mut output) {
            Ok(_) => Ok(String::from_utf8_lossy(&output.bytes).into_owned()),
            Err(error) => Err(self.failure(&error, output.full)),
        }
    }

    fn failure(&self, error: &minijinja::Error, output_full: bool) -> Error {
        let template = self.name.clone();
        if output_full {
            return Error::TemplateOutput { template, limit: MAX_OUTPUT_BYTES };
        }
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(current) = cause {
            if let Some(Refusal(reason)) = current.downcast_ref() {
                return Error::Refused { template, reason: reason.clone() };
            }
            let kind = current.downcast_ref().map(minijinja::Error::kind);
            if kind == Some(ErrorKind::OutOfFuel) {
                return Error::TemplateRuns { template, limit: MAX_STEPS };
            }
            cause = current.source();
        }
        Error::Render { template, line: error.line(), reason: reason(error) }
    }
}

/// Collects what is written, up to the limit.
struct Bounded {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT_BYTES {
            self.full = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).keep_trailing_newline(true).build();
    environment.set_syntax(syntax.expect("the standard delimiters are valid"));
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(MAX_STEPS));
    environment.set_recursion_limit(MAX_DEPTH);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|output, state, value| match json::float(value) {
        Some(text) => output.write_str(&text).map_err(minijinja::Error::from),
        None => minijinja::escape_formatter(output, state, value),
    });
    builtins::add(&mut environment);
    environment
}

/// The engine's words about an error, without the name of the template, which our message has already.
fn reason(error: &minijinja::Error) -> String {
    let kind = error.kind().to_string();
    match error.detail() {
        Some(detail) => format!("{kind}: {detail}"),
        None => kind,
    }
}
