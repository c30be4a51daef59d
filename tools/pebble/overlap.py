"""Tells which share of freshly drawn questions stood word for word in the training corpus.

    python overlap.py ../../modelspecs/pebble/weights/tokenizer.json

Needs the packages of `requirements-train.txt`, no accelerator, and a minute.
"""

import argparse
from collections.abc import Iterator
from itertools import islice
from random import Random

from tokenizers import Tokenizer

from batches import ROWS, rows
from conversations import Conversation, asked, corpus, recall, tool_use
from questions import arithmetic, count, extract, fact, repeat
from train import CORPUS_SEED, STEPS

FRESH_SEED = 99
FRESH = 2000


def training_questions(tokenizer: Tokenizer) -> tuple[int, set[str]]:
    """How many conversations training drew, and everything that a user says in them."""
    drawn = 0
    said: set[str] = set()

    def noted() -> Iterator[Conversation]:
        nonlocal drawn
        for conversation in corpus(Random(CORPUS_SEED)):
            drawn += 1
            said.update(turn.text for turn in conversation.turns if turn.role == "user")
            yield conversation

    for _ in islice(rows(tokenizer, noted()), STEPS * ROWS):
        pass
    return drawn, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", help="the tokenizer.json that training wrote")
    drawn, said = training_questions(Tokenizer.from_file(parser.parse_args().tokenizer))
    print(f"{drawn} conversations, {len(said)} different questions")
    kinds = {
        "facts and sums": lambda rng: asked(fact(rng)),
        "sums": lambda rng: asked(arithmetic(rng)),
        "counting": lambda rng: asked(count(rng)),
        "JSON": lambda rng: asked(extract(rng)),
        "repeat": lambda rng: asked(repeat(rng)),
        "recall": recall,
        "tools": lambda rng: tool_use(rng)[0],
    }
    for kind, draw in kinds.items():
        rng = Random(FRESH_SEED)
        held = sum(draw(rng)[0].text in said for _ in range(FRESH))
        print(f"{kind}: {held / FRESH:.0%} of {FRESH}")


if __name__ == "__main__":
    main()
