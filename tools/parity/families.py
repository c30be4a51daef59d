"""Random tiny models of every family beside the first two, their logits by mlx-lm, one golden file a family.

`reference.py` writes them to crates/models/tests/golden/families/. The names and shapes of the tensors are those of
mlx-lm's own modules, so that no list of them is kept by hand; a case marked `hub` has its experts taken apart, as
files of the hub hold them.
"""

import json
import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes

import tiny

ROWS = [0, 9, 26, 40]
TOKENS = 41

BASE = {
    "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "num_attention_heads": 4,
    "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 32, "max_position_embeddings": 128,
    "rope_theta": 10000.0, "tie_word_embeddings": False,
}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
BITS = {"quantization": {"group_size": 32, "bits": 4}}
LONG = [1.0, 1.25, 2.0, 3.5, 4.0, 6.0, 8.0, 9.0]


def wrapped(model_type, text_type, *changes, without=()):
    """A model of text and images: the configuration of its text stands under `text_config`."""
    text, dtype, hub = case(text_type, *changes)
    return {"model_type": model_type, "text_config": {k: v for k, v in text.items() if k not in without},
            "vocab_size": text["vocab_size"]}, dtype, hub


def case(model_type, *changes, dtype="float32", hub=False):
    config = {"model_type": model_type} | BASE
    for change in changes:
        config |= change
    return config, dtype, hub


QWEN3_MOE = {"head_dim": 16, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
             "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
QWEN2_MOE = {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
             "shared_expert_intermediate_size": 64}
MIXTRAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
GEMMA = {"head_dim": 16, "tie_word_embeddings": True, "num_hidden_layers": 2}
GEMMA3 = GEMMA | {"num_hidden_layers": 3, "sliding_window": 7, "sliding_window_pattern": 3,
                  "query_pre_attn_scalar": 24, "rope_theta": 1000000.0, "rope_local_base_freq": 5000.0}
OLMO3 = {"num_hidden_layers": 4, "sliding_window": 9, "rope_scaling": YARN}
GRANITE = {"attention_multiplier": 0.2, "embedding_multiplier": 6.0, "residual_multiplier": 0.3,
           "logits_scaling": 4.0, "attention_bias": False, "mlp_bias": False}
COHERE2 = {"head_dim": 8, "num_hidden_layers": 4, "layer_norm_eps": 1e-5, "logit_scale": 0.25, "sliding_window": 6,
           "sliding_window_pattern": 4, "tie_word_embeddings": True}
GLM4 = {"head_dim": 16, "attention_bias": True, "partial_rotary_factor": 0.5}

# file: {name: (config, type of the weights, experts taken apart)}
FAMILIES = {
    "llama": {
        "yarn": case("llama", {"rope_scaling": YARN | {"beta_fast": 4, "beta_slow": 1}}),
        "yarn-mscale": case("llama", {"rope_scaling": YARN | {"mscale": 1.5, "mscale_all_dim": 0.5}}),
        "longrope": case("llama", {"head_dim": 16, "rope_scaling": {
            "rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 32, "short_factor": LONG,
            "long_factor": LONG}}),
        "dynamic": case("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}),
    },
    "qwen2": {
        "qwen2": case("qwen2"),
        "qwen2-4-bit-tied": case("qwen2", {"tie_word_embeddings": True}, BITS, dtype="bfloat16"),
    },
    "qwen2_moe": {
        "qwen2-moe": case("qwen2_moe", QWEN2_MOE),
        "qwen2-moe-hub": case("qwen2_moe", QWEN2_MOE, dtype="bfloat16", hub=True),
    },
    "qwen3_moe": {
        "qwen3-moe": case("qwen3_moe", QWEN3_MOE),
        "qwen3-moe-dense-layer": case("qwen3_moe", QWEN3_MOE, {"mlp_only_layers": [0], "norm_topk_prob": False}, hub=True),
        "qwen3-moe-single": case("qwen3_moe", QWEN3_MOE, {"num_experts": 1, "num_experts_per_tok": 1}),
        "qwen3-moe-one-of-six-4-bit": case("qwen3_moe", QWEN3_MOE, {"num_experts_per_tok": 1}, BITS),
    },
    "mixtral": {
        "mixtral": case("mixtral", MIXTRAL),
        "mixtral-hub-window": case("mixtral", MIXTRAL, {"sliding_window": 12}, dtype="float16", hub=True),
    },
    "gemma": {"gemma": case("gemma", GEMMA, {"hidden_act": "gelu"})},
    "gemma2": {
        "gemma2": case("gemma2", GEMMA, {"query_pre_attn_scalar": 24, "attn_logit_softcapping": 2.0,
                                         "final_logit_softcapping": 5.0, "sliding_window": 7}),
    },
    "gemma3": {
        "gemma3": case("gemma3_text", GEMMA3),
        "gemma3-linear-rope-bf16": case(
            "gemma3_text", GEMMA3, {"hidden_size": 40, "rope_scaling": {"rope_type": "linear", "factor": 8.0}},
            dtype="bfloat16"),
    },
    "wrapped": {
        "gemma3-defaults": wrapped("gemma3", "gemma3_text", GEMMA3, without=(
            "vocab_size", "num_attention_heads", "num_key_value_heads", "tie_word_embeddings")),
        "mistral3": wrapped("mistral3", "mistral"),
    },
    "phi3": {
        "phi3-longrope-partial": case("phi3", {
            "hidden_size": 64, "partial_rotary_factor": 0.75, "original_max_position_embeddings": 32,
            "rope_scaling": {"type": "longrope", "short_factor": LONG[:6], "long_factor": LONG[:6]}}),
        "phi3-tied-4-bit-window": case("phi3", {"tie_word_embeddings": True, "sliding_window": 9}, BITS),
    },
    "smollm3": {
        "smollm3": case("smollm3", {"num_hidden_layers": 4}),
        "smollm3-listed": case("smollm3", {"no_rope_layers": [0, 1], "tie_word_embeddings": True}),
    },
    "olmo2": {"olmo2": case("olmo2"), "olmo2-bias": case("olmo2", {"attention_bias": True, "head_dim": 12})},
    "olmo3": {"olmo3": case("olmo3", OLMO3)},
    "granite": {
        "granite": case("granite", GRANITE),
        "granite-tied-biases": case("granite", GRANITE, {"attention_bias": True, "mlp_bias": True,
                                                         "tie_word_embeddings": True}),
    },
    "starcoder2": {
        "starcoder2-window": case("starcoder2", {"norm_epsilon": 1e-5, "sliding_window": 11, "hidden_act": "gelu", "tie_word_embeddings": True}),
    },
    "cohere2": {
        "cohere2": case("cohere2", COHERE2),
        "cohere2-biases": case("cohere2", COHERE2, {"attention_bias": True, "layer_norm_bias": True}),
    },
    "cohere": {"cohere": case("cohere", {"layer_norm_eps": 1e-5, "logit_scale": 0.25, "tie_word_embeddings": True})},
    "glm4": {"glm4": case("glm4", GLM4), "glm4-no-bias": case("glm4", GLM4, {"attention_bias": False})},
}


class Windowed(nn.Module):
    """A layer that sees `window` tokens, whatever mask its model hands it."""

    def __init__(self, layer, window):
        super().__init__()
        self.layer, self.window = layer, window

    def __call__(self, x, mask=None, cache=None):
        distance = mx.arange(x.shape[1])[:, None] - mx.arange(x.shape[1])[None]
        return self.layer(x, (distance >= 0) & (distance < self.window), cache)


def with_windows(model, config):
    """The model with the windows that its architecture has and mlx-lm leaves out, as it only matters behind them."""
    window = config.get("sliding_window")
    sliding = {"mixtral": lambda _: True, "phi3": lambda _: True, "starcoder2": lambda _: True,
               "gemma2": lambda index: index % 2 == 0}.get(config["model_type"])
    if window and sliding:
        model.model.layers = [Windowed(layer, window) if sliding(index) else layer
                              for index, layer in enumerate(model.model.layers)]
    return model


def shapes(config, hub):
    """Names and shapes of mlx-lm's parameters, with the experts taken apart where `hub` is set."""
    config = json.loads(json.dumps(config))
    tied = config.get("text_config", config).get("tie_word_embeddings", config["model_type"] == "gemma3")
    plain = {key: value for key, value in config.items() if key != "quantization"}
    model_class, args_class = _get_classes(plain)
    model = model_class(args_class.from_dict(plain))
    result = {}
    for name, value in sorted(tree_flatten(model.parameters())):
        shape = list(value.shape)
        if name.endswith("lm_head.weight") and tied:
            continue
        if hub and ".switch_mlp." in name:
            rename = {"gate_proj": "w1", "up_proj": "w3", "down_proj": "w2"}
            for expert in range(shape[0]):
                own = name.replace(".switch_mlp.", f".experts.{expert}.")
                if config["model_type"] == "mixtral":
                    for long, short in rename.items():
                        own = own.replace(long, short)
                result[own] = shape[1:]
            continue
        result[name] = shape
    return result


def values(shapes, seed):
    result = {}
    for name, shape in shapes.items():
        numbers = tiny.numbers(name, math.prod(shape), seed)
        if len(shape) > 1:
            numbers = numbers * (np.float32(1) if "embed_tokens" in name else tiny.amplitude(shape[-1]))
        elif name.endswith("bias"):
            numbers = numbers / np.float32(4)
        else:
            numbers = numbers / np.float32(4) + np.float32(1)
        result[name] = numbers.reshape(shape)
    return result


def golden(family, build, forward, quantized):
    """The cases of a family with their logits."""
    cases = []
    for seed, (name, (config, dtype, hub)) in enumerate(FAMILIES[family].items(), start=1):
        named = shapes(config, hub)
        weights = {n: mx.array(v).astype(getattr(mx, dtype)) for n, v in values(named, seed).items()}
        if "quantization" in config:
            weights = quantized(config, weights)
        tokens = [(7 * i * i + 3 * i + seed) % config["vocab_size"] for i in range(TOKENS)]
        logits = forward(with_windows(build(json.loads(json.dumps(config)), weights), config), tokens)[ROWS]
        cases.append({"name": name, "config": config, "dtype": dtype, "seed": seed, "tokens": tokens, "rows": ROWS,
                      "tensors": named, "logits": [[float(f"{x:.8g}") for x in row] for row in logits]})
    return cases


def text(cases):
    """A line a field, so that a changed case shows as such."""
    lines = [",\n".join(f'"{key}": {json.dumps(value, separators=(",", ":"))}' for key, value in case.items())
             for case in cases]
    return "[\n" + ",\n".join(f"{{\n{line}\n}}" for line in lines) + "\n]\n"
