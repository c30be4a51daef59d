//! Templates render as transformers renders them, and within bounds. The golden files and their generator,
//! `tools/golden/templates.py`, tell what transformers makes of the same inputs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mlxctl_prompt::{ChatInput, ChatTemplate, Error, Tokenizer, WallClock};
use serde_json::{Map, Value, json};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn repository(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn read_json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rows(path: &Path) -> Vec<Value> {
    let Value::Array(rows) = read_json(path) else { panic!("{}: not an array", path.display()) };
    rows
}

fn check_conversations(template: &str, source: &str) {
    let tokenizer =
        std::fs::read(repository("modelspecs/pebble/weights/tokenizer.json")).expect("Pebble has a tokenizer");
    let tokenizer = Tokenizer::from_json(&tokenizer).expect("Pebble's tokenizer reads");
    let compiled = ChatTemplate::compile(source, template).expect("the template compiles");
    let special = read_json(&golden(&format!("rendered/{template}.tokens.json")));
    let cases = rows(&golden("conversations.json"));
    let expected = rows(&golden(&format!("rendered/{template}.json")));
    assert_eq!(cases.len(), expected.len());
    assert!(cases.len() > 50, "at least fifty conversations");
    let mut wrong = String::new();
    for (case, expected) in cases.iter().zip(&expected) {
        assert_eq!(case["name"], expected["name"]);
        let rendered = compiled.render(&ChatInput {
            messages: &case["messages"],
            tools: Some(&case["tools"]).filter(|tools| !tools.is_null()),
            add_generation_prompt: case["add_generation_prompt"] == true,
            special_tokens: special.as_object().expect("an object"),
            variables: case["variables"].as_object().expect("an object"),
            now: WallClock::utc(0),
        });
        let found = match rendered {
            Ok(text) => json!({ "text": text, "ids": tokenizer.encode(&text, false).expect("encodes") }),
            Err(Error::Refused { reason, .. }) => json!({ "refused": reason }),
            Err(Error::Render { .. }) => json!({ "fails": true }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        let mut expected = expected.clone();
        let name = expected.as_object_mut().and_then(|row| row.remove("name"));
        if found != expected {
            writeln!(wrong, "{name:?}\n  expected {expected}\n  found    {found}").expect("written");
        }
    }
    assert!(wrong.is_empty(), "{template} differs from transformers:\n{wrong}");
}

fn check_catalogue(name: &str) {
    let path = repository(&format!("crates/modelspec/src/catalogue/{name}.jinja"));
    check_conversations(name, &std::fs::read_to_string(path).expect("the catalogue has the template"));
}

#[test]
fn pebble_renders_as_in_transformers() {
    let config = read_json(&repository("modelspecs/pebble/weights/tokenizer_config.json"));
    check_conversations("pebble", config["chat_template"].as_str().expect("a template"));
}

#[test]
fn chatml_renders_as_in_transformers() {
    check_catalogue("chatml");
}

#[test]
fn llama3_renders_as_in_transformers() {
    check_catalogue("llama3");
}

#[test]
fn mistral_renders_as_in_transformers() {
    check_catalogue("mistral");
}

fn render(source: &str) -> Result<String, Error> {
    render_with(source, &Map::new())
}

fn render_with(source: &str, variables: &Map<String, Value>) -> Result<String, Error> {
    let messages = json!([{ "role": "user", "content": "Hello" }, { "role": "assistant", "content": "Hi" }]);
    ChatTemplate::compile(source, "test")?.render(&ChatInput {
        messages: &messages,
        tools: None,
        add_generation_prompt: false,
        special_tokens: &Map::new(),
        variables,
        now: WallClock::utc(1_735_689_599),
    })
}

#[test]
fn expressions_print_as_in_python() {
    let mut wrong = String::new();
    for row in rows(&golden("expressions.json")) {
        let source = row["source"].as_str().expect("a source");
        let found = match render(source) {
            Ok(text) => json!({ "text": text }),
            Err(Error::Refused { reason, .. }) => json!({ "refused": reason }),
            Err(_) => json!({ "fails": true }),
        };
        let mut expected = row.clone();
        expected.as_object_mut().map(|row| row.remove("source"));
        if found != expected && row.get("skip").is_none() {
            writeln!(wrong, "{source:?}\n  expected {expected}\n  found    {found}").expect("written");
            if let Err(error) = render(source) {
                writeln!(wrong, "  {error}").expect("written");
            }
        }
    }
    assert!(wrong.is_empty(), "expressions differ from Jinja2:\n{wrong}");
}

#[test]
fn the_clock_is_the_callers() {
    assert_eq!(render("{{ strftime_now('%d %b %Y') }}").expect("renders"), "31 Dec 2024");
    assert!(matches!(render("{{ strftime_now('%Q') }}"), Err(Error::Render { .. })));
}

#[test]
fn variables_reach_the_template_and_cannot_replace_the_messages() {
    let variables = json!({ "enable_thinking": false, "messages": [], "add_generation_prompt": true });
    let text = render_with(
        "{{ enable_thinking }} {{ messages | length }} {{ add_generation_prompt }}",
        variables.as_object().expect("an object"),
    );
    assert_eq!(text.expect("renders"), "False 2 False");
}

#[test]
fn a_template_that_loops_for_ever_is_stopped_and_named() {
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}{% endfor %}{% endfor %}",
    ] {
        let error = render(source).expect_err("must be stopped");
        assert_eq!(error, Error::TemplateRuns { template: "test".into(), limit: 10_000_000 });
        assert!(error.to_string().contains("\"test\""), "{error}");
    }
}

#[test]
fn a_template_that_writes_without_end_is_stopped() {
    let source = format!("{{% for a in range(99999) %}}{}{{% endfor %}}", "x".repeat(100_000));
    assert!(matches!(render(&source), Err(Error::TemplateOutput { .. })));
    let source = "{% set ns = namespace(l=['x' * 1000]) %}{% for a in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ ns.l | tojson }}";
    assert!(matches!(render(source), Err(Error::Render { .. })));
}

#[test]
fn a_template_that_calls_itself_is_stopped() {
    for source in [
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{% macro n() %}{% call m() %}{{ n() }}{% endcall %}{% endmacro %}{{ n() }}",
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{% include 'chat' %}",
        "{% extends 'chat' %}",
        "{% import 'chat' as c %}",
    ] {
        assert!(matches!(render(source), Err(Error::Render { .. })), "{source}");
    }
}

#[test]
fn no_other_template_can_be_read() {
    assert!(render("{% include '/etc/hostname' %}").is_err());
    assert!(render("{% from 'x.jinja' import y %}").is_err());
}

#[test]
fn a_broken_template_is_refused_with_its_line() {
    match render("line one\nline two\n{% if %}") {
        Err(Error::TemplateSyntax { template, line, .. }) => assert_eq!((template.as_str(), line), ("test", 3)),
        other => panic!("expected a syntax error, found {other:?}"),
    }
    match render("one\n{{ messages[0].content.nothing.at_all }}") {
        Err(Error::Render { line, .. }) => assert_eq!(line, Some(2)),
        other => panic!("expected a failure, found {other:?}"),
    }
    for source in
        ["{{ ", "{% for", "{% raw %}", "{#", "{% endif %}", "{{ 'a }}", "{% generation %}", "{% endgeneration %}"]
    {
        assert!(matches!(render(source), Err(Error::TemplateSyntax { .. })), "{source}");
    }
}

#[test]
fn deep_and_large_sources_are_refused() {
    for count in [3_900, 30_000] {
        for source in [
            format!("{{{{ {}1{} }}}}", "(".repeat(count / 2), ")".repeat(count / 2)),
            format!("{{{{ {}1{} }}}}", "[".repeat(count / 2), "]".repeat(count / 2)),
            format!("{{{{ {}1{} }}}}", "{1:".repeat(count / 4), "}".repeat(count / 4)),
            format!("{{{{ {}1 }}}}", "-".repeat(count)),
            format!("{{{{ {}true }}}}", "not ".repeat(count)),
            format!("{{{{ 1{} }}}}", "+1".repeat(count / 2)),
            format!("{{{{ 1{} }}}}", "**1".repeat(count / 3)),
            format!("{{{{ 1{} }}}}", "|string".repeat(count / 2)),
            format!("{{{{ a{} }}}}", ".a".repeat(count / 2)),
            format!("{{{{ a{} }}}}", "()".repeat(count / 2)),
            format!("{{{{ a{} }}}}", "[0]".repeat(count / 3)),
            format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(count / 4)),
            format!("{{{{ 1{} }}}}", " if 0".repeat(count / 2)),
            format!("{{{{ 1{} }}}}", " and 1".repeat(count / 2)),
            format!("{{{{ 1{} }}}}", " is not none".repeat(count / 3)),
            format!("{{{{ a{} }}}}", "(a".repeat(count / 2)),
            format!("{{% if 0 %}}{}{{% endif %}}", "{% elif 0 %}".repeat(count)),
            format!("{}{}", "{% if true %}".repeat(count), "{% endif %}".repeat(count)),
            format!("{}{}", "{% for a in [1] %}".repeat(count), "{% endfor %}".repeat(count)),
            format!("{}{}", "{% with a = 1 %}".repeat(count), "{% endwith %}".repeat(count)),
            format!("{}{}", "{% macro m() %}".repeat(count), "{% endmacro %}".repeat(count)),
            format!("{}{}", "{% set x %}".repeat(count), "{% endset %}".repeat(count)),
            format!("{}{}", "{% filter upper %}".repeat(count), "{% endfilter %}".repeat(count)),
        ] {
            // Some of the shorter ones are legal; none may bring the process down.
            let outcome = render(&source);
            assert!(count < 10_000 || outcome.is_err(), "{}", &source[..40]);
        }
    }
    assert!(matches!(ChatTemplate::compile(&"x".repeat((1 << 20) + 1), "big"), Err(Error::TooLarge { .. })));
}

#[test]
fn messages_reach_the_template_as_transformers_shapes_them() {
    let messages = json!([{ "role": "user", "content": null, "name": null }, { "role": "assistant", "reasoning": "why", "content": "x" }]);
    let input = ChatInput {
        messages: &messages,
        tools: None,
        add_generation_prompt: false,
        special_tokens: &Map::new(),
        variables: &Map::new(),
        now: WallClock::utc(0),
    };
    let text = ChatTemplate::compile("{{ messages }}", "test").and_then(|template| template.render(&input));
    let expect = "[{'role': 'user'}, {'thinking': 'why', 'role': 'assistant', 'reasoning': 'why', 'content': 'x', \
                  'reasoning_content': 'why'}]";
    assert_eq!(text.expect("renders"), expect);
}

#[test]
fn messages_that_are_none_are_refused() {
    let template = ChatTemplate::compile("{{ messages }}", "test").expect("compiles");
    for messages in [json!(null), json!("Hello"), json!({}), json!([]), json!([1]), json!([["role", "user"]])] {
        let input = ChatInput {
            messages: &messages,
            tools: None,
            add_generation_prompt: true,
            special_tokens: &Map::new(),
            variables: &Map::new(),
            now: WallClock::utc(0),
        };
        assert!(matches!(template.render(&input), Err(Error::Messages { .. })), "{messages}");
    }
}
