//! A mounted model: its files turned into a prompt and an engine, and the defaults that its recipe brings.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mlxctl_artifact::{Digest, ResolvedSpec};
use mlxctl_backend_cpu::CpuBackend;
use mlxctl_engine::{Engine, EngineHandle, EngineOptions};
use mlxctl_prompt::{Prompt, PromptFiles};
use mlxctl_store::{Lease, Store, Verify};
use mlxctl_weights::Checkpoint;

use crate::Error;
use crate::files::ModelFiles;

/// How models are mounted.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// Threads of the CPU backend, the engine's own among them.
    pub threads: NonZeroUsize,
    /// Tokens of a sequence at the most; the recipe's, else the model's own, where there is none.
    pub context: Option<usize>,
    /// What the engine may take on.
    pub engine: EngineOptions,
    /// Hash the weights even where a seal vouches for them.
    pub verify: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { threads, context: None, engine: EngineOptions::default(), verify: false }
    }
}

/// A model that answers.
pub struct LoadedModel {
    /// Its name, as the catalogue has it.
    pub name: String,
    /// The manifest.
    pub digest: Digest,
    /// Bytes of its files.
    pub size: u64,
    /// Its recipe.
    pub spec: ResolvedSpec,
    /// What its `generation_config.json` says.
    pub generation: GenerationConfig,
    /// Between text and tokens.
    pub prompt: Prompt,
    /// The engine.
    pub engine: EngineHandle,
    /// `system_fingerprint`: digest, backend and kernel revision, shortened.
    pub fingerprint: String,
    /// What lists show of it.
    pub card: mlxctl_api::ollama::Details,
    /// What mounting took.
    pub load_time: Duration,
    /// Keeps the blobs from the collector.
    _lease: Option<Lease>,
}

impl LoadedModel {
    /// Mounts a model on an engine. Blocks: weights may have to be hashed.
    pub fn mount(
        engine: &Engine,
        files: &ModelFiles,
        store: Option<&Store>,
        options: &MountOptions,
    ) -> Result<Self, Error> {
        let started = Instant::now();
        let name = files.name.clone();
        let lease = match store {
            Some(store) if store.contains(&files.digest)? => Some(store.lease(&[files.digest])?),
            _ => None,
        };
        let spec = files.spec()?;
        let prompt = read_prompt(files)?;
        let config = files.required("config.json")?.clone();
        let verify = if options.verify { Verify::Always } else { Verify::Unsealed };
        let weights = files.weights(store, verify)?;
        let of_recipe = spec.parameters.context_length.map(|length| length as usize);
        let context = match (options.context, of_recipe) {
            (Some(flag), Some(recipe)) => Some(flag.min(recipe)),
            (flag, recipe) => flag.or(recipe),
        };
        let threads = options.threads;
        let factory = move || -> Result<_, mlxctl_models::Error> {
            let backend = CpuBackend::new(threads);
            let checkpoint = Checkpoint::from_files(weights.clone())?;
            let model = mlxctl_models::load(&backend, &config, &checkpoint)?;
            Ok((backend, model))
        };
        let options = EngineOptions { context, ..options.engine };
        let engine = engine.mount(factory, options).map_err(|source| Error::Mount { model: name.clone(), source })?;
        let fingerprint = format!("{}-{}", files.digest.short(), engine.facts().fingerprint);
        let load_time = started.elapsed();
        let generation = GenerationConfig::read(files);
        let card = crate::show::details(files, Some(&engine.facts().details));
        let (digest, size) = (files.digest, files.size);
        Ok(Self { name, digest, size, spec, generation, prompt, engine, fingerprint, card, load_time, _lease: lease })
    }

    /// Tokens of a sequence at the most.
    pub fn context(&self) -> usize {
        self.engine.facts().context
    }
}

/// Tokenizer and templates of a model.
pub(crate) fn read_prompt(files: &ModelFiles) -> Result<Prompt, Error> {
    let document = |path: &str| files.document(path).map(|bytes| &bytes[..]);
    let additional: Vec<(&str, &[u8])> = files
        .documents()
        .filter_map(|(path, bytes)| {
            let name = path.strip_prefix("additional_chat_templates/")?.strip_suffix(".jinja")?;
            Some((name, &bytes[..]))
        })
        .collect();
    let prompt = Prompt::from_files(&PromptFiles {
        tokenizer_json: document("tokenizer.json"),
        tokenizer_config: document("tokenizer_config.json"),
        special_tokens_map: document("special_tokens_map.json"),
        generation_config: document("generation_config.json"),
        config: document("config.json"),
        chat_template: document("chat_template.jinja"),
        additional_chat_templates: &additional,
    });
    prompt.map_err(|source| Error::Prompt { model: files.name.clone(), source })
}

/// The part of `generation_config.json` that says how answers are sampled where nobody else does.
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// `false` is greedy.
    pub do_sample: Option<bool>,
    /// 0 is greedy.
    pub temperature: Option<f64>,
    /// 0 to 1.
    pub top_p: Option<f64>,
    /// The likeliest tokens; 0 is all.
    pub top_k: Option<u32>,
    /// 0 to 1.
    pub min_p: Option<f64>,
    /// Divides the logits of tokens that came before.
    pub repetition_penalty: Option<f64>,
}

impl GenerationConfig {
    /// A file that cannot be read says nothing here; the tokens it names are read, and complained of, elsewhere.
    fn read(files: &ModelFiles) -> Self {
        let parsed = files.document("generation_config.json").map(|bytes| serde_json::from_slice::<Self>(bytes));
        match parsed {
            Some(Ok(config)) => config,
            Some(Err(error)) => {
                tracing::warn!(model = files.name, %error, "generation_config.json is passed over");
                Self::default()
            }
            None => Self::default(),
        }
    }
}

/// The engine that all models of a daemon share: one device, one thread.
pub fn start_engine() -> Result<Arc<Engine>, Error> {
    Engine::start("device-cpu").map(Arc::new).map_err(|source| Error::Mount { model: "cpu".to_owned(), source })
}
