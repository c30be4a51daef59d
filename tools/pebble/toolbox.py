"""The five tools that Pebble is shown, and for each a task that calls for it. Called by `conversations`."""

import json
from random import Random
from typing import Any, NamedTuple

from facts import CITIES, COUNTRIES, PEOPLE

Tool = dict[str, Any]
"""A tool in the shape of OpenAI's chat completions."""


def tool(name: str, description: str, **types: str) -> Tool:
    """A tool whose parameters, all required, have these JSON types."""
    parameters = {
        "type": "object",
        "properties": {key: {"type": value} for key, value in types.items()},
        "required": list(types),
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    tool("get_weather", "Weather in a city", city="string"),
    tool("get_time", "Local time in a city", city="string"),
    tool("set_timer", "Start a timer", minutes="integer"),
    tool("get_population", "Population of a country", country="string"),
    tool("send_mail", "Send a mail to a person", to="string"),
]


class Task(NamedTuple):
    """What the user asks, the arguments to call with, what the tool gives back and what is said of that."""

    question: str
    arguments: dict[str, Any]
    result: dict[str, Any]
    answer: str


def task(rng: Random, name: str) -> Task:
    """A task for the tool of this name. Draws the same numbers whichever tool it is."""
    city, country = rng.choice(CITIES), rng.choice(COUNTRIES)
    number = rng.randrange(1, 61)
    person = rng.choice(PEOPLE)
    weather = rng.choice([f"What is the weather in {city}?", f"How is the weather in {city}?"])
    degrees = number - 20
    time = f"{number % 24:02d}:{number % 60:02d}"
    return {
        "get_weather": Task(weather, {"city": city}, {"degrees": degrees}, f"It is {degrees} degrees in {city}."),
        "get_time": Task(f"What time is it in {city}?", {"city": city}, {"time": time}, f"It is {time} in {city}."),
        "set_timer": Task(
            f"Set a timer for {number} minutes.",
            {"minutes": number},
            {"done": True},
            f"The timer runs for {number} minutes.",
        ),
        "get_population": Task(
            f"How many people live in {country}?",
            {"country": country},
            {"millions": number},
            f"{number} million people live in {country}.",
        ),
        "send_mail": Task(
            f"Send a mail to {person}.",
            {"to": person},
            {"done": True},
            f"The mail to {person} is sent.",
        ),
    }[name]


def call_text(name: str, arguments: dict[str, Any]) -> str:
    """A call as the model writes it, and as the template writes a message's `tool_calls`."""
    return "<tool_call>" + json.dumps({"name": name, "arguments": arguments}) + "</tool_call>"
