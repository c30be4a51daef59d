"""Trains the tokenizer: byte-level BPE over the corpus, every digit a token. Called by `train`."""

from itertools import islice
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from conversations import corpus
from rendering import render

SEED = 1
CONVERSATIONS = 20000
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>"]
"""Tokens 0 to 4."""
END_OF_TEXT = 0
END_OF_TURN = 2


def train_tokenizer(size: int) -> Tokenizer:
    """A tokenizer of at most `size` tokens, always the same one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    conversations = islice(corpus(Random(SEED)), CONVERSATIONS)
    texts = ("".join(piece.text for piece in render(conversation)) for conversation in conversations)
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
