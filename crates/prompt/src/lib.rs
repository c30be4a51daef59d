//! Between text and token ids: tokenizer, chat template, streaming detokeniser and stop strings.
//!
//! The server builds one [`Prompt`] a mounted model from the files of its artifact, renders conversations with it and
//! gives every sequence of the engine a [`TextStream`]. Everything here is computed from bytes and values handed in:
//! no file, no clock and no weight is touched, and all of those bytes are treated as hostile.

mod config;
mod detokenizer;
mod error;
mod messages;
mod stop;
mod stream;
mod template;
mod tokenizer;

pub use config::{ChatRequest, Prompt, PromptFiles};
pub use detokenizer::Detokenizer;
pub use error::Error;
pub use messages::openai_messages;
pub use stop::{StopMatcher, StopStrings, Stopped};
pub use stream::{Piece, TextStream};
pub use template::{ChatInput, ChatTemplate, WallClock};
pub use tokenizer::{SpecialTokens, Tokenizer};

/// The number of a token in its tokenizer's vocabulary.
pub type TokenId = u32;
