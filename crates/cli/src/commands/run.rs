//! `mlxctl run`: a prompt, an answer.

use std::io::{IsTerminal as _, Read as _};
use std::time::Duration;

use futures_util::StreamExt as _;
use mlxctl_api::KeepAlive;
use mlxctl_api::ollama::{GenerateRequest, Options};
use mlxctl_artifact::Reference;

use crate::context::{Context, block_on};
use crate::daemon;
use crate::failure::Failure;

/// The longest prompt read from a pipe, in bytes.
const MAX_PROMPT_BYTES: u64 = 4 << 20;

/// Ask a model once and print its answer; the daemon is started where none runs.
///
/// Example: mlxctl run pebble "What is the capital of France?"
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The model, as in the store, or pinned with @sha256:…
    #[arg(value_name = "REF")]
    name: Reference,

    /// What is asked; without it, standard input.
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,

    /// Another system prompt than the recipe's.
    #[arg(long)]
    system: Option<String>,

    /// 0 answers greedily.
    #[arg(long)]
    temperature: Option<f64>,

    /// Seed of the sampling.
    #[arg(long)]
    seed: Option<u32>,

    /// Tokens of the answer at the most.
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,

    /// How long the model stays loaded, as in 5m; 0 unloads it at once.
    #[arg(long, value_name = "DURATION")]
    keep_alive: Option<String>,
}

pub(crate) fn run(context: &Context, args: &Args) -> Result<(), Failure> {
    let keep_alive = match &args.keep_alive {
        None => None,
        Some(text) => Some(KeepAlive::parse(text).ok_or_else(|| {
            Failure::wrong(format!("--keep-alive: {text:?} is not a duration")).hint("as in 30s, 5m, 1h, 0 or -1")
        })?),
    };
    let request = GenerateRequest {
        model: args.name.to_string(),
        prompt: Some(prompt(args)?),
        system: args.system.clone(),
        keep_alive,
        options: Some(Options {
            temperature: args.temperature,
            seed: args.seed.map(i64::from),
            num_predict: args.max_tokens.map(i64::from),
            ..Options::default()
        }),
        ..GenerateRequest::default()
    };
    block_on(async {
        let client = daemon::find_or_start(context).await?;
        let mut pieces = client.generate(&request).await?;
        let mut ends_with_newline = true;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            if !piece.response.is_empty() {
                ends_with_newline = piece.response.ends_with('\n');
                context.printer.text(&piece.response)?;
            }
        }
        if ends_with_newline { Ok(()) } else { context.printer.text("\n") }
    })
}

/// The prompt given, else what is piped in.
fn prompt(args: &Args) -> Result<String, Failure> {
    if let Some(prompt) = &args.prompt {
        return Ok(prompt.clone());
    }
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Err(Failure::wrong("no prompt").hint("give one after the model's name, or pipe one in"));
    }
    let mut text = String::new();
    let read = stdin.lock().take(MAX_PROMPT_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| Failure::wrong(format!("standard input: {error}")))?;
    if text.len() as u64 > MAX_PROMPT_BYTES {
        return Err(Failure::wrong(format!("standard input holds more than {MAX_PROMPT_BYTES} bytes")));
    }
    Ok(text)
}

/// How `stop` asks for a model to be unloaded.
pub(crate) fn unload(name: &Reference) -> GenerateRequest {
    GenerateRequest {
        model: name.to_string(),
        keep_alive: Some(KeepAlive::For(Duration::ZERO)),
        stream: Some(false),
        ..GenerateRequest::default()
    }
}
