//! A tokenizer read from `tokenizer.json`; the server encodes prompts with it, streams decode through it.

use std::any::Any;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::detokenizer::{self, Stage, stages};
use crate::{Error, TokenId};

/// Largest `tokenizer.json` read, in bytes; the largest vocabularies in use need about 40 MB.
const MAX_TOKENIZER_BYTES: usize = 256 << 20;

/// Most token ids of a vocabulary; others size their tables by it.
const MAX_VOCAB: usize = 1 << 24;

/// Whether tokens such as `<|im_end|>` appear in decoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SpecialTokens {
    /// They appear as written in the vocabulary, as in mlx-lm.
    #[default]
    Keep,
    /// They are left out.
    Skip,
}

/// Turns text into tokens and back. Truncation and padding that the file may ask for are switched off: a prompt is
/// encoded whole, and its length is the engine's to judge.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: HashSet<TokenId>,
    vocab_size: usize,
    stages: Vec<Stage>,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size).finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Reads the bytes of a `tokenizer.json`.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        const FILE: &str = "tokenizer.json";
        if bytes.len() > MAX_TOKENIZER_BYTES {
            return Err(Error::TooLarge { file: FILE.into(), found: bytes.len(), limit: MAX_TOKENIZER_BYTES });
        }
        let broken = |reason: String| Error::File { file: FILE.into(), reason };
        guarded(|| {
            let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
            inner.with_truncation(None).map_err(|e| e.to_string())?;
            inner.with_padding(None);
            let added = inner.get_added_tokens_decoder();
            let special = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id).collect();
            let largest = inner.get_vocab(true).into_values().max();
            let vocab_size = largest.map_or(0, |id| id as usize + 1);
            if vocab_size > MAX_VOCAB {
                return Err(format!("token id {} is above the {MAX_VOCAB} accepted", vocab_size - 1));
            }
            let stages = stages(inner.get_decoder())?;
            Ok(Self { inner, special, vocab_size, stages })
        })
        .map_err(broken)
    }

    /// The tokens of `text`. Special tokens written in the text become their ids; `add_special` adds those that the
    /// model's post-processor puts around a text, such as its first token.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<TokenId>, Error> {
        guarded(|| self.inner.encode_fast(text, add_special).map_err(|e| e.to_string()))
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|reason| Error::Tokenizer { action: "encode", reason })
    }

    /// The text of `tokens`. Ids outside the vocabulary are left out; broken UTF-8 becomes U+FFFD.
    pub fn decode(&self, tokens: &[TokenId], special: SpecialTokens) -> Result<String, Error> {
        detokenizer::decode(self, tokens, special)
    }

    /// One above the largest id, so that every token is below it.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a token written as in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<TokenId> {
        self.inner.token_to_id(token)
    }

    /// The token as written in the vocabulary: before decoding, so that a space may appear as `Ġ` or `▁`.
    pub fn token(&self, id: TokenId) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether a token is special: a marker of the format rather than text.
    pub fn is_special(&self, id: TokenId) -> bool {
        self.special.contains(&id)
    }

    /// The steps from tokens to text, ready for a new stream.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.stages.clone()
    }
}

/// Runs a step of the tokenizer library, which panics on some files and texts, and gives the panic back as an error.
pub(crate) fn guarded<T>(step: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(step)).unwrap_or_else(|panic| Err(words(&*panic)))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the tokenizer library gave up: {}", text.unwrap_or("no reason given"))
}
