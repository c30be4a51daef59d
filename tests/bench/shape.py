"""The shape of the models that are measured, and what follows from it. Called by every other file here."""

from typing import NamedTuple

GROUP = 64
"""Weights that share a scale and a bias in MLX's format."""


class Shape(NamedTuple):
    """A Qwen3 decoder whose embedding is its head; the numbers of Qwen3-0.6B."""

    hidden: int = 1024
    layers: int = 28
    heads: int = 16
    kv_heads: int = 8
    head_dim: int = 128
    intermediate: int = 3072
    vocabulary: int = 151_936
    context: int = 40_960

    def projections(self) -> dict[str, tuple[int, int]]:
        """The matrices of a layer by MLX's names, each `[outputs, inputs]`."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "self_attn.q_proj": (queries, self.hidden),
            "self_attn.k_proj": (keys, self.hidden),
            "self_attn.v_proj": (keys, self.hidden),
            "self_attn.o_proj": (self.hidden, queries),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }

    def norms(self) -> dict[str, int]:
        """The vectors of a layer by MLX's names."""
        return {
            "input_layernorm": self.hidden,
            "post_attention_layernorm": self.hidden,
            "self_attn.q_norm": self.head_dim,
            "self_attn.k_norm": self.head_dim,
        }

    def matrix_bytes(self, bits: int) -> int:
        """Bytes of all matrices, each read once a step: both formats spend half a bit a weight on scales."""
        layer = sum(outputs * inputs for outputs, inputs in self.projections().values())
        return int((self.layers * layer + self.vocabulary * self.hidden) * (bits + 0.5) / 8)

    def kv_bytes(self, tokens: int, width: int) -> int:
        """Bytes of the keys and values of so many tokens, in numbers of `width` bytes."""
        return self.layers * 2 * self.kv_heads * self.head_dim * tokens * width

    def config(self, bits: int) -> dict:
        """`config.json` of MLX's form. It names no end of text: answers are as long as asked."""
        return {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "rms_norm_eps": 1e-6,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": self.context,
            "rope_theta": 1_000_000.0,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "hidden_act": "silu",
            "quantization": {"group_size": GROUP, "bits": bits},
        }
