"""The network in JAX, a decoder of the Qwen3 architecture: sizes, first weights, logits. Called by `train`.

Weights are named as the hub names them, so that they are saved as they are.
"""

from typing import Any

import jax
import jax.numpy as jnp

VOCABULARY = 1536
HIDDEN = 192
LAYERS = 6
HEADS = 6
KV_HEADS = 2
HEAD_DIM = 32
INNER = 512
"""Width of the feed-forward layers."""
ROPE_THETA = 10000.0
NORM_EPSILON = 1e-6
CONTEXT = 2048

Weights = dict[str, jax.Array]

CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "rms_norm_eps": NORM_EPSILON,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": CONTEXT,
    "rope_theta": ROPE_THETA,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "hidden_act": "silu",
    "torch_dtype": "bfloat16",
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
"""What `config.json` says; the ids are those of `vocabulary.SPECIAL`."""


def initial_weights(key: jax.Array) -> Weights:
    """Matrices normal with deviation 0.02, smaller where they add to the residual stream; norms one."""
    keys = iter(jax.random.split(key, 200))

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), shape) * 0.02

    residual = (2 * LAYERS) ** 0.5
    weights = {"model.embed_tokens.weight": normal(VOCABULARY, HIDDEN), "model.norm.weight": jnp.ones(HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        # The order of the draws is part of the recipe.
        weights |= {
            at + "self_attn.q_proj.weight": normal(HEADS * HEAD_DIM, HIDDEN),
            at + "self_attn.k_proj.weight": normal(KV_HEADS * HEAD_DIM, HIDDEN),
            at + "self_attn.v_proj.weight": normal(KV_HEADS * HEAD_DIM, HIDDEN),
            at + "self_attn.o_proj.weight": normal(HIDDEN, HEADS * HEAD_DIM) / residual,
            at + "self_attn.q_norm.weight": jnp.ones(HEAD_DIM),
            at + "self_attn.k_norm.weight": jnp.ones(HEAD_DIM),
            at + "mlp.gate_proj.weight": normal(INNER, HIDDEN),
            at + "mlp.up_proj.weight": normal(INNER, HIDDEN),
            at + "mlp.down_proj.weight": normal(HIDDEN, INNER) / residual,
            at + "input_layernorm.weight": jnp.ones(HIDDEN),
            at + "post_attention_layernorm.weight": jnp.ones(HIDDEN),
        }
    return weights


def rms_norm(x: jax.Array, weight: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + NORM_EPSILON) * weight


def rope(x: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotates the halves of every head of `x` `[rows, tokens, heads, head_dim]` by `positions` `[rows, tokens]`."""
    angles = positions[..., None, None] * ROPE_THETA ** (-jnp.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    first, second = x[..., : HEAD_DIM // 2], x[..., HEAD_DIM // 2 :]
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def attention(weights: Weights, at: str, x: jax.Array, positions: jax.Array, visible: jax.Array) -> jax.Array:
    rows, tokens, _ = x.shape
    q = (x @ weights[at + "q_proj.weight"].T).reshape(rows, tokens, HEADS, HEAD_DIM)
    k = (x @ weights[at + "k_proj.weight"].T).reshape(rows, tokens, KV_HEADS, HEAD_DIM)
    v = (x @ weights[at + "v_proj.weight"].T).reshape(rows, tokens, KV_HEADS, HEAD_DIM)
    q = rope(rms_norm(q, weights[at + "q_norm.weight"]), positions)
    k = rope(rms_norm(k, weights[at + "k_norm.weight"]), positions)
    q = q.reshape(rows, tokens, KV_HEADS, HEADS // KV_HEADS, HEAD_DIM)
    scores = jnp.einsum("btkgd,bskd->bkgts", q, k) * HEAD_DIM**-0.5
    scores = jax.nn.softmax(jnp.where(visible[:, None, None], scores, -1e9), -1)
    mixed = jnp.einsum("bkgts,bskd->btkgd", scores, v).reshape(rows, tokens, HEADS * HEAD_DIM)
    return mixed @ weights[at + "o_proj.weight"].T


def feed_forward(weights: Weights, at: str, x: jax.Array) -> jax.Array:
    gate = jax.nn.silu(x @ weights[at + "gate_proj.weight"].T)
    return (gate * (x @ weights[at + "up_proj.weight"].T)) @ weights[at + "down_proj.weight"].T


def logits(weights: Weights, ids: jax.Array, segments: jax.Array) -> jax.Array:
    """`[rows, tokens, vocabulary]` for `ids` `[rows, tokens]`.

    A row packs several conversations, numbered by `segments` `[rows, tokens]`: each sees itself alone, and counts its
    positions from zero.
    """
    tokens = ids.shape[1]
    x = weights["model.embed_tokens.weight"][ids]
    same = segments[:, :, None] == segments[:, None, :]
    visible = same & jnp.tril(jnp.ones((tokens, tokens), bool))
    positions = jnp.arange(tokens)[None] - jnp.argmax(same, -1)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        normed = rms_norm(x, weights[at + "input_layernorm.weight"])
        x = x + attention(weights, at + "self_attn.", normed, positions, visible)
        normed = rms_norm(x, weights[at + "post_attention_layernorm.weight"])
        x = x + feed_forward(weights, at + "mlp.", normed)
    return rms_norm(x, weights["model.norm.weight"]) @ weights["model.embed_tokens.weight"].T
