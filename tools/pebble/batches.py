"""Packs conversations into rows of equal length, without end. Called by `train` and `overlap`."""

from collections.abc import Iterable, Iterator
from random import Random
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from conversations import Conversation, corpus
from rendering import render
from vocabulary import END_OF_TEXT

ROWS = 24
TOKENS = 192
"""Tokens that a row predicts: it holds one more."""


class Batch(NamedTuple):
    """Arrays of one shape: `[TOKENS + 1]` for a row, `[ROWS, TOKENS + 1]` for a batch."""

    ids: np.ndarray
    learned: np.ndarray
    """1 where a token is to be learned."""
    segments: np.ndarray
    """Which conversation a token belongs to, from 1; 0 is padding."""


def row(ids: list[int], learned: list[int], segments: list[int]) -> Batch:
    padding = [0] * (TOKENS + 1 - len(ids))
    return Batch(np.array(ids + padding), np.array(learned + padding), np.array(segments + padding))


def rows(tokenizer: Tokenizer, source: Iterable[Conversation]) -> Iterator[Batch]:
    """Rows of whole conversations, each followed by the end of the text; one that is too long for a row is dropped."""
    packed: tuple[list[int], list[int], list[int]] = ([], [], [])
    for segment, conversation in enumerate(source, start=1):
        ids: list[int] = []
        learned: list[int] = []
        for piece in render(conversation):
            tokens = tokenizer.encode(piece.text).ids
            ids += tokens
            learned += [int(piece.learned)] * len(tokens)
        ids.append(END_OF_TEXT)
        learned.append(0)
        if len(packed[0]) + len(ids) > TOKENS + 1:
            if packed[0]:
                yield row(*packed)
            packed = ([], [], [])
        if len(ids) <= TOKENS + 1:
            for whole, part in zip(packed, (ids, learned, [segment] * len(ids))):
                whole.extend(part)


def batches(tokenizer: Tokenizer, seed: int) -> Iterator[Batch]:
    """Batches of `ROWS` rows; a seed always gives the same ones."""
    source = rows(tokenizer, corpus(Random(seed)))
    while True:
        taken = [next(source) for _ in range(ROWS)]
        yield Batch(*(np.stack(column) for column in zip(*taken)))
