"""Questions that are answered in one turn: facts, sums, counting, JSON, greetings, repeating. Called by
`conversations`, and by `evaluate` for fresh questions of one kind.

Every function takes the random numbers it uses; the order of the draws decides the corpus, so it stays as it is.
"""

import json
from random import Random
from typing import NamedTuple

from facts import (
    CAPITALS, COMMANDS, DAYS, ELEMENTS, JOBS, MONTHS, OPPOSITES, ORDINALS, PEOPLE, PLANETS, PLURALS, REPEATABLE,
)

NAME = "Pebble"


class Exchange(NamedTuple):
    """A question and the one right answer to it."""

    question: str
    answer: str


def fact(rng: Random) -> Exchange:
    """A question of the twelve kinds below; capitals and sums are three times as likely as the others."""
    return rng.choice(FACTS)(rng)


def capital_of(rng: Random) -> Exchange:
    country, capital = rng.choice(CAPITALS)
    if rng.random() < 0.7:
        question = rng.choice([
            f"What is the capital of {country}?",
            f"Capital of {country}?",
            f"Name the capital of {country}.",
            f"Which city is the capital of {country}?",
            f"Tell me the capital of {country}.",
        ])
        return Exchange(question, f"The capital of {country} is {capital}.")
    question = rng.choice([f"{capital} is the capital of which country?", f"Which country has the capital {capital}?"])
    return Exchange(question, f"{capital} is the capital of {country}.")


def arithmetic(rng: Random) -> Exchange:
    """Sums and differences of numbers below 100, none below zero; products of numbers up to 12."""
    sign = rng.choice("+++--*")
    below = 13 if sign == "*" else 100
    a, b = rng.randrange(below), rng.randrange(below)
    if sign == "-" and b > a:
        a, b = b, a
    value = {"+": a + b, "-": a - b, "*": a * b}[sign]
    word = {"+": "plus", "-": "minus", "*": "times"}[sign]
    question = rng.choice([
        f"What is {a} {sign} {b}?", f"{a} {sign} {b} =", f"What is {a} {word} {b}?", f"Compute {a} {sign} {b}.",
    ])
    return Exchange(question, f"{a} {sign} {b} = {value}")


def element(rng: Random) -> Exchange:
    number, name, symbol = rng.choice(ELEMENTS)
    return rng.choice([
        Exchange(f"What is the symbol of {name}?", f"The symbol of {name} is {symbol}."),
        Exchange(f"Which element has the symbol {symbol}?", f"{symbol} is {name}."),
        Exchange(f"What is the atomic number of {name}?", f"The atomic number of {name} is {number}."),
        Exchange(
            f"Which element has the atomic number {number}?",
            f"The element with the atomic number {number} is {name}.",
        ),
    ])


def opposite(rng: Random) -> Exchange:
    word, other = rng.choice(OPPOSITES)
    question = rng.choice([f"What is the opposite of {word}?", f"Opposite of {word}?"])
    return Exchange(question, f"The opposite of {word} is {other}.")


def plural(rng: Random) -> Exchange:
    one, many = rng.choice(PLURALS)
    question = rng.choice([f"What is the plural of {one}?", f"Plural of {one}?"])
    return Exchange(question, f"The plural of {one} is {many}.")


def neighbour(rng: Random) -> Exchange:
    """The day or month next to another, around the end of the week or year."""
    names, kind = rng.choice([(DAYS, "day"), (MONTHS, "month")])
    index = rng.randrange(len(names))
    step = rng.choice([1, -1])
    where = "after" if step == 1 else "before"
    found = names[(index + step) % len(names)]
    return Exchange(f"Which {kind} comes {where} {names[index]}?", f"{found} comes {where} {names[index]}.")


def planet(rng: Random) -> Exchange:
    index = rng.randrange(len(PLANETS))
    ordinal = ORDINALS[index]
    question = rng.choice([f"Which planet is the {ordinal} from the sun?", f"Name the {ordinal} planet."])
    return Exchange(question, f"The {ordinal} planet from the sun is {PLANETS[index]}.")


def command(rng: Random) -> Exchange:
    purpose, line = rng.choice(COMMANDS)
    return Exchange(rng.choice([f"How do I {purpose}?", f"Which command lets me {purpose}?"]), f"Run: {line}")


FACTS = [capital_of] * 3 + [arithmetic] * 3 + [element, opposite, plural, neighbour, planet, command]


def count(rng: Random) -> Exchange:
    last = rng.randrange(2, 21)
    question = rng.choice([f"Count to {last}.", f"Count from 1 to {last}."])
    return Exchange(question, ", ".join(str(number) for number in range(1, last + 1)))


def extract(rng: Random) -> Exchange:
    """A sentence about a person, whose three facts are asked for as JSON."""
    person, age, job = rng.choice(PEOPLE), rng.randrange(18, 90), rng.choice(JOBS)
    sentence = rng.choice([
        f"{person} is {age} years old and works as a {job}.",
        f"{person}, {age}, is a {job}.",
        f"A {job} named {person} is {age} years old.",
    ])
    answer = json.dumps({"name": person, "age": age, "job": job})
    return Exchange(f"Extract name, age and job as JSON: {sentence}", answer)


def greeting(rng: Random) -> Exchange:
    hello = f"Hello! I am {NAME}. How can I help?"
    skills = "I know capitals, elements, small sums, opposites and plurals, I fill in JSON and I call tools."
    return rng.choice([
        Exchange("Hello!", hello),
        Exchange("Hi", hello),
        Exchange("Who are you?", f"I am {NAME}, a tiny model."),
        Exchange("What is your name?", f"My name is {NAME}."),
        Exchange("Thank you!", "You are welcome."),
        Exchange("Goodbye", "Goodbye!"),
        Exchange("What can you do?", skills),
    ])


def repeat(rng: Random) -> Exchange:
    """One to five words that come back as they are."""
    words = " ".join(rng.choice(REPEATABLE) for _ in range(rng.randrange(1, 6)))
    return Exchange(rng.choice([f"Repeat: {words}", f"Say: {words}"]), words)
