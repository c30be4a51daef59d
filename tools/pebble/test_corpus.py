"""Holds the corpus to what Pebble was trained on. Run: python -m unittest discover tools/pebble

Needs the standard library alone; the comparison with the Jinja template is skipped where jinja2 is not installed.
"""

import hashlib
import json
import sys
import unittest
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import facts
import questions
from conversations import SINGLE_TURNS, SYSTEM, Conversation, corpus
from rendering import TEMPLATE, render
from toolbox import TOOLS, call_text

try:
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError:
    ImmutableSandboxedEnvironment = None

WEIGHTS = Path(__file__).resolve().parents[2] / "modelspecs/pebble/weights"
CALL_START, CALL_END = "<tool_call>", "</tool_call>"


def drawn(seed: int, count: int) -> list[Conversation]:
    return list(islice(corpus(Random(seed)), count))


def rendered(one: Conversation) -> str:
    return "".join(piece.text for piece in render(one))


def chat_messages(one: Conversation, structured: bool) -> list[dict[str, Any]]:
    """What a client would send; calls as `tool_calls` where `structured`, else as the text the model wrote."""
    messages: list[dict[str, Any]] = [] if one.system == SYSTEM else [{"role": "system", "content": one.system}]
    for role, text in one.turns:
        if structured and text.startswith(CALL_START):
            called = json.loads(text.removeprefix(CALL_START).removesuffix(CALL_END))
            messages.append({"role": role, "content": None, "tool_calls": [{"type": "function", "function": called}]})
        else:
            messages.append({"role": role, "content": text})
    return messages


class Corpus(unittest.TestCase):
    def test_a_seed_names_the_conversations_that_pebble_was_trained_on(self) -> None:
        digest = hashlib.sha256()
        for seed in (1, 7, 99):
            for one in drawn(seed, 1000):
                for text, learned in render(one):
                    digest.update(f"{int(learned)}{text}\0".encode())
        # Computed with the script that the shipped weights were trained with.
        expected = "363e4ceff2468b3ca53233565cb9821d4e4f6a50549a0adc3c42cb10b449294b"
        self.assertEqual(digest.hexdigest(), expected)

    def test_every_conversation_asks_and_ends_with_the_assistant(self) -> None:
        for one in drawn(3, 2000):
            self.assertEqual(one.turns[0].role, "user")
            self.assertEqual(one.turns[-1].role, "assistant")
            self.assertTrue(all(turn.text for turn in one.turns))

    def test_just_the_answers_are_learned(self) -> None:
        for one in drawn(4, 500):
            learned = [piece.text for piece in render(one) if piece.learned]
            self.assertEqual(learned, [f"{text}<|im_end|>" for role, text in one.turns if role == "assistant"])

    def test_calls_name_a_tool_that_is_shown_and_give_what_it_requires(self) -> None:
        called: Counter[str] = Counter()
        for one in drawn(5, 3000):
            for turn in one.turns:
                if not turn.text.startswith(CALL_START):
                    continue
                call = json.loads(turn.text.removeprefix(CALL_START).removesuffix(CALL_END))
                self.assertEqual(call_text(call["name"], call["arguments"]), turn.text)
                shown = {tool["function"]["name"]: tool["function"]["parameters"] for tool in one.tools or []}
                self.assertEqual(list(call["arguments"]), shown[call["name"]]["required"])
                called[call["name"]] += 1
        self.assertEqual(set(called), {tool["function"]["name"] for tool in TOOLS})

    def test_sums_are_right_and_never_negative(self) -> None:
        rng = Random(6)
        for _ in range(2000):
            sum_, value = questions.arithmetic(rng).answer.split(" = ")
            a, sign, b = sum_.split()
            self.assertEqual(int(value), {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign])
            self.assertGreaterEqual(int(value), 0)

    def test_kinds_add_up_to_one(self) -> None:
        self.assertAlmostEqual(sum(SINGLE_TURNS.values()), 1.0)
        self.assertEqual(len(questions.FACTS), 12)


class Facts(unittest.TestCase):
    def test_tables_have_their_columns_and_no_key_twice(self) -> None:
        for name, columns in [("capitals", 2), ("elements", 3), ("opposites", 2), ("plurals", 2), ("commands", 2)]:
            rows = facts.table(name)
            self.assertTrue(all(len(row) == columns and all(row) for row in rows), name)
            self.assertEqual(len({row[0] for row in rows}), len(rows), name)

    def test_elements_are_in_the_order_of_their_numbers(self) -> None:
        numbers = [int(number) for number, _, _ in facts.ELEMENTS]
        self.assertEqual(numbers, sorted(numbers))
        self.assertEqual(numbers[:36], list(range(1, 37)))


class Template(unittest.TestCase):
    def test_the_template_travels_with_the_weights(self) -> None:
        configuration = json.loads((WEIGHTS / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.assertEqual(configuration["chat_template"], TEMPLATE)

    def test_its_system_prompt_is_that_of_the_corpus(self) -> None:
        self.assertEqual(TEMPLATE.count(f"'{SYSTEM}'"), 1)

    @unittest.skipIf(ImmutableSandboxedEnvironment is None, "jinja2 is not installed")
    def test_render_writes_what_the_template_writes(self) -> None:
        # As transformers sets Jinja up: its own `tojson` escapes for HTML and sorts keys.
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        template = environment.from_string(TEMPLATE)
        for one in drawn(8, 500):
            for structured in (False, True):
                text = template.render(
                    messages=chat_messages(one, structured), tools=one.tools, add_generation_prompt=False)
                self.assertEqual(text, rendered(one))
            asked = template.render(
                messages=chat_messages(one, False)[:-1], tools=one.tools, add_generation_prompt=True)
            answer = one.turns[-1].text
            self.assertEqual(asked + answer + "<|im_end|>\n", rendered(one))


if __name__ == "__main__":
    unittest.main()
