//! Tokens to text, one token at a time; `TextStream` holds one. A stream's text, put together, is what the
//! tokenizers library gives for all of its tokens at once, save that nothing panics here.
//!
//! `tokenizer.json` describes decoding as a chain over the whole list of tokens. Each link is rewritten here as a
//! [`Stage`] that takes one token and keeps back no more than it must, so that a token costs the same wherever it
//! stands in the answer.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use tokenizers::Decoder;
use tokenizers::decoders::{DecoderWrapper, wordpiece};
use tokenizers::pre_tokenizers::metaspace::PrependScheme;

use crate::tokenizer::guarded;
use crate::{Error, SpecialTokens, TokenId, Tokenizer};

/// Most links of a decoder chain; real ones have four.
const MAX_STAGES: usize = 32;

/// Decodes the tokens of one answer as they come, never splitting a character.
#[derive(Debug)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    special: SpecialTokens,
    stages: Vec<Stage>,
}

impl Detokenizer {
    /// A detokeniser at the beginning of an answer.
    pub fn new(tokenizer: Arc<Tokenizer>, special: SpecialTokens) -> Self {
        let stages = tokenizer.stages();
        Self { tokenizer, special, stages }
    }

    /// Takes a token and gives the text that is now certain: empty while bytes of a character are missing. Tokens
    /// that spell single bytes (`<0x41>`) come out when their run ends, because one broken byte changes all of it.
    pub fn push(&mut self, token: TokenId) -> Result<String, Error> {
        let mut text = String::new();
        push(&self.tokenizer, self.special, &mut self.stages, token, &mut text)?;
        Ok(text)
    }

    /// The text still kept back, once no token follows; bytes that never became a character are U+FFFD.
    pub fn finish(&mut self) -> Result<String, Error> {
        let mut text = String::new();
        finish(&mut self.stages, &mut text)?;
        Ok(text)
    }
}

/// Decodes all tokens at once.
pub(crate) fn decode(tokenizer: &Tokenizer, tokens: &[TokenId], special: SpecialTokens) -> Result<String, Error> {
    let mut stages = tokenizer.stages();
    let mut text = String::new();
    for token in tokens {
        push(tokenizer, special, &mut stages, *token, &mut text)?;
    }
    finish(&mut stages, &mut text)?;
    Ok(text)
}

fn push(
    tokenizer: &Tokenizer,
    special: SpecialTokens,
    stages: &mut [Stage],
    token: TokenId,
    text: &mut String,
) -> Result<(), Error> {
    if special == SpecialTokens::Skip && tokenizer.is_special(token) {
        return Ok(());
    }
    match tokenizer.token(token) {
        Some(piece) => feed(stages, piece, text).map_err(failed),
        None => Ok(()),
    }
}

fn finish(stages: &mut [Stage], text: &mut String) -> Result<(), Error> {
    for index in 0..stages.len() {
        for piece in stages[index].finish().map_err(failed)? {
            feed(&mut stages[index + 1..], piece, text).map_err(failed)?;
        }
    }
    Ok(())
}

fn failed(reason: String) -> Error {
    Error::Tokenizer { action: "decode", reason }
}

fn feed(stages: &mut [Stage], piece: String, text: &mut String) -> Result<(), String> {
    let Some((stage, rest)) = stages.split_first_mut() else {
        text.push_str(&piece);
        return Ok(());
    };
    for piece in stage.push(piece)? {
        feed(rest, piece, text)?;
    }
    Ok(())
}

/// One link of the chain. Before the tokens are fused, pieces are tokens; afterwards they are parts of one long text.
#[derive(Debug, Clone)]
pub(crate) enum Stage {
    /// No decoder: tokens with spaces between them.
    Spaces { first: bool },
    /// Bytes written as printable characters (`Ġ` is a space); fuses.
    ByteLevel { pending: Vec<u8> },
    /// `▁` is a space, and the one before the first token is no text.
    Metaspace { replacement: char, drop: bool },
    /// A token without the prefix begins a word.
    WordPiece { decoder: wordpiece::WordPiece, first: bool },
    /// A token with the suffix ends a word; the last one needs no space, so one token is kept back.
    WordEnd { suffix: String, held: Option<String> },
    /// Tokens that repeat count once.
    Ctc { decoder: Arc<DecoderWrapper>, last: Option<String> },
    /// Tokens `<0x41>` are bytes; a run of them is text only if all of it is UTF-8.
    ByteFallback { run: Vec<u8> },
    /// A regular expression replaced in each token.
    EachToken(Arc<DecoderWrapper>),
    /// Up to `start` and `stop` characters dropped at the ends of each token.
    Strip { content: char, start: usize, stop: usize },
    /// A literal replaced in each token.
    Replace { pattern: String, content: String },
    /// Up to `left` characters dropped where the fused text begins.
    StripStart { content: char, left: usize },
    /// Up to `most` characters dropped where the fused text ends; those that may be last are kept back.
    StripEnd { content: char, most: usize, held: usize },
    /// A literal replaced in the fused text.
    ReplaceFused { pattern: String, content: String, held: String },
    /// A chain that needs all of the fused text; nothing comes out before the end.
    Whole { decoders: Arc<Vec<DecoderWrapper>>, text: String },
}

/// Translates the decoder of a `tokenizer.json`.
pub(crate) fn stages(decoder: Option<&DecoderWrapper>) -> Result<Vec<Stage>, String> {
    let Some(decoder) = decoder else {
        return Ok(vec![Stage::Spaces { first: true }]);
    };
    let mut links = Vec::new();
    flatten(decoder, &mut links);
    if links.len() > MAX_STAGES {
        return Err(format!("decoder: a chain of {} steps is longer than the {MAX_STAGES} accepted", links.len()));
    }
    let mut stages = Vec::new();
    let mut fused = false;
    for (index, link) in links.iter().enumerate() {
        match (link, fused) {
            (DecoderWrapper::Fuse(_), _) => fused = true,
            (DecoderWrapper::ByteLevel(_), false) => {
                stages.push(Stage::ByteLevel { pending: Vec::new() });
                fused = true;
            }
            (DecoderWrapper::Metaspace(decoder), _) => stages.push(Stage::Metaspace {
                replacement: decoder.get_replacement(),
                drop: decoder.get_prepend_scheme() != PrependScheme::Never,
            }),
            (DecoderWrapper::WordPiece(decoder), false) => {
                stages.push(Stage::WordPiece { decoder: decoder.clone(), first: true });
            }
            (DecoderWrapper::BPE(decoder), false) => {
                stages.push(Stage::WordEnd { suffix: decoder.suffix.clone(), held: None });
            }
            (DecoderWrapper::CTC(_), false) => {
                stages.push(Stage::Ctc { decoder: Arc::new((*link).clone()), last: None });
            }
            (DecoderWrapper::ByteFallback(_), false) => stages.push(Stage::ByteFallback { run: Vec::new() }),
            (DecoderWrapper::Replace(_), _) => match (literal(link), fused) {
                (Some((pattern, content)), true) => {
                    stages.push(Stage::ReplaceFused { pattern, content, held: String::new() });
                }
                (Some((pattern, content)), false) => stages.push(Stage::Replace { pattern, content }),
                (None, false) => stages.push(Stage::EachToken(Arc::new((*link).clone()))),
                (None, true) => return Ok(whole(stages, &links[index..])),
            },
            (DecoderWrapper::Strip(strip), false) => {
                stages.push(Stage::Strip { content: strip.content, start: strip.start, stop: strip.stop });
            }
            (DecoderWrapper::Strip(strip), true) => {
                stages.push(Stage::StripStart { content: strip.content, left: strip.start });
                stages.push(Stage::StripEnd { content: strip.content, most: strip.stop, held: 0 });
            }
            (_, true) => return Ok(whole(stages, &links[index..])),
            (DecoderWrapper::Sequence(_), false) => unreachable!("flatten leaves no sequence"),
        }
    }
    Ok(stages)
}

fn flatten<'a>(decoder: &'a DecoderWrapper, links: &mut Vec<&'a DecoderWrapper>) {
    match decoder {
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().for_each(|link| flatten(link, links)),
        link => links.push(link),
    }
}

fn whole(mut stages: Vec<Stage>, links: &[&DecoderWrapper]) -> Vec<Stage> {
    let decoders = Arc::new(links.iter().map(|link| (*link).clone()).collect());
    stages.push(Stage::Whole { decoders, text: String::new() });
    stages
}

/// Pattern and replacement of a `Replace` decoder whose pattern is plain text. Its fields are private; its JSON is not.
fn literal(decoder: &DecoderWrapper) -> Option<(String, String)> {
    let json = serde_json::to_value(decoder).ok()?;
    let pattern = json.pointer("/pattern/String")?.as_str()?;
    let content = json.get("content").and_then(Value::as_str)?;
    (!pattern.is_empty()).then(|| (pattern.to_owned(), content.to_owned()))
}

impl Stage {
    fn push(&mut self, piece: String) -> Result<Vec<String>, String> {
        let out = match self {
            Self::Spaces { first } => {
                if std::mem::take(first) {
                    piece
                } else {
                    format!(" {piece}")
                }
            }
            Self::ByteLevel { pending } => {
                spell(&piece, pending);
                decode_prefix(pending)
            }
            Self::Metaspace { replacement, drop } => {
                let drop = std::mem::take(drop);
                let space = |c| if c == *replacement { (!drop).then_some(' ') } else { Some(c) };
                piece.chars().filter_map(space).collect()
            }
            Self::WordPiece { decoder, first } => {
                let piece = match (std::mem::take(first), piece.strip_prefix(&decoder.prefix)) {
                    (true, _) => piece,
                    (false, Some(rest)) => rest.to_owned(),
                    (false, None) => format!(" {piece}"),
                };
                if decoder.cleanup { wordpiece::cleanup(&piece) } else { piece }
            }
            Self::WordEnd { suffix, held } => {
                let suffix = suffix.as_str();
                return Ok(held.replace(piece).map(|last| last.replace(suffix, " ")).into_iter().collect());
            }
            Self::Ctc { decoder, last } => {
                if last.as_ref() == Some(&piece) {
                    return Ok(Vec::new());
                }
                *last = Some(piece.clone());
                return guarded(|| decoder.decode_chain(vec![piece]).map_err(|e| e.to_string()));
            }
            Self::ByteFallback { run } => {
                if let Some(byte) = byte_token(&piece) {
                    run.push(byte);
                    return Ok(Vec::new());
                }
                let mut out = end_of_run(run);
                out.push(piece);
                return Ok(out);
            }
            Self::EachToken(decoder) => {
                return guarded(|| decoder.decode_chain(vec![piece]).map_err(|e| e.to_string()));
            }
            Self::Replace { pattern, content } => piece.replace(pattern.as_str(), content),
            Self::Strip { content, start, stop } => {
                let mut rest = piece.as_str();
                for _ in 0..*start {
                    let Some(after) = rest.strip_prefix(*content) else { break };
                    rest = after;
                }
                for _ in 0..*stop {
                    let Some(before) = rest.strip_suffix(*content) else { break };
                    rest = before;
                }
                rest.to_owned()
            }
            Self::StripStart { content, left } => {
                let mut rest = piece.as_str();
                while *left > 0 && !rest.is_empty() {
                    if let Some(after) = rest.strip_prefix(*content) {
                        rest = after;
                        *left -= 1;
                    } else {
                        *left = 0;
                    }
                }
                rest.to_owned()
            }
            Self::StripEnd { content, most, held } => {
                let body = piece.trim_end_matches(*content);
                let run = (piece.len() - body.len()) / content.len_utf8();
                let run = if body.is_empty() { held.saturating_add(run) } else { run };
                let keep = run.min(*most);
                let before = if body.is_empty() { 0 } else { *held };
                *held = keep;
                let fill = |count| std::iter::repeat_n(*content, count);
                fill(before).chain(body.chars()).chain(fill(run - keep)).collect()
            }
            Self::ReplaceFused { pattern, content, held } => {
                held.push_str(&piece);
                let mut out = String::new();
                let mut from = 0;
                while let Some(at) = held[from..].find(pattern.as_str()) {
                    out.push_str(&held[from..from + at]);
                    out.push_str(content);
                    from += at + pattern.len();
                }
                let keep = (0..pattern.len().min(held.len() - from + 1))
                    .rev()
                    .find(|&length| pattern.as_bytes().starts_with(&held.as_bytes()[held.len() - length..]))
                    .unwrap_or(0);
                let rest = held.split_off(held.len() - keep);
                out.push_str(&held[from..]);
                *held = rest;
                out
            }
            Self::Whole { text, .. } => {
                text.push_str(&piece);
                return Ok(Vec::new());
            }
        };
        Ok(vec![out])
    }

    fn finish(&mut self) -> Result<Vec<String>, String> {
        Ok(match self {
            Self::ByteLevel { pending } => {
                let rest = String::from_utf8_lossy(pending).into_owned();
                pending.clear();
                vec![rest]
            }
            Self::WordEnd { suffix, held } => {
                held.take().map(|last| last.replace(suffix.as_str(), "")).into_iter().collect()
            }
            Self::ByteFallback { run } => end_of_run(run),
            Self::ReplaceFused { held, .. } => vec![std::mem::take(held)],
            Self::Whole { decoders, text } => {
                let text = std::mem::take(text);
                let step = |pieces, link: &DecoderWrapper| link.decode_chain(pieces).map_err(|e| e.to_string());
                guarded(|| decoders.iter().try_fold(vec![text], step))?
            }
            Self::Spaces { .. }
            | Self::Metaspace { .. }
            | Self::WordPiece { .. }
            | Self::Ctc { .. }
            | Self::EachToken(_)
            | Self::Strip { .. }
            | Self::Replace { .. }
            | Self::StripStart { .. }
            | Self::StripEnd { .. } => Vec::new(),
        })
    }
}

/// The byte that a token such as `<0x0A>` stands for.
fn byte_token(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() == 2 { u8::from_str_radix(digits, 16).ok() } else { None }
}

fn end_of_run(run: &mut Vec<u8>) -> Vec<String> {
    let bytes = std::mem::take(run);
    let count = bytes.len();
    match String::from_utf8(bytes) {
        Ok(text) if text.is_empty() => Vec::new(),
        Ok(text) => vec![text],
        Err(_) => vec!["\u{fffd}".to_owned(); count],
    }
}

/// Appends the bytes a byte-level token stands for; a token with any other character is text itself.
fn spell(token: &str, bytes: &mut Vec<u8>) {
    let before = bytes.len();
    for character in token.chars() {
        if let Some(byte) = BYTE_OF.get(&character) {
            bytes.push(*byte);
        } else {
            bytes.truncate(before);
            bytes.extend_from_slice(token.as_bytes());
            return;
        }
    }
}

/// The alphabet of byte-level BPE: printable bytes of Latin-1 stand for themselves, the others count up from U+0100.
static BYTE_OF: LazyLock<HashMap<char, u8>> = LazyLock::new(|| {
    let mut shifted = 0x100_u32;
    (0..=u8::MAX)
        .map(|byte| {
            if matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff) {
                return (char::from(byte), byte);
            }
            let character = char::from_u32(shifted).expect("256 numbers from U+0100 are characters");
            shifted += 1;
            (character, byte)
        })
        .collect()
});

/// Takes the text that is certain off the front: all but a last character whose bytes are incomplete.
fn decode_prefix(bytes: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut certain = 0;
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        certain += chunk.valid().len();
        let broken = chunk.invalid();
        let last = certain + broken.len() == bytes.len();
        if broken.is_empty() || (last && is_incomplete(broken)) {
            break;
        }
        text.push('\u{fffd}');
        certain += broken.len();
    }
    bytes.drain(..certain);
    text
}

/// Whether more bytes could still make a character of these.
fn is_incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
