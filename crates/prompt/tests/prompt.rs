//! What the files beside the weights say: ends of text, beginnings of text, and which template applies.

use std::path::Path;

use mlxctl_prompt::{ChatRequest, Error, Prompt, PromptFiles, WallClock, openai_messages};
use serde_json::{Map, Value, json};

fn weights(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../modelspecs/pebble/weights").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Files as JSON; null leaves one out.
struct Files {
    tokenizer: Vec<u8>,
    tokenizer_config: Option<Vec<u8>>,
    generation_config: Option<Vec<u8>>,
    config: Option<Vec<u8>>,
}

impl Files {
    fn new(tokenizer_config: Value, generation_config: Value, config: Value) -> Self {
        let bytes = |value: Value| (!value.is_null()).then(|| value.to_string().into_bytes());
        Self {
            tokenizer: weights("tokenizer.json"),
            tokenizer_config: bytes(tokenizer_config),
            generation_config: bytes(generation_config),
            config: bytes(config),
        }
    }

    fn files(&self) -> PromptFiles<'_> {
        PromptFiles {
            tokenizer_json: Some(&self.tokenizer),
            tokenizer_config: self.tokenizer_config.as_deref(),
            generation_config: self.generation_config.as_deref(),
            config: self.config.as_deref(),
            ..PromptFiles::default()
        }
    }

    fn prompt(&self) -> Result<Prompt, Error> {
        Prompt::from_files(&self.files())
    }
}

fn render(prompt: &Prompt, tools: Option<&Value>) -> Result<String, Error> {
    prompt.render_chat(&ChatRequest {
        messages: &json!([{ "role": "user", "content": "Hello" }]),
        tools,
        add_generation_prompt: true,
        variables: &Map::new(),
        now: WallClock::utc(0),
    })
}

#[test]
fn pebble_is_read_whole() {
    let (tokenizer_config, generation_config, config) =
        (weights("tokenizer_config.json"), weights("generation_config.json"), weights("config.json"));
    let prompt = Prompt::from_files(&PromptFiles {
        tokenizer_json: Some(&weights("tokenizer.json")),
        tokenizer_config: Some(&tokenizer_config),
        generation_config: Some(&generation_config),
        config: Some(&config),
        ..PromptFiles::default()
    })
    .expect("Pebble's files are sound");
    assert_eq!(prompt.eos.iter().copied().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(prompt.bos, None);
    assert!(prompt.has_template());
    prompt.check_templates().expect("its template compiles");
    let text = render(&prompt, None).expect("renders");
    assert!(text.ends_with("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"), "{text}");
    assert_eq!(prompt.encode_chat(&text).expect("encodes")[0], 1, "markers are tokens of their own");
}

#[test]
fn ends_of_text_are_those_of_mlx_lm() {
    let im_end = json!({ "eos_token": "<|im_end|>" });
    for (tokenizer_config, generation_config, config, expect) in [
        (json!(null), json!(null), json!(null), vec![]),
        (json!(null), json!(null), json!({ "eos_token_id": 5 }), vec![5]),
        (json!(null), json!({ "eos_token_id": [7, 8] }), json!({ "eos_token_id": 5 }), vec![7, 8]),
        (json!(null), json!({ "eos_token_id": null }), json!({ "eos_token_id": 5 }), vec![5]),
        (json!(null), json!({ "eos_token_id": 0 }), json!({ "eos_token_id": 5 }), vec![5]),
        (json!(null), json!({ "eos_token_id": [] }), json!({ "eos_token_id": 5 }), vec![5]),
        (json!(null), json!({ "eos_token_id": [0] }), json!({ "eos_token_id": 5 }), vec![0]),
        (json!(null), json!({}), json!({ "eos_token_id": 0 }), vec![0]),
        (json!(null), json!({}), json!({ "text_config": { "eos_token_id": 6 } }), vec![6]),
        (json!(null), json!({ "eos_token_id": -1 }), json!({}), vec![]),
        (im_end.clone(), json!({ "eos_token_id": 9 }), json!({ "eos_token_id": 5 }), vec![2, 9]),
        (json!({ "eos_token": { "content": "<|im_end|>", "special": true } }), json!(null), json!(null), vec![2]),
        (json!({ "eos_token": null }), json!(null), json!(null), vec![]),
        (json!({ "eos_token": "not in the vocabulary" }), json!(null), json!(null), vec![]),
    ] {
        let told = format!("{tokenizer_config} {generation_config} {config}");
        let prompt = Files::new(tokenizer_config, generation_config, config).prompt().expect(&told);
        assert_eq!(prompt.eos.into_iter().collect::<Vec<_>>(), expect, "{told}");
    }
}

#[test]
fn a_plain_prompt_begins_with_the_first_token_once() {
    let hello = |prompt: &Prompt, text: &str| prompt.encode_plain(text).expect("encodes");
    let with = |add: Value| json!({ "bos_token": "<|endoftext|>", "add_bos_token": add });
    let prompt = Files::new(with(json!(true)), json!(null), json!(null)).prompt().expect("sound");
    let tokens = hello(&prompt, "Hello");
    assert_eq!(tokens[0], 0);
    assert_eq!(tokens[1..], prompt.tokenizer.encode("Hello", false).expect("encodes"));
    assert_eq!(hello(&prompt, "<|endoftext|>Hello"), tokens, "it is not added where the text has it");
    for add in [json!(false), json!(null)] {
        let prompt = Files::new(with(add), json!(null), json!(null)).prompt().expect("sound");
        assert_eq!(hello(&prompt, "Hello"), tokens[1..]);
    }

    // A post-processor that adds it is overruled by `add_bos_token: false` alone.
    let mut tokenizer: Value = serde_json::from_slice(&weights("tokenizer.json")).expect("JSON");
    tokenizer["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{ "SpecialToken": { "id": "<|endoftext|>", "type_id": 0 } }, { "Sequence": { "id": "A", "type_id": 0 } }],
        "pair": [{ "Sequence": { "id": "A", "type_id": 0 } }, { "Sequence": { "id": "B", "type_id": 0 } }],
        "special_tokens": { "<|endoftext|>": { "id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"] } },
    });
    for (add, expect) in [(json!(null), &tokens[..]), (json!(true), &tokens[..]), (json!(false), &tokens[1..])] {
        let mut files = Files::new(with(add), json!(null), json!(null));
        files.tokenizer = tokenizer.to_string().into_bytes();
        let prompt = files.prompt().expect("sound");
        assert_eq!(hello(&prompt, "Hello"), expect);
        assert_eq!(prompt.encode_chat("Hello").expect("encodes"), tokens[1..], "templates write their own");
    }
}

#[test]
fn the_template_is_the_one_transformers_takes() {
    let list = json!([{ "name": "default", "template": "plain" }, { "name": "tool_use", "template": "tools" }]);
    let tools = json!([{ "type": "function" }]);
    let prompt = |config: Value| Files::new(config, json!(null), json!(null)).prompt().expect("sound");

    let one = prompt(json!({ "chat_template": "eos is {{ eos_token }}", "eos_token": "<|im_end|>" }));
    assert_eq!(render(&one, None).expect("renders"), "eos is <|im_end|>");
    assert_eq!(render(&one, Some(&tools)).expect("renders"), "eos is <|im_end|>");
    let two = prompt(json!({ "chat_template": list }));
    assert_eq!(render(&two, None).expect("renders"), "plain");
    assert_eq!(render(&two, Some(&tools)).expect("renders"), "tools");
    let none = prompt(json!({}));
    assert!(!none.has_template());
    assert_eq!(render(&none, None), Err(Error::NoTemplate { names: vec![] }));
    let other = prompt(json!({ "chat_template": [{ "name": "rag", "template": "" }] }));
    assert_eq!(render(&other, None), Err(Error::NoTemplate { names: vec!["rag".into()] }));

    let files = Files::new(json!({ "chat_template": list }), json!(null), json!(null));
    let file = PromptFiles { chat_template: Some(b"from a file"), ..files.files() };
    let prompt = Prompt::from_files(&file).expect("sound");
    assert_eq!(render(&prompt, Some(&tools)).expect("renders"), "from a file", "files silence the configuration");
    let more: &[(&str, &[u8])] = &[("tool_use", b"tools from a file")];
    let file = PromptFiles { additional_chat_templates: more, ..file };
    let prompt = Prompt::from_files(&file).expect("sound");
    assert_eq!(render(&prompt, Some(&tools)).expect("renders"), "tools from a file");
    assert_eq!(render(&prompt, None).expect("renders"), "from a file");
}

#[test]
fn a_broken_template_leaves_plain_prompts_alone() {
    let prompt = Files::new(json!({ "chat_template": "{% if %}" }), json!(null), json!(null)).prompt().expect("sound");
    assert!(matches!(prompt.check_templates(), Err(Error::TemplateSyntax { .. })));
    assert!(matches!(render(&prompt, None), Err(Error::TemplateSyntax { .. })));
    assert!(!prompt.encode_plain("Hello").expect("encodes").is_empty());
}

#[test]
fn broken_files_are_refused_by_name() {
    let said = |files: &PromptFiles<'_>| Prompt::from_files(files).expect_err("must be refused").to_string();
    let tokenizer = weights("tokenizer.json");
    let base = PromptFiles { tokenizer_json: Some(&tokenizer), ..PromptFiles::default() };
    assert!(said(&PromptFiles::default()).contains("tokenizer.json"));
    for (files, name) in [
        (PromptFiles { tokenizer_json: Some(b"{"), ..base }, "tokenizer.json"),
        (PromptFiles { tokenizer_config: Some(b"{\n ?"), ..base }, "tokenizer_config.json"),
        (PromptFiles { generation_config: Some(b"[]"), ..base }, "generation_config.json"),
        (PromptFiles { config: Some(br#"{"eos_token_id":"x"}"#), ..base }, "config.json"),
        (PromptFiles { generation_config: Some(br#"{"eos_token_id":[1.5]}"#), ..base }, "generation_config.json"),
        (PromptFiles { special_tokens_map: Some(b"\xff"), ..base }, "special_tokens_map.json"),
        (PromptFiles { tokenizer_config: Some(br#"{"chat_template":7}"#), ..base }, "tokenizer_config.json"),
        (PromptFiles { tokenizer_config: Some(br#"{"chat_template":[{}]}"#), ..base }, "tokenizer_config.json"),
        (PromptFiles { chat_template: Some(b"\xff"), ..base }, "default"),
    ] {
        let said = said(&files);
        assert!(said.contains(name), "{name}: {said}");
    }
}

#[test]
fn openai_messages_become_what_templates_expect() {
    let found = openai_messages(&json!([
        { "role": "user", "content": [{ "type": "text", "text": "one" }, { "type": "text", "text": "two" }] },
        { "role": "assistant", "content": null, "tool_calls": [
            { "id": "a", "type": "function", "function": { "name": "f", "arguments": "{\"x\": [1, 2.5]}" } },
            { "id": "b", "type": "function", "function": { "name": "g", "arguments": "" } },
            { "id": "c", "type": "function", "function": { "name": "h", "arguments": "not JSON" } },
            { "id": "d", "type": "function", "function": { "name": "i", "arguments": { "y": 1 } } },
        ] },
        { "role": "tool", "tool_call_id": "a", "content": "done" },
    ]));
    let expect = json!([
        { "role": "user", "content": "one\ntwo" },
        { "role": "assistant", "content": null, "tool_calls": [
            { "id": "a", "type": "function", "function": { "name": "f", "arguments": { "x": [1, 2.5] } } },
            { "id": "b", "type": "function", "function": { "name": "g", "arguments": {} } },
            { "id": "c", "type": "function", "function": { "name": "h", "arguments": "not JSON" } },
            { "id": "d", "type": "function", "function": { "name": "i", "arguments": { "y": 1 } } },
        ] },
        { "role": "tool", "tool_call_id": "a", "content": "done" },
    ]);
    assert_eq!(found, Ok(expect));
    for wrong in [
        json!("Hello"),
        json!([7]),
        json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }]),
        json!([{ "role": "user", "content": [{ "type": "text" }] }]),
    ] {
        assert!(matches!(openai_messages(&wrong), Err(Error::Messages { .. })), "{wrong}");
    }
}
