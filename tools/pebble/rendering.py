"""From a conversation to the text that the model reads, in pieces that say what is learned. Called by `vocabulary`
and `batches`.

`template.jinja` says the same for those who run the model, and travels in `tokenizer_config.json`; `test_corpus.py`
holds the two together.
"""

import json
from pathlib import Path
from typing import NamedTuple

from conversations import Conversation

TEMPLATE = (Path(__file__).parent / "template.jinja").read_text(encoding="utf-8").removesuffix("\n")
"""The chat template. The system prompt in it is `conversations.SYSTEM`."""
CALLING = 'To use one, answer <tool_call>{"name": ..., "arguments": {...}}</tool_call>'


class Piece(NamedTuple):
    """A text, tokenised by itself, and whether the model is to learn to write it."""

    text: str
    learned: bool


def render(conversation: Conversation) -> list[Piece]:
    """The pieces of a conversation; what the assistant says is learned, up to the end of the turn."""
    pieces = [Piece("<|im_start|>system\n" + conversation.system, False)]
    if conversation.tools:
        lines = "".join(json.dumps(tool["function"]) + "\n" for tool in conversation.tools)
        pieces.append(Piece("\nTools, one a line:\n" + lines + CALLING, False))
    pieces.append(Piece("<|im_end|>\n", False))
    for role, text in conversation.turns:
        pieces.append(Piece(f"<|im_start|>{role}\n", False))
        pieces.append(Piece(text + "<|im_end|>", role == "assistant"))
        pieces.append(Piece("\n", False))
    return pieces
