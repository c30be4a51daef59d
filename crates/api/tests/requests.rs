//! Requests as clients send them: what is read, and how what is wrong is named.

use mlxctl_api::{Checked, Invalid, KeepAlive, Strings, ollama, openai, read_request};

const CHAT: &str = r#""model":"m","messages":[{"role":"user","content":"hi"}]"#;

fn refused<T: Checked + std::fmt::Debug>(body: &str) -> Invalid {
    read_request::<T>(body.as_bytes()).expect_err(body)
}

#[test]
fn a_bad_field_of_openai_is_named() {
    let check = |fields: &str, name: &str| {
        let error = refused::<openai::ChatRequest>(&format!("{{{CHAT},{fields}}}"));
        assert_eq!(error.name(), Some(name), "{fields}: {error}");
        assert!(error.to_string().starts_with(name), "{error}");
    };
    check(r#""temperature":"hot""#, "temperature");
    check(r#""temperature":2.1"#, "temperature");
    check(r#""temperature":-0.1"#, "temperature");
    check(r#""top_p":1.5"#, "top_p");
    check(r#""max_tokens":0"#, "max_tokens");
    check(r#""max_tokens":-1"#, "max_tokens");
    check(r#""max_tokens":1.5"#, "max_tokens");
    check(r#""max_completion_tokens":"x""#, "max_completion_tokens");
    check(r#""stream":"yes""#, "stream");
    check(r#""stream_options":{"include_usage":1}"#, "stream_options.include_usage");
    check(r#""stop":["a","b","c","d","e"]"#, "stop");
    check(r#""stop":"""#, "stop");
    check(r#""stop":[1]"#, "stop[0]");
    check(r#""stop":1"#, "stop");
    check(r#""n":0"#, "n");
    check(r#""n":17"#, "n");
    check(r#""seed":"x""#, "seed");
    check(r#""logprobs":true"#, "logprobs");
    check(r#""top_logprobs":3"#, "top_logprobs");
    check(r#""logit_bias":{"5":101}"#, "logit_bias");
    check(r#""logit_bias":{"x":1}"#, "logit_bias");
    check(r#""response_format":{"type":"json_object"}"#, "response_format");
    check(r#""tools":[1]"#, "tools[0]");
    check(r#""tools":{}"#, "tools");
    check(r#""tools":[{"type":"function"}]"#, "tools[0].function");
    check(r#""tools":[{"type":"function","function":{"name":1}}]"#, "tools[0].function.name");
    check(r#""tool_choice":"required""#, "tool_choice");
    check(r#""presence_penalty":3"#, "presence_penalty");
    check(r#""min_p":2"#, "min_p");
    check(r#""repetition_penalty":0"#, "repetition_penalty");
    check(r#""modalities":["audio"]"#, "modalities");
}

#[test]
fn a_bad_message_is_named() {
    let check = |messages: &str, name: &str| {
        let error = refused::<openai::ChatRequest>(&format!(r#"{{"model":"m","messages":{messages}}}"#));
        assert_eq!(error.name(), Some(name), "{messages}: {error}");
    };
    check("[]", "messages");
    check("\"hi\"", "messages");
    check("[1]", "messages[0]");
    check(r#"[{"content":"x"}]"#, "messages[0].role");
    check(r#"[{"role":"king","content":"x"}]"#, "messages[0].role");
    check(r#"[{"role":1,"content":"x"}]"#, "messages[0].role");
    check(r#"[{"role":"user","content":"x"},{"role":"user"}]"#, "messages[1].content");
    check(r#"[{"role":"user","content":5}]"#, "messages[0].content");
    check(r#"[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]"#, "messages[0].content[0].type");
    check(r#"[{"role":"user","content":[{"type":"text"}]}]"#, "messages[0].content[0].text");
    check(r#"[{"role":"user","content":["x"]}]"#, "messages[0].content[0]");
    check(r#"[{"role":"assistant","tool_calls":[{"id":"1"}]}]"#, "messages[0].tool_calls[0].function");
    check(r#"[{"role":"user","content":"x","images":["aGk="]}]"#, "messages[0].images");
}

#[test]
fn what_is_missing_is_named_and_what_is_no_json_is_said_to_be_none() {
    assert_eq!(refused::<openai::ChatRequest>(r#"{"messages":[]}"#).to_string(), "model: is required");
    assert_eq!(refused::<openai::ChatRequest>(r#"{"model":"m"}"#).to_string(), "messages: is required");
    assert_eq!(
        refused::<openai::ChatRequest>(r#"{"model":3}"#).to_string(),
        "model: expected a string, found integer `3`"
    );
    for body in [
        "",
        "{",
        "nonsense",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\"}]} {}",
        "[]",
        "null",
        "\u{0}",
    ] {
        assert!(matches!(refused::<openai::ChatRequest>(body), Invalid::Json { .. }), "{body}");
    }
    let (open, close) = ("[".repeat(5000), "]".repeat(5000));
    let deep = format!(r#"{{"model":"m","messages":[{{"role":"user","content":"x","x":{open}{close}}}]}}"#);
    assert!(matches!(refused::<openai::ChatRequest>(&deep), Invalid::Json { .. }));
}

#[test]
fn openai_is_lenient_where_the_original_is() {
    let body = format!(
        r#"{{{CHAT},"stop":"x","user":"me","metadata":{{}},"temperature":null,"logprobs":false,"top_logprobs":null,
            "response_format":{{"type":"text"}},"tools":null,"store":true,"max_completion_tokens":7,"max_tokens":9}}"#
    );
    let request: openai::ChatRequest = read_request(body.as_bytes()).unwrap();
    assert_eq!(request.stop, Some(Strings(vec!["x".to_owned()])));
    assert_eq!((request.most_tokens(), request.temperature), (Some(7), None));
    let silent = r#"{"model":"m","messages":[{"role":"user","content":"x"},
        {"role":"assistant","content":null,"tool_calls":[{"id":"1","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"4","tool_call_id":"1"}]}"#;
    read_request::<openai::ChatRequest>(silent.as_bytes()).unwrap();
}

#[test]
fn a_bad_field_of_a_completion_is_named() {
    let check = |fields: &str, name: &str| {
        let error = refused::<openai::CompletionRequest>(&format!(r#"{{"model":"m",{fields}}}"#));
        assert_eq!(error.name(), Some(name), "{fields}: {error}");
    };
    check(r#""prompt":5"#, "prompt");
    check(r#""prompt":[]"#, "prompt");
    check(r#""prompt":[[]]"#, "prompt");
    check(r#""prompt":["a","b","c"],"n":6"#, "prompt");
    check(r#""prompt":"a","logprobs":0"#, "logprobs");
    check(r#""prompt":"a","suffix":"b""#, "suffix");
    check(r#""prompt":"a","best_of":2"#, "best_of");
}

#[test]
fn a_bad_field_of_ollama_is_named_and_unknown_options_are_not() {
    let check = |fields: &str, name: &str| {
        let error = refused::<ollama::GenerateRequest>(&format!(r#"{{"model":"m",{fields}}}"#));
        assert_eq!(error.name(), Some(name), "{fields}: {error}");
    };
    check(r#""options":{"temperature":"x"}"#, "options.temperature");
    check(r#""options":{"temperature":-1}"#, "options.temperature");
    check(r#""options":{"num_predict":1.5}"#, "options.num_predict");
    check(r#""options":{"seed":"x"}"#, "options.seed");
    check(r#""options":{"stop":5}"#, "options.stop");
    check(r#""options":5"#, "options");
    check(r#""keep_alive":"soon""#, "keep_alive");
    check(r#""keep_alive":[]"#, "keep_alive");
    check(r#""format":"json""#, "format");
    check(r#""images":["aGk="]"#, "images");
    check(r#""context":[-1]"#, "context[0]");
    check(r#""prompt":5"#, "prompt");
    let body = r#"{"model":"m","prompt":"x","keep_alive":0,"format":"","images":[],
        "options":{"num_gpu":99,"seed":42.0,"num_predict":-1,"stop":["a"],"top_k":null}}"#;
    let request: ollama::GenerateRequest = read_request(body.as_bytes()).unwrap();
    let options = request.options.unwrap();
    assert_eq!((options.seed, options.num_predict, options.top_k), (Some(42), Some(-1), None));
    assert_eq!(request.keep_alive, Some(KeepAlive::For(std::time::Duration::ZERO)));
    assert_eq!(read_request::<ollama::ShowRequest>(br#"{"name":"m"}"#).unwrap().wanted(), "m");
    assert_eq!(refused::<ollama::ShowRequest>("{}").name(), Some("model"));
}
