//! What a stream says, put together, is what decoding all of its tokens gives, for every kind of tokenizer.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlxctl_prompt::{Detokenizer, Piece, SpecialTokens, StopStrings, TextStream, TokenId, Tokenizer};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

/// Where a tokenizer lies: Pebble's, or one of `tests/golden/tokenizers`.
fn path(name: &str) -> PathBuf {
    let base = Path::new(env!("CARGO_MANIFEST_DIR"));
    match name {
        "pebble" => base.join("../../modelspecs/pebble/weights/tokenizer.json"),
        name => base.join(format!("tests/golden/tokenizers/{name}.json")),
    }
}

fn pebble() -> Arc<Tokenizer> {
    read(&path("pebble"))
}

fn read(path: &Path) -> Arc<Tokenizer> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Arc::new(Tokenizer::from_json(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

/// Pebble's tokenizer and those of `tests/golden/tokenizers`, one a kind of decoder.
fn tokenizers() -> Vec<(String, Arc<Tokenizer>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tokenizers");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the folder is there").map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    let name = |path: &Path| path.file_stem().expect("a file").to_string_lossy().into_owned();
    let mut all: Vec<_> = paths.iter().map(|path| (name(path), read(path))).collect();
    assert!(all.len() >= 11, "the generator writes eleven tokenizers");
    all.push(("pebble".to_owned(), pebble()));
    all
}

fn streamed(tokenizer: &Arc<Tokenizer>, tokens: &[TokenId], special: SpecialTokens) -> String {
    let mut stream = Detokenizer::new(Arc::clone(tokenizer), special);
    let mut text: String = tokens.iter().map(|token| stream.push(*token).expect("decodes")).collect();
    text.push_str(&stream.finish().expect("decodes"));
    text
}

#[test]
fn streams_say_what_decoding_says() {
    for (name, tokenizer) in tokenizers() {
        let library = tokenizers::Tokenizer::from_file(path(&name)).expect("reads");
        // A few ids above the vocabulary are left out by both.
        let any = 0..tokenizer.vocab_size() as TokenId + 3;
        let bytes: Vec<TokenId> =
            (0..=u8::MAX).filter_map(|byte| tokenizer.token_id(&format!("<0x{byte:02X}>"))).collect();
        let token = if bytes.is_empty() { any.boxed() } else { prop_oneof![any, prop::sample::select(bytes)].boxed() };
        let config = ProptestConfig {
            failure_persistence: None,
            rng_seed: RngSeed::Fixed(1),
            ..ProptestConfig::with_cases(300)
        };
        let outcome = TestRunner::new(config).run(&prop::collection::vec(token, 0..24), |tokens| {
            for special in [SpecialTokens::Keep, SpecialTokens::Skip] {
                let said = streamed(&tokenizer, &tokens, special);
                prop_assert_eq!(&tokenizer.decode(&tokens, special).expect("decodes"), &said);
                // The library panics on some tokens, for instance where it strips what is empty.
                let whole = catch_unwind(|| library.decode(&tokens, special == SpecialTokens::Skip).expect("decodes"));
                if let Ok(whole) = whole {
                    prop_assert_eq!(said, whole);
                }
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn texts_survive_the_way_there_and_back() {
    let tokenizer = pebble();
    for text in
        ["", " ", "Hello", "naïve Größe 文字 👩‍👩‍👧‍👦 🇫🇷\n\n\t x", "<|im_start|>user\nHi<|im_end|>", "\u{0}\u{7f}\u{fffd}"]
    {
        let tokens = tokenizer.encode(text, false).expect("encodes");
        assert_eq!(tokenizer.decode(&tokens, SpecialTokens::Keep).expect("decodes"), text);
        assert_eq!(streamed(&tokenizer, &tokens, SpecialTokens::Keep), text);
    }
}

#[test]
fn no_character_is_split_and_none_is_late() {
    let tokenizer = pebble();
    let tokens = tokenizer.encode("a€b", false).expect("encodes");
    let mut stream = Detokenizer::new(Arc::clone(&tokenizer), SpecialTokens::Keep);
    let pieces: Vec<String> = tokens.iter().map(|token| stream.push(*token).expect("decodes")).collect();
    assert_eq!(pieces.concat(), "a€b", "nothing is kept back once all is certain: {pieces:?}");
    assert!(pieces.iter().any(String::is_empty), "the bytes of € come one by one: {pieces:?}");
    assert!(!pieces.concat().contains('\u{fffd}'));
    assert_eq!(stream.finish().expect("decodes"), "");

    let broken = &tokens[..2];
    assert_eq!(streamed(&tokenizer, broken, SpecialTokens::Keep), "a\u{fffd}");
}

#[test]
fn a_token_costs_the_same_late_in_an_answer() {
    // A stream that looked back at all it has said would not come to an end here.
    for (name, tokenizer) in tokenizers() {
        let mut stream = Detokenizer::new(Arc::clone(&tokenizer), SpecialTokens::Keep);
        let mut length = 0;
        for token in (0..tokenizer.vocab_size() as TokenId).cycle().take(50_000) {
            length += stream.push(token).expect("decodes").len();
        }
        length += stream.finish().expect("decodes").len();
        assert!(length > 10_000, "{name}: {length}");
    }
}

#[test]
fn special_tokens_are_shown_or_dropped() {
    let tokenizer = pebble();
    let tokens = tokenizer.encode("<tool_call>x</tool_call>", false).expect("encodes");
    assert_eq!(streamed(&tokenizer, &tokens, SpecialTokens::Keep), "<tool_call>x</tool_call>");
    assert_eq!(streamed(&tokenizer, &tokens, SpecialTokens::Skip), "x");
    assert!(tokenizer.is_special(tokens[0]) && !tokenizer.is_special(tokens[1]));
}

#[test]
fn a_stop_string_ends_the_text_across_tokens() {
    let tokenizer = pebble();
    let stops = StopStrings::new(["seven", "\n\n"]).expect("legal");
    let mut stream = TextStream::new(&tokenizer, &stops);
    let mut text = String::new();
    let mut stopped = None;
    for token in tokenizer.encode("five six s€ sev seven eight", false).expect("encodes") {
        let piece = stream.push(token).expect("decodes");
        assert!(stopped.is_none() || piece == Piece::default(), "nothing follows a stop");
        text.push_str(&piece.text);
        stopped = stopped.or(piece.stopped);
    }
    assert_eq!((text.as_str(), stopped.as_deref()), ("five six s€ sev ", Some("seven")));
    assert_eq!(stream.finish().expect("decodes"), Piece::default());
}

#[test]
fn what_may_be_a_stop_comes_out_at_the_end() {
    let tokenizer = pebble();
    let mut stream = TextStream::new(&tokenizer, &StopStrings::new(["seventy", "\u{fffd}"]).expect("legal"));
    let mut text = String::new();
    for token in tokenizer.encode("seven", false).expect("encodes") {
        text.push_str(&stream.push(token).expect("decodes").text);
    }
    assert_eq!(text, "");
    assert_eq!(stream.finish().expect("decodes"), Piece { text: "seven".into(), stopped: None });

    // Bytes that stay incomplete become U+FFFD at the end, which is text like any other.
    let mut stream = TextStream::new(&tokenizer, &StopStrings::new(["\u{fffd}"]).expect("legal"));
    let first = tokenizer.encode("€", false).expect("encodes")[0];
    assert_eq!(stream.push(first).expect("decodes"), Piece::default());
    assert_eq!(stream.finish().expect("decodes"), Piece { text: String::new(), stopped: Some("\u{fffd}".into()) });
}

#[test]
fn streams_can_move_between_threads() {
    fn check<T: Send>() {}
    check::<TextStream>();
    fn shared<T: Send + Sync>() {}
    shared::<Tokenizer>();
}

#[test]
fn every_id_is_below_the_size_of_the_vocabulary() {
    let tokenizer = pebble();
    assert_eq!(tokenizer.vocab_size(), 1536);
    let all: BTreeSet<_> = (0..1600).filter(|id| tokenizer.token(*id).is_some()).collect();
    assert_eq!(all.last(), Some(&1535));
}

#[test]
fn truncation_and_padding_in_the_file_are_not_heard() {
    let mut json: serde_json::Value =
        serde_json::from_slice(&std::fs::read(path("pebble")).expect("there")).expect("JSON");
    json["truncation"] =
        serde_json::json!({ "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 });
    json["padding"] = serde_json::json!({ "strategy": { "Fixed": 8 }, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>" });
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).expect("reads");
    assert_eq!(tokenizer.encode("one two three", true), pebble().encode("one two three", true));
}

#[test]
fn hostile_tokenizers_are_refused_or_harmless() {
    let nested = |depth: usize| {
        let (open, close) = (r#"{"type":"Sequence","decoders":["#, "]}");
        format!("{}{}", open.repeat(depth), close.repeat(depth))
    };
    let with = |decoder: &str| {
        format!(
            r#"{{"version":"1.0","decoder":{decoder},"model":{{"type":"WordLevel","vocab":{{"a":0,"":1}},"unk_token":"a"}}}}"#
        )
    };
    let chain = format!(r#"{{"type":"Sequence","decoders":[{}]}}"#, vec![r#"{"type":"Fuse"}"#; 40].join(","));
    for json in [
        String::new(),
        "null".into(),
        "[]".into(),
        "{}".into(),
        "{\"version\":\"1.0\"}".into(),
        "[".repeat(100_000),
        r#"{"version":"9.9"}"#.into(),
        r#"{"version":"1.0","model":{"type":"BPE","vocab":{"a":0},"merges":["a b"]}}"#.into(),
        r#"{"version":"1.0","model":{"type":"Unigram","unk_id":7,"vocab":[["a",0.0]]}}"#.into(),
        r#"{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":-1},"unk_token":"a"}}"#.into(),
        r#"{"version":"1.0","model":{"type":"WordLevel","vocab":{"a":4294967295},"unk_token":"a"}}"#.into(),
        with(&chain),
        with(&nested(200)),
        with(r#"{"type":"Replace","pattern":{"Regex":"("},"content":""}"#),
    ] {
        assert!(Tokenizer::from_json(json.as_bytes()).is_err(), "{}", &json[..json.len().min(80)]);
    }
    // Legal, though the library panics on them: an error, or text, and never a panic.
    for json in [
        with(r#"{"type":"Strip","content":"a","start":3,"stop":3}"#),
        with(r#"{"type":"Sequence","decoders":[{"type":"Fuse"},{"type":"Strip","content":"a","start":9,"stop":9}]}"#),
        with(
            r#"{"type":"Sequence","decoders":[{"type":"Strip","content":"a","start":1,"stop":1},{"type":"CTC","pad_token":"","word_delimiter_token":"","cleanup":true}]}"#,
        ),
        with(r#"{"type":"BPEDecoder","suffix":""}"#),
        with(r#"{"type":"Replace","pattern":{"Regex":"(a*)*b"},"content":"x"}"#),
        with(r#"{"type":"Replace","pattern":{"String":""},"content":"x"}"#),
    ] {
        let tokenizer = Arc::new(Tokenizer::from_json(json.as_bytes()).expect("legal"));
        let _ = tokenizer.encode("a b  a", true);
        let _ = tokenizer.decode(&[1, 0, 1], SpecialTokens::Keep);
        let mut stream = Detokenizer::new(tokenizer, SpecialTokens::Keep);
        for token in [1, 0, 1, 7] {
            let _ = stream.push(token);
        }
        let _ = stream.finish();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(60) })]

    #[test]
    fn a_file_with_broken_bytes_never_panics(at in 0.0..1.0_f64, byte: u8, cut in 0.0..1.0_f64) {
        let mut bytes = std::fs::read(path("sentencepiece")).expect("there");
        let index = (bytes.len() as f64 * at) as usize;
        bytes[index] = byte;
        if cut < 0.2 {
            bytes.truncate(index);
        }
        if let Ok(tokenizer) = Tokenizer::from_json(&bytes) {
            let _ = tokenizer.encode("Hello naïve €", true);
            let _ = tokenizer.decode(&[1, 2, 3, 400], SpecialTokens::Keep);
        }
    }
}
