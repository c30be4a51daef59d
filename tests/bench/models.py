"""Writes random models of one shape: for mlxserve (MLX's affine format in safetensors, in a store of its own) and for
llama.cpp (GGUF with Q4_0 or Q8_0). Called by `serve.py`.

The numbers differ, the shape and the bytes that a token reads do not: 4.5 or 8.5 bits a weight in both formats. Scales
keep the weights near a deviation of 0.02, so that all logits are finite.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import gguf
import numpy as np

from shape import GROUP, Shape

DEVIATION = 0.02
LARGE_VOCABULARY = 151_643
"""Tokens of the large tokenizer: those that Qwen3's own BPE has."""
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
}


def make(shape: Shape, bits: int, folder: Path, mlxctl: Path) -> tuple[Path, Path]:
    """The home of a store with `bench:1` and `bench-large:1` (the same weights, a large tokenizer), and a GGUF file.
    Those of an earlier run are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {"shape": shape._asdict(), "bits": bits}
    stamp, home, peer = folder / "made.json", folder / "home", folder / "peer.gguf"
    if stamp.is_file() and json.loads(stamp.read_text()) == wanted:
        return home, peer
    for old in ("home", "source"):
        shutil.rmtree(folder / old, ignore_errors=True)
    source = folder / "source"
    write_mlx(shape, bits, source)
    for name, merges in (("bench", 0), ("bench-large", LARGE_VOCABULARY - 256)):
        write_tokenizer(source / "tokenizer.json", merges)
        recipe = folder / f"{name}.yaml"
        head = {"apiVersion": "mlxctl.dev/v1alpha1", "kind": "ModelSpec", "name": name, "version": "1"}
        recipe.write_text(json.dumps(head | {"from": {"path": "./source"}}))
        environment = os.environ | {"MLXCTL_HOME": str(home)}
        subprocess.run([mlxctl, "create", "-f", recipe], check=True, env=environment, stdout=subprocess.DEVNULL)
    shutil.rmtree(source)
    write_gguf(shape, bits, peer)
    stamp.write_text(json.dumps(wanted))
    return home, peer


def bf16(values: np.ndarray) -> np.ndarray:
    """The upper halves of f32 numbers."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def deviation_of_code(bits: int) -> float:
    """Standard deviation of uniform codes."""
    return ((1 << bits) ** 2 - 1) ** 0.5 / 12**0.5


def write_mlx(shape: Shape, bits: int, folder: Path) -> None:
    """`config.json` and `model.safetensors`."""
    random = np.random.default_rng(1)
    tensors: dict[str, tuple[str, np.ndarray]] = {}

    def matrix(name: str, outputs: int, inputs: int) -> None:
        words = random.integers(0, 1 << 32, (outputs, inputs * bits // 32), np.uint32)
        scales = random.uniform(0.5, 1.5, (outputs, inputs // GROUP)) * (DEVIATION / deviation_of_code(bits))
        tensors[f"{name}.weight"] = ("U32", words)
        tensors[f"{name}.scales"] = ("BF16", bf16(scales))
        tensors[f"{name}.biases"] = ("BF16", bf16(scales * -((1 << bits) - 1) / 2))

    def vector(name: str, length: int) -> None:
        tensors[f"{name}.weight"] = ("BF16", bf16(np.ones(length)))

    matrix("model.embed_tokens", shape.vocabulary, shape.hidden)
    for layer in range(shape.layers):
        for name, (outputs, inputs) in shape.projections().items():
            matrix(f"model.layers.{layer}.{name}", outputs, inputs)
        for name, length in shape.norms().items():
            vector(f"model.layers.{layer}.{name}", length)
    vector("model.norm", shape.hidden)

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(shape.config(bits)))
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    offset = 0
    for name, (dtype, array) in tensors.items():
        header[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    # The data starts at a multiple of 64 bytes: 8 of length, then the header with spaces after it.
    text += b" " * (-(8 + len(text)) % 64)
    with open(folder / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, array in tensors.values():
            file.write(array.tobytes())


def byte_letters() -> list[str]:
    """The character by which a byte-level vocabulary writes each byte: those that can be seen stand for themselves, the
    others follow from 256 on (as GPT-2 has it)."""
    seen = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (chr(256 + index) for index in range(256))
    return [chr(byte) if byte in seen else next(others) for byte in range(256)]


def write_tokenizer(path: Path, merges: int) -> None:
    """A byte-level BPE of 256 tokens, one a byte, and `merges` random ones above them. The model has more tokens than
    it names; those have no text."""
    random = np.random.default_rng(2)
    tokens = byte_letters()
    known = set(tokens)
    pairs = []
    while len(pairs) < merges:
        for left, right in random.integers(0, len(tokens), (4096, 2)):
            pair = tokens[left], tokens[right]
            token = "".join(pair)
            if len(token) <= 12 and token not in known and len(pairs) < merges:
                known.add(token)
                tokens.append(token)
                pairs.append(pair)
    levels = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    vocabulary = {token: index for index, token in enumerate(tokens)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": pairs}
    parts = {"version": "1.0", "added_tokens": [], "pre_tokenizer": levels, "decoder": levels, "model": model}
    path.write_text(json.dumps(parts))


def write_gguf(shape: Shape, bits: int, path: Path) -> None:
    """The same shape in blocks of 32 weights: a half-precision scale and the codes."""
    random = np.random.default_rng(3)
    kind = {4: gguf.GGMLQuantizationType.Q4_0, 8: gguf.GGMLQuantizationType.Q8_0}[bits]
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.hidden)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.intermediate)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    # No vocabulary: what a tokenizer costs is no part of what is measured here.
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(shape.vocabulary)

    def matrix(name: str, outputs: int, inputs: int) -> None:
        blocks = outputs * inputs // 32
        data = np.empty((blocks, 2 + 4 * bits), np.uint8)
        scales = random.uniform(0.5, 1.5, blocks) * (DEVIATION / deviation_of_code(bits))
        data[:, :2] = scales.astype("<f2").view(np.uint8).reshape(blocks, 2)
        data[:, 2:] = random.integers(0, 256, (blocks, 4 * bits), np.uint8)
        writer.add_tensor(f"{name}.weight", data.reshape(outputs, -1), raw_dtype=kind)

    matrix("token_embd", shape.vocabulary, shape.hidden)
    for layer in range(shape.layers):
        for name, (outputs, inputs) in shape.projections().items():
            matrix(f"blk.{layer}.{GGUF_NAMES[name]}", outputs, inputs)
        for name, length in shape.norms().items():
            writer.add_tensor(f"blk.{layer}.{GGUF_NAMES[name]}.weight", np.ones(length, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(shape.hidden, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
