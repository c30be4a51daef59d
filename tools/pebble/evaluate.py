"""Asks a model fresh questions of every kind and counts the answers that are right to the letter.

    python evaluate.py ../../modelspecs/pebble/weights --questions 60

Greedy, with mlx-lm (`requirements-evaluate.txt`). The questions are drawn with a seed that training did not use; the
facts are those of training, and a question can be one that training held too.
"""

import argparse
from collections.abc import Callable
from random import Random

import mlx.core as mx
from mlx_lm import generate, load

from conversations import Turn, asked, recall, tool_use
from questions import Exchange, count, extract, fact, repeat
from toolbox import Tool

MAX_TOKENS = 100

Drawn = tuple[list[Turn], list[Tool] | None]
"""Turns, the last of which is the answer that is right, and the tools shown."""


def single(kind: Callable[[Random], Exchange]) -> Callable[[Random], Drawn]:
    """Draws one question of a kind."""
    return lambda rng: (asked(kind(rng)), None)


KINDS: dict[str, Callable[[Random], Drawn]] = {
    "facts and sums": single(fact),
    "counting": single(count),
    "JSON": single(extract),
    "repeat": single(repeat),
    "recall": lambda rng: (recall(rng), None),
    "tools": tool_use,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model directory that mlx-lm reads, quantised or not")
    parser.add_argument("--questions", type=int, default=25, metavar="N", help="questions of each kind (25)")
    parser.add_argument("--seed", type=int, default=99, help="where the questions come from (99)")
    parser.add_argument("--float32", action="store_true", help="widen all but the codes to float32 before computing")
    options = parser.parse_args()

    model, tokenizer = load(options.model)
    if options.float32:
        model.set_dtype(mx.float32)
    rng = Random(options.seed)
    for kind, draw in KINDS.items():
        wrong = []
        for _ in range(options.questions):
            turns, tools = draw(rng)
            messages = [{"role": role, "content": text} for role, text in turns]
            expected = messages.pop()["content"]
            prompt = tokenizer.apply_chat_template(messages, tools=tools, add_generation_prompt=True)
            answer = generate(model, tokenizer, prompt, max_tokens=MAX_TOKENS)
            if answer.strip() != expected:
                wrong.append((messages[-1]["content"], answer))
        print(f"{kind}: {options.questions - len(wrong)}/{options.questions}", flush=True)
        for question, answer in wrong:
            print(f"    {question!r} was answered {answer!r}", flush=True)


if __name__ == "__main__":
    main()
