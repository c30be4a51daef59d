"""Logits of mlx-lm in float32 on a CPU, for the parity tests of `mlxctl-models`.

    python tools/parity/reference.py            # writes crates/models/tests/golden/
    python tools/parity/reference.py --check    # computes anew and compares with what is there

Needs mlx-lm (written with 0.32.2 over mlx 0.32.2). Float32 throughout, because MLX's quantised product on a CPU adds in
the type of the scales: weights, scales and biases keep the values of the file and are widened.
"""

import argparse
import json
import sys
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.utils import _get_classes

import families
import tiny

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "crates/models/tests/golden"
PEBBLE = ROOT / "modelspecs/pebble/weights"
TOKENS = 41
# <|im_start|>user … as the template writes it, then an answer; the rows whose logits are kept.
PEBBLE_PROMPT = "Capital of France?"
PEBBLE_ANSWER_TOKENS = 16


def quantized(config, weights):
    """The weights with every linear and embedding quantised that the configuration does not except."""
    block = config["quantization"]
    result = {}
    for name, value in weights.items():
        path = name.removesuffix(".weight")
        own = block.get(path, True)
        own = block if own is True else own
        if name.endswith(".weight") and value.ndim >= 2 and own and value.shape[-1] % own["group_size"] == 0:
            parts = mx.quantize(value, group_size=own["group_size"], bits=own["bits"])
            result |= dict(zip((name, f"{path}.scales", f"{path}.biases"), parts))
        else:
            result[name] = value
    return result


def with_plain_experts(block, weights):
    """The weights with stacked experts dequantised in float32: this mlx-lm calls a gather that this MLX lacks."""
    stacked = [n.removesuffix(".weight") for n, v in weights.items() if n.endswith(".weight") and v.ndim == 3]
    for path in [path for path in stacked if f"{path}.scales" in weights]:
        scales, biases = (weights.pop(f"{path}.{part}").astype(mx.float32) for part in ("scales", "biases"))
        weights[f"{path}.weight"] = mx.dequantize(
            weights[f"{path}.weight"], scales, biases, group_size=block["group_size"], bits=block["bits"])
    return weights


def build(config, weights):
    """mlx-lm's model with these weights, everything but codes in float32."""
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    if hasattr(model, "sanitize"):
        weights = model.sanitize(weights)
    if config.get("quantization"):
        weights = with_plain_experts(config["quantization"], weights)
    if block := config.get("quantization"):
        def predicate(path, module):
            own = block.get(path, True)
            return (own if isinstance(own, dict) else True) if f"{path}.scales" in weights else False

        nn.quantize(model, block["group_size"], block["bits"], class_predicate=predicate)
    weights = {n: v if v.dtype == mx.uint32 else v.astype(mx.float32) for n, v in weights.items()}
    model.load_weights(list(weights.items()), strict=True)
    if config["model_type"] == "mistral" and config.get("sliding_window"):
        # mlx-lm drops a window that `layer_types` does not mention; the architecture slides over all layers.
        model.model.swa_idx = 0
        for layer in model.layers:
            layer.use_sliding = True
    return model


def forward(model, tokens):
    logits = model(mx.array([tokens]))[0]
    assert logits.dtype == mx.float32
    return np.array(logits)


def tiny_cases():
    """One entry a case, and its logits `[tokens, vocabulary]`."""
    entries, logits = [], {}
    for seed, (name, (config, dtype, files)) in enumerate(tiny.CASES.items(), start=1):
        weights = {n: mx.array(v).astype(getattr(mx, dtype)) for n, v in tiny.weights(config, seed).items()}
        if "quantization" in config:
            weights = quantized(config, weights)
        tokens = [(7 * i * i + 3 * i + seed) % config["vocab_size"] for i in range(TOKENS)]
        logits[name] = forward(build(config, weights), tokens)
        entries.append({"name": name, "config": config, "dtype": dtype, "seed": seed, "files": files,
                        "tokens": tokens})
    return entries, logits


def pebble_cases():
    """Pebble as it is and quantised: greedy answers, and logits of some rows, teacher-forced."""
    from transformers import PreTrainedTokenizerFast
    config = json.loads((PEBBLE / "config.json").read_text())
    weights = mx.load(str(PEBBLE / "model.safetensors"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(PEBBLE / "tokenizer.json"),
        chat_template=json.loads((PEBBLE / "tokenizer_config.json").read_text())["chat_template"])
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": PEBBLE_PROMPT}], add_generation_prompt=True, return_dict=False)
    stops = json.loads((PEBBLE / "generation_config.json").read_text())["eos_token_id"]
    entries, logits = [], {}
    for name, bits in [("pebble-bf16", None), ("pebble-8-bit", 8), ("pebble-4-bit", 4)]:
        own = dict(config)
        held = weights
        if bits:
            own["quantization"] = {"group_size": 64, "bits": bits}
            held = quantized(own, weights)
        model = build(own, held)
        tokens = list(prompt)
        while len(tokens) < len(prompt) + PEBBLE_ANSWER_TOKENS and tokens[-1] not in stops:
            tokens.append(int(forward(model, tokens)[-1].argmax()))
        full = forward(model, tokens)
        rows = sorted({0, len(prompt) // 2, *range(len(prompt) - 1, len(tokens) - 1, 3)})
        logits[name] = full[rows]
        entries.append({"name": name, "config": own, "prompt": len(prompt), "tokens": tokens, "rows": rows,
                        "text": tokenizer.decode(tokens[len(prompt):], skip_special_tokens=True)})
    return entries, logits


def write_families(check):
    """One file a family; with `check` the largest difference from what is there."""
    folder = GOLDEN / "families"
    folder.mkdir(parents=True, exist_ok=True)
    largest = 0.0
    for family in families.FAMILIES:
        cases = families.golden(family, build, forward, quantized)
        path = folder / f"{family}.json"
        if not check:
            path.write_text(families.text(cases))
            continue
        for ours, theirs in zip(cases, json.loads(path.read_text()), strict=True):
            same = {key: value for key, value in ours.items() if key != "logits"}
            assert json.loads(json.dumps(same)) == {k: v for k, v in theirs.items() if k != "logits"}, path
            largest = max(largest, float(np.abs(np.array(ours["logits"]) - np.array(theirs["logits"])).max()))
    return largest


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed files, write nothing")
    parser.add_argument("--families", action="store_true", help="leave the first two families and Pebble alone")
    arguments = parser.parse_args()
    check = arguments.check
    mx.set_default_device(mx.cpu)
    largest = write_families(check)
    if arguments.families:
        print(f"largest difference from the committed logits: {largest:.3g}" if check else "written")
        return 0 if largest < 1e-4 else 1
    tiny_entries, logits = tiny_cases()
    pebble_entries, pebble_logits = pebble_cases()
    logits |= pebble_logits
    cases = {"tiny": tiny_entries, "pebble": pebble_entries}
    if not check:
        GOLDEN.mkdir(parents=True, exist_ok=True)
        lines = {kind: ",\n".join(json.dumps(entry) for entry in entries) for kind, entries in cases.items()}
        text = ",\n".join(f'"{kind}": [\n{entries}\n]' for kind, entries in lines.items())
        (GOLDEN / "cases.json").write_text(f"{{\n{text}\n}}\n")
        mx.save_safetensors(str(GOLDEN / "logits.safetensors"), {n: mx.array(v) for n, v in logits.items()},
                            metadata={"format": "mlx"})
        return 0
    committed = json.loads((GOLDEN / "cases.json").read_text())
    assert committed == json.loads(json.dumps(cases)), "the cases differ from those committed"
    for name, value in mx.load(str(GOLDEN / "logits.safetensors")).items():
        largest = max(largest, float(np.abs(np.array(value) - logits[name]).max()))
    print(f"largest difference from the committed logits: {largest:.3g}")
    return 0 if largest < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
