//! One sequence's way from tokens to text: detokeniser, then stop strings. The engine owns one a sequence.

use std::sync::Arc;

use crate::{Detokenizer, Error, SpecialTokens, StopMatcher, StopStrings, TokenId, Tokenizer};

/// Text that may be shown, and whether it ended in a stop string.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Piece {
    /// Text that is final; often empty while a character or a possible stop is incomplete.
    pub text: String,
    /// The stop string that ended the text, itself not part of it.
    pub stopped: Option<String>,
}

/// Turns the tokens of one answer into text, as they come.
#[derive(Debug)]
pub struct TextStream {
    detokenizer: Detokenizer,
    matcher: StopMatcher,
}

impl TextStream {
    /// A stream that shows special tokens and ends at the first of `stops`.
    pub fn new(tokenizer: &Arc<Tokenizer>, stops: &StopStrings) -> Self {
        Self::with_special_tokens(tokenizer, stops, SpecialTokens::Keep)
    }

    /// A stream that shows or drops special tokens. Tokens that end an answer are not pushed at all.
    pub fn with_special_tokens(tokenizer: &Arc<Tokenizer>, stops: &StopStrings, special: SpecialTokens) -> Self {
        Self { detokenizer: Detokenizer::new(Arc::clone(tokenizer), special), matcher: StopMatcher::new(stops) }
    }

    /// Takes the next token. Nothing comes out after a stop string was completed.
    pub fn push(&mut self, token: TokenId) -> Result<Piece, Error> {
        if self.matcher.is_done() {
            return Ok(Piece::default());
        }
        let out = self.matcher.push(&self.detokenizer.push(token)?);
        Ok(Piece { text: out.text, stopped: out.stop })
    }

    /// The text still kept back, once no token follows. It can itself complete a stop string.
    pub fn finish(&mut self) -> Result<Piece, Error> {
        if self.matcher.is_done() {
            return Ok(Piece::default());
        }
        let out = self.matcher.push(&self.detokenizer.finish()?);
        let mut text = out.text;
        text.push_str(&self.matcher.finish());
        Ok(Piece { text, stopped: out.stop })
    }
}
