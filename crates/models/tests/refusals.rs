//! Configurations and weights that are refused, and the words that name the place.

#![allow(clippy::unwrap_used)]

mod harness;

use harness::{backend, blocks, family_cases};
use mlxctl_backend::{Backend, Batch, BlockId};
use mlxctl_models::load;
use mlxctl_testkit::models::{TinyModel, file};
use mlxctl_weights::{Checkpoint, Dtype, Tensor};
use serde_json::{Value, json};

/// The error of loading `config` with `model`'s weights.
fn refusal(config: &[u8], checkpoint: &Checkpoint) -> String {
    match load(&backend(1), config, checkpoint) {
        Ok(_) => panic!("accepted: {}", String::from_utf8_lossy(config)),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_bad_value_is_refused_by_its_key() {
    let llama = {
        let mut model = TinyModel::qwen3();
        model.config["model_type"] = json!("llama");
        model
    };
    let checkpoint = llama.checkpoint();
    let table: &[(&str, Value, &str)] = &[
        ("hidden_size", json!(-64), "a whole number from 1 to 1048576, found -64"),
        ("hidden_size", json!(64.5), "found 64.5"),
        ("hidden_size", json!("64"), "found \"64\""),
        ("hidden_size", json!(0), "found 0"),
        ("hidden_size", json!(1_u64 << 31), "found 2147483648"),
        ("hidden_size", Value::Null, "found null"),
        ("num_hidden_layers", json!(0), "found 0"),
        ("num_hidden_layers", json!(1_000_000_000), "found 1000000000"),
        ("num_attention_heads", json!(0), "found 0"),
        ("num_key_value_heads", json!(0), "found 0"),
        ("num_key_value_heads", json!(3), "a divisor of num_attention_heads, 4, found 3"),
        ("head_dim", json!(15), "an even number"),
        ("head_dim", json!(0), "found 0"),
        ("vocab_size", json!(u64::MAX), "found 18446744073709551615"),
        ("intermediate_size", json!([96]), "found [96]"),
        ("max_position_embeddings", json!(-1), "found -1"),
        ("rms_norm_eps", json!(-1e-6), "a number from 0 to 1, found -1e-6"),
        ("rms_norm_eps", json!("NaN"), "found \"NaN\""),
        ("rope_theta", json!(0), "found 0"),
        ("rope_theta", json!(1e300), "found 1e+300"),
        ("tie_word_embeddings", json!("yes"), "true or false, found \"yes\""),
        ("attention_bias", json!(1), "true or false, found 1"),
        ("hidden_act", json!("relu"), "silu, gelu or gelu_pytorch_tanh"),
        ("rope_scaling", json!("llama3"), "an object"),
        (
            "rope_scaling",
            json!({"type": "ntk"}),
            "rope_scaling.type`: expected default, linear, dynamic, llama3, yarn or",
        ),
        ("rope_scaling", json!({"type": "longrope"}), "rope_scaling.long_factor`: expected a list of 8 numbers"),
        ("rope_scaling", json!({"type": "longrope", "long_factor": [1, 2]}), "rope_scaling.long_factor"),
        ("rope_scaling", json!({"type": "yarn", "factor": 4, "beta_fast": -1}), "rope_scaling.beta_fast"),
        ("rope_scaling", json!({"type": "yarn", "factor": 4, "mscale": 1e9}), "rope_scaling.mscale"),
        ("rope_scaling", json!({"rope_type": "linear"}), "rope_scaling.factor"),
        ("rope_scaling", json!({"rope_type": "linear", "factor": 0}), "rope_scaling.factor"),
        (
            "rope_scaling",
            json!({"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4}),
            "rope_scaling.high_freq_factor",
        ),
        ("partial_rotary_factor", json!(0.5), "whole heads"),
        ("layer_types", json!(["full_attention"]), "a list of 2 strings"),
        ("layer_types", json!(["full_attention", "linear_attention"]), "full_attention and sliding_attention"),
        ("model_type", json!("gpt2"), "\"gpt2\" is not a family this runtime knows; it knows cohere, cohere2, gemma,"),
        ("model_type", json!(7), "a string, found 7"),
        ("quantization", json!({"bits": 7, "group_size": 64}), "quantization"),
    ];
    for (key, value, words) in table {
        let mut config = llama.config.clone();
        config[*key] = value.clone();
        let message = refusal(config.to_string().as_bytes(), &checkpoint);
        assert!(message.contains(words) && message.contains(key), "{key} {value}: {message}");
    }
    let mut config = llama.config.clone();
    config["layer_types"] = json!(["full_attention", "sliding_attention"]);
    let message = refusal(config.to_string().as_bytes(), &checkpoint);
    assert!(message.contains("`sliding_window`: expected a whole number"), "{message}");
    let mut config = llama.config.clone();
    config.as_object_mut().unwrap().remove("head_dim");
    config["num_attention_heads"] = json!(6);
    let message = refusal(config.to_string().as_bytes(), &checkpoint);
    assert!(message.contains("head_dim") && message.contains("does not divide"), "{message}");
}

/// Values that no field of a model has, and some that are almost right.
fn absurd_values() -> Vec<Value> {
    let mut deep = json!([]);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    vec![
        Value::Null,
        json!(-1),
        json!(0),
        json!(1),
        json!(3),
        json!(1_u64 << 31),
        json!(u64::MAX),
        json!(1e-300),
        json!(1e300),
        json!(-0.5),
        json!(""),
        json!("NaN"),
        json!(true),
        json!([1e300, -1]),
        json!([0, 1]),
        json!({"type": "yarn", "factor": 1e6, "original_max_position_embeddings": 1}),
        json!({"type": "longrope", "long_factor": 1e-6, "original_max_position_embeddings": 1}),
        json!({"full_attention": {"rope_theta": -1}}),
        deep,
    ]
}

#[test]
fn no_value_of_any_field_of_any_family_panics() {
    let backend = backend(1);
    for (_, cases) in family_cases() {
        let model = TinyModel::golden(&cases[0]);
        let checkpoint = model.checkpoint();
        let fields = model.config.as_object().unwrap().keys().cloned();
        let fields = fields.chain(["rope_scaling", "rope_parameters", "layer_types", "head_dim"].map(str::to_owned));
        for (field, value) in
            fields.flat_map(|field| absurd_values().into_iter().map(move |value| (field.clone(), value)))
        {
            let mut config = model.config.clone();
            config[&field] = value;
            // What loads must also run, or say why not.
            let Ok(loaded) = load(&backend, config.to_string().as_bytes(), &checkpoint) else { continue };
            let mut kv = backend.kv_pool(&loaded.kv_layout(), 6).unwrap();
            let mut batch = Batch::default();
            batch.push(&[1, 2, 3], 0, &blocks(0), true);
            let logits = loaded.forward(&backend, &batch, &mut kv);
            assert!(logits.is_ok(), "{field}: {config}");
        }
    }
}

#[test]
fn families_refuse_what_they_cannot_honour_by_its_key() {
    let table: &[(&str, &str, Value, &str)] = &[
        ("mixtral", "num_local_experts", json!(0), "a whole number from 1 to"),
        ("mixtral", "num_experts_per_tok", json!(5), "a whole number from 1 to 4, found 5"),
        ("qwen2_moe", "mlp_only_layers", json!([0, -1]), "a list of at most 2 whole numbers"),
        ("qwen2_moe", "decoder_sparse_step", json!(0), "a whole number from 1"),
        ("phi3", "partial_rotary_factor", json!(0.01), "an even number, not 0"),
        ("phi3", "partial_rotary_factor", json!(1.5), "a number from 0 to 1"),
        ("phi3", "rope_scaling", json!({"type": "longrope", "long_factor": [1, 2, 3]}), "a list of 6 numbers"),
        ("gemma2", "attn_logit_softcapping", json!(0), "a number from 0.001"),
        ("gemma2", "query_pre_attn_scalar", json!(-24), "found -24"),
        ("gemma3", "sliding_window_pattern", json!(0), "found 0"),
        ("smollm3", "no_rope_layers", json!([1, 0, 1]), "one a layer"),
        ("smollm3", "no_rope_layers", json!([1, 2]), "from 0 to 1"),
        ("granite", "logits_scaling", json!(0), "found 0"),
        ("starcoder2", "hidden_act", json!("relu"), "found \"relu\""),
        ("cohere", "use_qk_norm", json!(true), "norms with weights for each head"),
        ("cohere2", "sliding_window", Value::Null, "found null"),
    ];
    let cases = family_cases();
    for (file, key, value, words) in table {
        let (_, cases) = cases.iter().find(|(name, _)| name == file).unwrap();
        let model = TinyModel::golden(&cases[0]);
        let mut config = model.config.clone();
        config[*key] = value.clone();
        let message = refusal(config.to_string().as_bytes(), &model.checkpoint());
        assert!(message.contains(words) && message.contains(key), "{file}, {key} {value}: {message}");
    }
}

#[test]
fn what_is_no_object_is_no_configuration() {
    let checkpoint = TinyModel::qwen3().checkpoint();
    for (config, words) in [
        (&b"{\"a\": NaN}"[..], "column 7"),
        (b"[]", "expected an object, found []"),
        (b"", "EOF"),
        (b"\xff", "config.json"),
        (b"{}", "`model_type`: expected a string, found nothing"),
        (&b"[".repeat(100_000), "recursion"),
        (&b" ".repeat(5 << 20), "at most 4194304 bytes"),
    ] {
        let message = refusal(config, &checkpoint);
        assert!(message.contains(words), "{message}");
    }
}

/// A tiny model with one tensor changed, dropped or added.
fn altered(alter: impl FnOnce(&mut Vec<(String, Tensor)>)) -> Checkpoint {
    let mut tensors = TinyModel::qwen3().tensors();
    alter(&mut tensors);
    Checkpoint::from_files(vec![("model.safetensors".to_owned(), file(&tensors))]).unwrap()
}

fn tensor<'a>(tensors: &'a mut [(String, Tensor)], name: &str) -> &'a mut Tensor {
    &mut tensors.iter_mut().find(|(other, _)| other == name).unwrap().1
}

#[test]
fn weights_that_do_not_fit_are_refused_by_name() {
    let config = TinyModel::qwen3().config_json();
    let name = "model.layers.1.self_attn.k_proj.weight";
    let message = refusal(&config, &altered(|tensors| tensors.retain(|(other, _)| other != name)));
    assert!(message.contains(name), "{message}");
    let message = refusal(&config, &altered(|tensors| tensor(tensors, name).shape = vec![64, 32]));
    assert!(message.contains(name) && message.contains("[32, 64]") && message.contains("[64, 32]"), "{message}");
    let message = refusal(&config, &altered(|tensors| tensor(tensors, name).dtype = Dtype::I16));
    assert!(message.contains(name) && message.contains("I16"), "{message}");
    let extra = altered(|tensors| {
        let copy = tensor(tensors, name).clone();
        tensors.push(("model.layers.2.self_attn.k_proj.weight".to_owned(), copy));
    });
    let message = refusal(&config, &extra);
    assert!(message.contains("1 tensors") && message.contains("model.layers.2.self_attn.k_proj.weight"), "{message}");
    let message = refusal(&config, &Checkpoint::default());
    assert!(message.contains("model.embed_tokens.weight"), "{message}");
}

#[test]
fn leftovers_of_exporters_are_passed_over() {
    let checkpoint = altered(|tensors| {
        let copy = tensor(tensors, "model.embed_tokens.weight").clone();
        tensors.push(("lm_head.weight".to_owned(), copy.clone()));
        tensors.push(("model.layers.0.self_attn.rotary_emb.inv_freq".to_owned(), copy));
    });
    assert!(load(&backend(1), &TinyModel::qwen3().config_json(), &checkpoint).is_ok());
}

#[test]
fn what_sees_images_is_left_alone_where_the_model_has_it() {
    let cases = family_cases();
    let (_, wrapped) = cases.iter().find(|(name, _)| name == "wrapped").unwrap();
    let model = TinyModel::golden(&wrapped[0]);
    let mut tensors = model.tensors();
    let copy = tensors[0].1.clone();
    tensors.push(("vision_tower.blocks.0.weight".to_owned(), copy.clone()));
    let checkpoint = Checkpoint::from_files(vec![("model.safetensors".to_owned(), file(&tensors))]).unwrap();
    assert!(load(&backend(1), &model.config_json(), &checkpoint).is_ok());
    let mut config = model.config.clone();
    config["text_config"]["hidden_size"] = json!(-1);
    let message = refusal(config.to_string().as_bytes(), &checkpoint);
    assert!(message.contains("`text_config.hidden_size`"), "{message}");
    config["text_config"] = json!(3);
    let message = refusal(config.to_string().as_bytes(), &checkpoint);
    assert!(message.contains("`text_config`: expected an object, found 3"), "{message}");
    let plain = altered(|tensors| tensors.push(("vision_tower.blocks.0.weight".to_owned(), copy)));
    let message = refusal(&TinyModel::qwen3().config_json(), &plain);
    assert!(message.contains("vision_tower.blocks.0.weight"), "{message}");
}

#[test]
fn whether_the_head_is_tied_is_seen_from_the_weights_where_the_configuration_is_silent() {
    for tied in [true, false] {
        let mut model = TinyModel::qwen3();
        model.config["tie_word_embeddings"] = json!(tied);
        let checkpoint = model.checkpoint();
        model.config.as_object_mut().unwrap().remove("tie_word_embeddings");
        let loaded = load(&backend(1), &model.config_json(), &checkpoint).unwrap();
        assert_eq!(loaded.details().tied, tied);
    }
}

#[test]
fn details_tell_what_was_loaded() {
    let mut model = TinyModel::qwen3();
    model.config["quantization"] = json!({"group_size": 32, "bits": 4});
    let checkpoint = model.checkpoint();
    let details = load(&backend(1), &model.config_json(), &checkpoint).unwrap().details();
    // 48·64 tokens; a layer: 64·(64 + 32 + 32 + 64) attention, 3·64·96 MLP, 2·64 + 2·16 norms; 64 for the last norm.
    assert_eq!(details.parameters, 48 * 64 + 2 * (64 * 192 + 3 * 64 * 96 + 160) + 64);
    assert_eq!(details.weight_bytes, checkpoint.total_bytes());
    assert_eq!((details.family, details.weight_type.as_str()), ("qwen3", "4-bit affine, groups of 32"));
    assert_eq!((details.layers, details.context, details.tied), (2, 512, true));
}

#[test]
fn steps_that_cannot_be_computed_are_errors() {
    let model = TinyModel::qwen3();
    let backend = backend(2);
    let loaded = load(&backend, &model.config_json(), &model.checkpoint()).unwrap();
    let mut kv = backend.kv_pool(&loaded.kv_layout(), 6).unwrap();
    let whole = || {
        let mut batch = Batch::default();
        batch.push(&[1, 2, 3], 0, &blocks(0), true);
        batch
    };
    let mut check = |words: &str, alter: &dyn Fn(&mut Batch)| {
        let mut batch = whole();
        alter(&mut batch);
        let message = loaded.forward(&backend, &batch, &mut kv).err().unwrap().to_string();
        assert!(message.contains(words), "{message}");
    };
    check("token 48 is not in the vocabulary of 48", &|batch| batch.tokens[1] = 48);
    check("logits are wanted of row 3 of 3", &|batch| batch.logits = vec![3]);
    check("ascending", &|batch| batch.logits = vec![1, 1]);
    check("the spans cover 3 rows of 4", &|batch| batch.tokens.push(0));
    check("starts at row 1", &|batch| batch.spans[0].start = 1);
    check("names block 6", &|batch| batch.spans[0].blocks[0] = BlockId(6));
    check("room for 192", &|batch| batch.spans[0].position = 190);
    check("room for", &|batch| batch.spans[0].position = usize::MAX);
    check("room for 0", &|batch| batch.spans[0].blocks.clear());
    assert!(loaded.forward(&backend, &whole(), &mut kv).is_ok());
}
