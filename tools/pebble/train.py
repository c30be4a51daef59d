"""Trains Pebble from nothing and writes a model directory.

    python train.py OUT

Needs the packages of `requirements-train.txt`. 4,200 steps take about 65 minutes on two cores; weights are saved every
500 steps and at the end.
"""

import argparse
import json
import time
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
from safetensors.numpy import save_file

from batches import batches
from network import CONFIG, CONTEXT, VOCABULARY, Weights, initial_weights, logits
from rendering import TEMPLATE
from vocabulary import END_OF_TEXT, END_OF_TURN, SPECIAL, train_tokenizer

WEIGHTS_SEED = 0
CORPUS_SEED = 7
STEPS = 4200
PEAK_RATE = 4e-3
FINAL_RATE = 2e-5
WARMUP_STEPS = 150
CLIPPED_NORM = 1.0
ADAM_B2 = 0.98
WEIGHT_DECAY = 0.05
PROMPT_WEIGHT = 0.02
"""What a token that is not to be learned counts, beside one that is."""
REPORT_STEPS = 50
SAVE_STEPS = 500

GENERATION_CONFIG = {"eos_token_id": [END_OF_TURN, END_OF_TEXT], "pad_token_id": END_OF_TEXT, "do_sample": False}
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": SPECIAL[END_OF_TURN],
    "pad_token": SPECIAL[END_OF_TEXT],
    "clean_up_tokenization_spaces": False,
    "model_max_length": CONTEXT,
    "chat_template": TEMPLATE,
}


def loss(weights: Weights, ids: jax.Array, learned: jax.Array, segments: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The weighted cross entropy, and the share of learned tokens that come first; each `[rows, tokens + 1]`."""
    predicted, wanted = logits(weights, ids[:, :-1], segments[:, :-1]), ids[:, 1:]
    answers = learned[:, 1:] == 1
    within = (segments[:, 1:] > 0) * (segments[:, 1:] == segments[:, :-1])
    counted = jnp.where(answers, 1.0, PROMPT_WEIGHT) * within
    entropy = optax.softmax_cross_entropy_with_integer_labels(predicted, wanted)
    right = (predicted.argmax(-1) == wanted) & answers
    return (entropy * counted).sum() / counted.sum(), right.sum() / answers.sum()


def optimizer(steps: int) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(0, PEAK_RATE, WARMUP_STEPS, steps, FINAL_RATE)
    return optax.chain(
        optax.clip_by_global_norm(CLIPPED_NORM), optax.adamw(rate, b2=ADAM_B2, weight_decay=WEIGHT_DECAY))


def save(weights: Weights, out: Path) -> None:
    """Writes the weights as bfloat16."""
    tensors = {name: np.asarray(value).astype(ml_dtypes.bfloat16) for name, value in weights.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})


def write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")


def train(out: Path, steps: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(VOCABULARY)
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "config.json", CONFIG)
    write_json(out / "generation_config.json", GENERATION_CONFIG)
    write_json(out / "tokenizer_config.json", TOKENIZER_CONFIG)

    weights = initial_weights(jax.random.PRNGKey(WEIGHTS_SEED))
    rule = optimizer(steps)
    state = rule.init(weights)
    print("vocabulary", tokenizer.get_vocab_size(), flush=True)
    print("parameters", sum(value.size for value in weights.values()), flush=True)

    @jax.jit
    def step(weights, state, ids, learned, segments):
        (value, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(weights, ids, learned, segments)
        update, state = rule.update(gradient, state, weights)
        return optax.apply_updates(weights, update), state, value, accuracy

    start = time.monotonic()
    for index, batch in enumerate(islice(batches(tokenizer, CORPUS_SEED), steps)):
        weights, state, value, accuracy = step(weights, state, *batch)
        if index % REPORT_STEPS == 0:
            seconds = time.monotonic() - start
            print(f"{index} loss {value:.4f} answer-token accuracy {accuracy:.4f} {seconds:.0f}s", flush=True)
        if index % SAVE_STEPS == SAVE_STEPS - 1:
            save(weights, out)
    save(weights, out)
    print("done", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the directory to write")
    parser.add_argument(
        "--steps", type=int, default=STEPS, help=f"batches to learn from, more than {WARMUP_STEPS} ({STEPS})")
    options = parser.parse_args()
    if options.steps <= WARMUP_STEPS:
        parser.error(f"--steps must be more than the {WARMUP_STEPS} of the warm-up, got {options.steps}")
    train(options.out, options.steps)


if __name__ == "__main__":
    main()
