//! Every route over the mounted model: answers, streams, errors, refusals.

use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::world::{Answer, france, get, mounted, options, post, send, unmounted};

fn said(answer: &Answer) -> String {
    let json = answer.json();
    json["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn chat_answers_whole_and_in_events_alike() {
    let app = mounted(options()).await;
    let whole = post(&app, "/v1/chat/completions", france(json!({}))).await;
    assert_eq!(said(&whole), "The capital of France is Paris.");
    let json = whole.json();
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    let usage = &json["usage"];
    assert_eq!(
        usage["total_tokens"],
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
    assert!(json["system_fingerprint"].as_str().unwrap().contains("cpu/"), "{json}");
    assert!(whole.header("x-model-digest").starts_with("sha256:"));
    assert!(!whole.header("x-request-id").is_empty());

    let stream = json!({"stream": true, "stream_options": {"include_usage": true}});
    let events = post(&app, "/v1/chat/completions", france(stream)).await;
    assert_eq!(events.header("content-type"), "text/event-stream");
    assert!(events.text().ends_with("data: [DONE]\n\n"));
    assert_eq!(events.header("x-model-digest"), whole.header("x-model-digest"));
    let parts = events.parts();
    let text: String = parts.iter().filter_map(|part| part["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(text, said(&whole));
    assert_eq!(parts.last().unwrap()["usage"], *usage);
    let reasons: Vec<&Value> =
        parts.iter().map(|part| &part["choices"][0]["finish_reason"]).filter(|r| !r.is_null()).collect();
    assert_eq!(reasons, ["stop"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn ollama_answers_whole_and_in_lines_alike() {
    let app = mounted(options()).await;
    let whole = post(&app, "/api/chat", france(json!({"stream": false}))).await;
    assert_eq!(whole.json()["message"]["content"], "The capital of France is Paris.");
    let lines = post(&app, "/api/chat", france(json!({}))).await;
    assert_eq!(lines.header("content-type"), "application/x-ndjson");
    let parts = lines.parts();
    let text: String = parts.iter().filter_map(|part| part["message"]["content"].as_str()).collect();
    assert_eq!(text, "The capital of France is Paris.");
    let (last, before) = parts.split_last().unwrap();
    assert!(before.iter().all(|part| part["done"] == false) && last["done"] == true);
    assert_eq!((&last["done_reason"], &last["eval_count"]), (&json!("stop"), &whole.json()["eval_count"]));

    let prompt = json!({"model": "weights", "prompt": "What is the capital of France?", "stream": false});
    let generated = post(&app, "/api/generate", prompt).await.json();
    assert_eq!(generated["response"], "The capital of France is Paris.");
    let more = json!({"model": "weights", "prompt": "And of Italy?", "context": generated["context"], "stream": false});
    let more = post(&app, "/api/generate", more).await.json();
    assert!(more["prompt_eval_count"].as_u64() > generated["prompt_eval_count"].as_u64());
    assert!(more["context"].as_array().unwrap().starts_with(generated["context"].as_array().unwrap()));
    let bad = json!({"model": "weights", "prompt": "x", "context": [4_000_000]});
    assert_eq!(post(&app, "/api/generate", bad).await.status, StatusCode::BAD_REQUEST);
    let template = json!({"model": "weights", "prompt": "x", "template": "{% for"});
    let refused = post(&app, "/api/generate", template).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    assert!(refused.json()["error"].as_str().unwrap().starts_with("template"), "{}", refused.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_limit_seed_and_company_do_what_they_promise() {
    let app = mounted(options()).await;
    let stopped = post(&app, "/v1/chat/completions", france(json!({"stop": ["apital of Fr"]}))).await;
    assert_eq!(said(&stopped), "The c");
    let short = post(&app, "/v1/chat/completions", france(json!({"max_tokens": 2}))).await;
    assert_eq!(short.json()["choices"][0]["finish_reason"], "length");
    assert_eq!(short.json()["usage"]["completion_tokens"], 2);

    let hot = |seed: u64| france(json!({"temperature": 2, "seed": seed, "max_tokens": 20}));
    let mut alone = Vec::new();
    for seed in 0..8 {
        alone.push(said(&post(&app, "/v1/chat/completions", hot(seed)).await));
    }
    assert!(alone.iter().any(|text| *text != alone[0]), "seeds differ");
    let together = join_all((0..8).map(|seed| post(&app, "/v1/chat/completions", hot(seed)))).await;
    let together: Vec<String> = together.iter().map(said).collect();
    assert_eq!(together, alone, "eight at once say what each says alone");

    let several =
        post(&app, "/v1/chat/completions", france(json!({"temperature": 2, "seed": 0, "max_tokens": 20, "n": 3})))
            .await
            .json();
    let texts: Vec<&str> =
        several["choices"].as_array().unwrap().iter().map(|c| c["message"]["content"].as_str().unwrap()).collect();
    assert_eq!(texts, [&alone[0], &alone[1], &alone[2]]);
    let once = post(&app, "/v1/chat/completions", france(json!({}))).await.json();
    assert_eq!(several["usage"]["prompt_tokens"], once["usage"]["prompt_tokens"], "one prompt counts once");
}

#[tokio::test(flavor = "multi_thread")]
async fn completions_take_texts_and_tokens() {
    let app = mounted(options()).await;
    let body = |prompt: Value, more: Value| {
        let mut body = json!({"model": "weights", "prompt": prompt, "temperature": 0, "max_tokens": 4});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let text = post(&app, "/v1/completions", body(json!("What is"), json!({}))).await.json();
    let continued = text["choices"][0]["text"].as_str().unwrap().to_owned();
    let echoed = post(&app, "/v1/completions", body(json!("What is"), json!({"echo": true}))).await.json();
    assert_eq!(echoed["choices"][0]["text"], format!("What is{continued}"));
    let two = post(&app, "/v1/completions", body(json!(["What is", "The"]), json!({"stream": true}))).await;
    let first: String = two
        .parts()
        .iter()
        .filter(|p| p["choices"][0]["index"] == 0)
        .filter_map(|p| p["choices"][0]["text"].as_str())
        .collect();
    assert_eq!(first, continued);
    let tokens = post(&app, "/v1/completions", body(json!([1, 2, 3]), json!({}))).await;
    assert_eq!(tokens.json()["usage"]["prompt_tokens"], 3);
    let beyond = post(&app, "/v1/completions", body(json!([1, 99_999]), json!({}))).await;
    assert_eq!(beyond.status, StatusCode::BAD_REQUEST);
    assert!(beyond.text().contains("99999"), "{}", beyond.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_speak_the_dialect_of_their_route() {
    let app = mounted(options()).await;
    let unknown =
        post(&app, "/v1/chat/completions", json!({"model": "weigths", "messages": [{"role": "user", "content": "x"}]}))
            .await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND);
    let error = &unknown.json()["error"];
    assert_eq!((&error["code"], &error["param"]), (&json!("model_not_found"), &json!("model")));
    assert!(error["message"].as_str().unwrap().contains("did you mean weights"), "{error}");

    let bad = post(&app, "/v1/chat/completions", france(json!({"temperature": "hot"}))).await;
    assert_eq!((bad.status, &bad.json()["error"]["param"]), (StatusCode::BAD_REQUEST, &json!("temperature")));
    let long = post(
        &app,
        "/v1/chat/completions",
        json!({"model": "weights", "messages": [{"role": "user", "content": "x ".repeat(4000)}]}),
    )
    .await;
    assert_eq!(
        (long.status, &long.json()["error"]["code"]),
        (StatusCode::BAD_REQUEST, &json!("context_length_exceeded"))
    );
    assert!(long.text().contains("2048"));

    let ollama = post(&app, "/api/chat", json!({"model": "nope"})).await;
    assert_eq!(ollama.status, StatusCode::NOT_FOUND);
    assert!(ollama.json()["error"].is_string());
    let small = json!({"options": {"num_ctx": 8}});
    assert!(post(&app, "/api/chat", france(small)).await.text().contains("num_ctx"));
    for (path, body) in [("/api/chat", "{"), ("/api/generate", ""), ("/v1/completions", "[1")] {
        let request = Request::builder().method(Method::POST).uri(path).header("host", "localhost");
        let answer = send(&app, request.body(Body::from(body)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(get(&app, "/api/nothing").await.status, StatusCode::NOT_FOUND);
    assert!(get(&app, "/v1/nothing").await.json()["error"]["message"].is_string());
    let wrong_method = get(&app, "/api/chat").await;
    assert_eq!(wrong_method.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(wrong_method.header("allow"), "POST");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused() {
    let app = mounted(options()).await;
    let ask = |host: &str, origin: Option<&str>| {
        let mut request = Request::builder().method(Method::POST).uri("/api/chat").header("host", host);
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        request.body(Body::from(france(json!({"stream": false})).to_string())).unwrap()
    };
    assert_eq!(send(&app, ask("localhost:8081", Some("http://localhost:3000"))).await.status, StatusCode::OK);
    for (host, origin) in [("evil.com", None), ("localhost", Some("http://evil.com")), ("localhost", Some("null"))] {
        let refused = send(&app, ask(host, origin)).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{host} {origin:?}");
        assert!(refused.json()["error"].is_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused() {
    let app = unmounted(options());
    for path in ["/api/chat", "/v1/chat/completions"] {
        let request = Request::builder().method(Method::POST).uri(path).header("host", "localhost");
        let stream = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 1 << 20]));
        let answer = send(&app, request.body(Body::from_stream(stream)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.text());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_waits_for_the_models() {
    let app = unmounted(options());
    for path in ["/healthz", "/health", "/ready", "/api/health"] {
        let early = get(&app, path).await;
        assert_eq!(
            (early.status, &early.json()["status"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("starting")),
            "{path}"
        );
    }
    for path in ["/live", "/ping", "/", "/api/version"] {
        assert_eq!(get(&app, path).await.status, StatusCode::OK, "{path}");
    }
    let early = post(&app, "/v1/chat/completions", france(json!({}))).await;
    assert_eq!((early.status, early.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    app.mount(&[], &[(crate::world::pebble(), None)]).await.unwrap();
    let ready = get(&app, "/healthz").await;
    assert_eq!((ready.status, &ready.json()["model"]), (StatusCode::OK, &json!("weights")));
    let head = Request::builder().method(Method::HEAD).uri("/api/version").header("host", "localhost");
    let head = send(&app, head.body(Body::empty()).unwrap()).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn overload_is_503_with_a_time_to_come_back() {
    let mut few = options();
    (few.engine.max_sequences, few.engine.queue) = (1, 0);
    let app = mounted(few).await;
    let answers = join_all((0..12).map(|_| post(&app, "/v1/chat/completions", france(json!({}))))).await;
    let (good, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == StatusCode::OK);
    assert!(!good.is_empty() && !refused.is_empty(), "{} answered, {} refused", good.len(), refused.len());
    for answer in refused {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.header("retry-after"), "1");
        assert_eq!(answer.json()["error"]["code"], "overloaded");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn models_come_and_go_as_they_are_told() {
    let app = mounted(options()).await;
    let running = || async { get(&app, "/api/ps").await.json()["models"].as_array().unwrap().len() };
    assert_eq!(running().await, 1);
    post(&app, "/api/generate", json!({"model": "weights", "keep_alive": 0})).await;
    assert_eq!(running().await, 0, "also a model that was named at the start goes when it is told to");
    let loaded = post(&app, "/api/generate", json!({"model": "weights"})).await.json();
    assert_eq!((&loaded["done"], &loaded["done_reason"]), (&json!(true), &json!("load")));
    assert_eq!(running().await, 1);
    let unloaded = post(&app, "/api/generate", json!({"model": "weights", "keep_alive": 0})).await.json();
    assert_eq!((&unloaded["done_reason"], running().await), (&json!("unload"), 0));
    assert_eq!(
        post(&app, "/api/generate", json!({"model": "nope", "keep_alive": 0})).await.status,
        StatusCode::NOT_FOUND
    );

    let reaper = tokio::spawn(app.clone().reap());
    let answer = post(&app, "/api/chat", france(json!({"keep_alive": 0, "stream": false}))).await;
    assert_eq!(answer.json()["done"], true);
    tokio::time::timeout(std::time::Duration::from_secs(10), async {
        while running().await > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a model that is told to go at once goes");
    reaper.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_listed_and_shown() {
    let app = mounted(options()).await;
    let tags = get(&app, "/api/tags").await.json();
    let digest = tags["models"][0]["digest"].as_str().unwrap().to_owned();
    assert_eq!((tags["models"][0]["name"].as_str(), digest.len()), (Some("weights"), 64));
    let shown = post(&app, "/api/show", json!({"model": "weights:latest"})).await.json();
    assert_eq!(shown["details"]["family"], "qwen3");
    assert_eq!(shown["model_info"]["qwen3.context_length"], 2048);
    assert!(shown["template"].as_str().unwrap().contains("<|im_start|>"));
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
    for name in [
        "weights".to_owned(),
        format!("weights@sha256:{digest}"),
        format!("weights@sha256:{}", &digest[..12]),
        format!("sha256:{}", &digest[..8]),
    ] {
        let model = get(&app, &format!("/v1/models/{name}")).await;
        assert_eq!((model.status, model.json()["id"].as_str()), (StatusCode::OK, Some(name.as_str())));
    }
    for name in ["weights@sha256:000000", "weights@sha256:12", "weights@x", "Weights!", "@", "", "%ff"] {
        assert_eq!(get(&app, &format!("/v1/models/{name}")).await.status, StatusCode::NOT_FOUND, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bias_keeps_a_token_out() {
    let app = mounted(options()).await;
    let context = json!({"model": "weights", "prompt": "What is the capital of France?", "stream": false});
    let context = post(&app, "/api/generate", context).await.json()["context"].clone();
    // The prompt has 31 tokens; the one after them begins the answer.
    let first = &context.as_array().unwrap()[31];
    let biased = post(&app, "/v1/chat/completions", france(json!({"logit_bias": {first.to_string(): -100}}))).await;
    assert_eq!(biased.status, StatusCode::OK, "{}", biased.text());
    assert!(!said(&biased).starts_with("The"), "{}", said(&biased));
}
