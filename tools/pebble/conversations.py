"""The synthetic conversations that Pebble learns from. Called by `vocabulary`, `batches`, `evaluate` and
`overlap`; `rendering` makes text of them.

A conversation is decided by the numbers it draws, so that a seed names a corpus: `test_corpus.py` holds its checksum.
"""

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from facts import COUNTRIES, JOBS, PEOPLE
from questions import NAME, Exchange, count, extract, fact, greeting, repeat
from toolbox import TOOLS, Tool, call_text, task

SYSTEM = f"You are {NAME}, a tiny model. Answer briefly."
"""The system prompt where a conversation has none of its own."""
OTHER_SYSTEMS = ["You are a helpful assistant.", "You are a helpful assistant. Answer briefly."]

STYLES: list[tuple[str, Callable[[str], str]]] = [
    ("Answer in upper case.", str.upper),
    ("Answer in lower case.", str.lower),
    ("End every answer with OK.", lambda answer: answer + " OK"),
    ("Start every answer with Sure:", lambda answer: "Sure: " + answer),
]
"""A rule in the system prompt, and what it does to an answer."""

SINGLE_TURNS = {fact: 0.62, count: 0.06, extract: 0.14, greeting: 0.06, repeat: 0.12}
"""The kinds of questions, and how often each comes."""


class Turn(NamedTuple):
    """What `user`, `assistant` or `tool` says."""

    role: str
    text: str


class Conversation(NamedTuple):
    """A system prompt, the turns after it, and the tools shown, if any."""

    system: str
    turns: list[Turn]
    tools: list[Tool] | None


def asked(exchange: Exchange) -> list[Turn]:
    """The two turns of a question and its answer."""
    return [Turn("user", exchange.question), Turn("assistant", exchange.answer)]


def recall(rng: Random) -> list[Turn]:
    """Somebody says something of themselves, and is asked for it later."""
    person, country, job = rng.choice(PEOPLE), rng.choice(COUNTRIES), rng.choice(JOBS)
    name = Exchange("What is my name?", f"Your name is {person}.")
    home = Exchange("Where do I live?", f"You live in {country}.")
    work = Exchange("What is my job?", f"You are a {job}.")
    said, questions = rng.choice([
        (f"My name is {person}.", [name]),
        (f"I live in {country}.", [home]),
        (f"I am a {job}.", [work]),
        (f"My name is {person} and I live in {country}.", [name, home]),
    ])
    rng.shuffle(questions)
    turns = asked(Exchange(said, "Noted."))
    if rng.random() < 0.3:
        turns += asked(fact(rng))
    for exchange in questions:
        turns += asked(exchange)
    return turns


def tool_use(rng: Random) -> tuple[list[Turn], list[Tool]]:
    """One to three tools and a task for one of them: called, its result mostly read, or now and then not needed."""
    tools = rng.sample(TOOLS, rng.randrange(1, 4))
    name = rng.choice(tools)["function"]["name"]
    chosen = task(rng, name)
    turns = asked(Exchange(chosen.question, call_text(name, chosen.arguments)))
    if rng.random() < 0.6:
        turns += [Turn("tool", json.dumps(chosen.result)), Turn("assistant", chosen.answer)]
    elif rng.random() < 0.2:
        turns = asked(fact(rng))
    return turns, tools


def small_talk(rng: Random) -> tuple[str, list[Turn]]:
    """One to three unrelated questions, and the system prompt they stand under."""
    turns: list[Turn] = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        kind = rng.choices(list(SINGLE_TURNS), list(SINGLE_TURNS.values()))[0]
        turns += asked(kind(rng))
    if rng.random() < 0.15:
        rule, styled = rng.choice(STYLES)
        turns = [turn._replace(text=styled(turn.text)) if turn.role == "assistant" else turn for turn in turns]
        return f"{SYSTEM} {rule}", turns
    if rng.random() < 0.1:
        return rng.choice(OTHER_SYSTEMS), turns
    return SYSTEM, turns


def conversation(rng: Random) -> Conversation:
    """The next conversation: 16 % with tools, 12 % recalling, the rest questions of one turn each."""
    kind = rng.random()
    if kind < 0.16:
        turns, tools = tool_use(rng)
        return Conversation(SYSTEM, turns, tools)
    if kind < 0.28:
        return Conversation(SYSTEM, recall(rng), None)
    system, turns = small_talk(rng)
    return Conversation(system, turns, None)


def corpus(rng: Random) -> Iterator[Conversation]:
    """Conversations without end."""
    while True:
        yield conversation(rng)
