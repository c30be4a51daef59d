"""Tiny random models of every family, made from a seed by a formula that `mlxctl_testkit::models` has too.

`reference.py` computes their logits with mlx-lm; the tests of `mlxctl-models` make the same weights again in Rust, so
that logits alone are committed.
"""

import numpy as np

MASK = (1 << 64) - 1


def fnv(text):
    """FNV-1a, 64 bits."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return value


def numbers(name, count, seed):
    """`count` multiples of 2^-23 in [-1, 1): SplitMix64 over a counter that starts at a hash of the name."""
    start = np.uint64((fnv(name) + seed * 0x9E3779B97F4A7C15) & MASK)
    with np.errstate(over="ignore"):
        x = start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return ((x >> np.uint64(40)).astype(np.int64) - (1 << 23)).astype(np.float32) / np.float32(1 << 23)


def amplitude(columns):
    """The largest power of two whose square times `columns` is at most 4: outputs keep the size of inputs."""
    value = 1.0
    while value * value * columns > 4:
        value /= 2
    return np.float32(value)


def shapes(config):
    """Names and shapes of the tensors, in the order of the files; biases and norms are vectors."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim") or hidden // heads
    tensors = [("model.embed_tokens.weight", (config["vocab_size"], hidden))]

    def linear(path, out, columns, bias):
        tensors.append((f"{path}.weight", (out, columns)))
        if bias:
            tensors.append((f"{path}.bias", (out,)))

    for layer in range(config["num_hidden_layers"]):
        path = f"model.layers.{layer}"
        attention_bias, mlp_bias = config.get("attention_bias", False), config.get("mlp_bias", False)
        tensors.append((f"{path}.input_layernorm.weight", (hidden,)))
        linear(f"{path}.self_attn.q_proj", heads * head_dim, hidden, attention_bias)
        linear(f"{path}.self_attn.k_proj", kv_heads * head_dim, hidden, attention_bias)
        linear(f"{path}.self_attn.v_proj", kv_heads * head_dim, hidden, attention_bias)
        linear(f"{path}.self_attn.o_proj", hidden, heads * head_dim, attention_bias)
        if config["model_type"] == "qwen3":
            tensors.append((f"{path}.self_attn.q_norm.weight", (head_dim,)))
            tensors.append((f"{path}.self_attn.k_norm.weight", (head_dim,)))
        tensors.append((f"{path}.post_attention_layernorm.weight", (hidden,)))
        linear(f"{path}.mlp.gate_proj", inner, hidden, mlp_bias)
        linear(f"{path}.mlp.up_proj", inner, hidden, mlp_bias)
        linear(f"{path}.mlp.down_proj", hidden, inner, mlp_bias)
    tensors.append(("model.norm.weight", (hidden,)))
    if not config["tie_word_embeddings"]:
        linear("lm_head", config["vocab_size"], hidden, False)
    return tensors


def weights(config, seed):
    """Tensors by name as float32; the caller casts them."""
    result = {}
    for name, shape in shapes(config):
        values = numbers(name, int(np.prod(shape)), seed)
        if len(shape) == 2:
            scale = np.float32(1) if "embed_tokens" in name else amplitude(shape[1])
            values = values * scale
        elif name.endswith("bias"):
            values = values / np.float32(4)
        else:
            values = values / np.float32(4) + np.float32(1)
        result[name] = values.reshape(shape)
    return result


LLAMA = {
    "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96,
    "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 48,
    "max_position_embeddings": 128, "rope_theta": 10000.0, "tie_word_embeddings": False,
}
QWEN3 = LLAMA | {"model_type": "qwen3", "head_dim": 16, "rms_norm_eps": 1e-6, "rope_theta": 1000000.0,
                 "tie_word_embeddings": True}
LLAMA3_SCALING = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                  "original_max_position_embeddings": 32}


def without(config, *keys):
    return {key: value for key, value in config.items() if key not in keys}


# name: (config, type of the weights, number of files)
CASES = {
    "qwen3-f32-tied": (QWEN3, "float32", 1),
    "qwen3-bf16-untied-one-kv-head": (
        QWEN3 | {"tie_word_embeddings": False, "num_key_value_heads": 1, "head_dim": 32}, "bfloat16", 3),
    "qwen3-f16-all-kv-heads": (QWEN3 | {"num_key_value_heads": 4, "head_dim": 40}, "float16", 1),
    "qwen3-4-bit-tied": (
        QWEN3 | {"intermediate_size": 128, "quantization": {"group_size": 64, "bits": 4}}, "bfloat16", 1),
    "qwen3-8-bit-untied": (
        QWEN3 | {"tie_word_embeddings": False, "quantization": {"group_size": 32, "bits": 8}}, "float16", 2),
    "qwen3-nested-rope": (
        without(QWEN3, "rope_theta") | {"rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
        "bfloat16", 1),
    "llama-f32-llama3-rope": (LLAMA | {"rope_theta": 500000.0, "rope_scaling": LLAMA3_SCALING}, "float32", 1),
    "llama-bf16-biases-linear-rope": (
        LLAMA | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True,
                 "rope_scaling": {"type": "linear", "factor": 4.0}}, "bfloat16", 1),
    "llama-f16-odd-sizes": (
        without(LLAMA, "num_key_value_heads") | {"hidden_size": 50, "num_attention_heads": 5, "intermediate_size": 37,
                                                  "vocab_size": 45}, "float16", 3),
    "llama-five-heads-a-kv-head": (
        LLAMA | {"num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 26}, "bfloat16", 1),
    "llama-2-bit": (LLAMA | {"quantization": {"group_size": 32, "bits": 2}}, "float32", 1),
    "llama-3-bit": (LLAMA | {"quantization": {"group_size": 32, "bits": 3}}, "bfloat16", 1),
    "llama-5-bit-biases": (
        LLAMA | {"attention_bias": True, "quantization": {"group_size": 32, "bits": 5}}, "float16", 1),
    "llama-6-bit-partly": (LLAMA | {"quantization": {"group_size": 64, "bits": 6}}, "bfloat16", 1),
    "llama-mixed-bits": (
        LLAMA | {"quantization": {
            "group_size": 32, "bits": 4, "lm_head": {"group_size": 64, "bits": 8},
            "model.layers.0.mlp.down_proj": False, "model.layers.1.self_attn.v_proj": True}}, "bfloat16", 2),
    "llama-4-bit-group-128": (
        LLAMA | {"hidden_size": 128, "intermediate_size": 256, "quantization": {"group_size": 128, "bits": 4}},
        "bfloat16", 1),
    "llama-interleaved-rope": (LLAMA | {"rope_traditional": True}, "float32", 1),
    "llama-one-sliding-layer": (
        LLAMA | {"layer_types": ["full_attention", "sliding_attention"], "sliding_window": 7}, "float32", 1),
    "mistral-sliding": (LLAMA | {"model_type": "mistral", "sliding_window": 33}, "bfloat16", 1),
}
