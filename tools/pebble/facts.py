"""What Pebble is taught to know: the tables of `data/` and the short word lists. Called by `questions` and
`conversations`.

The order of rows and words is part of the corpus: a draw picks by position, so a row inserted in the middle changes
every conversation that follows.
"""

import csv
from pathlib import Path

DATA = Path(__file__).parent / "data"


def table(name: str) -> list[tuple[str, ...]]:
    """The rows of `data/NAME.tsv` below its heading, in the order of the file."""
    with (DATA / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        next(rows)
        return [tuple(row) for row in rows]


CAPITALS = table("capitals")
"""(country, capital)"""
COUNTRIES = [country for country, _ in CAPITALS]
CITIES = [capital for _, capital in CAPITALS]
ELEMENTS = table("elements")
"""(atomic number, element, symbol): the first 36 and eight more."""
OPPOSITES = table("opposites")
"""(word, opposite)"""
PLURALS = table("plurals")
"""(singular, plural)"""
COMMANDS = table("commands")
"""(what somebody wants, the mlxctl command that does it)"""

PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
ORDINALS = "first second third fourth fifth sixth seventh eighth".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
PEOPLE = (
    "Anna Ben Carla David Elena Felix Grace Hugo Ines Jonas Kira Leo Mina Noah Olga "
    "Paul Rosa Sam Tara Uma Victor Wendy Yara Zoe Omar Lin Ravi Aiko Juan Fatima"
).split()
JOBS = "baker nurse pilot teacher farmer singer lawyer painter driver chemist doctor plumber".split()
REPEATABLE = PEOPLE + JOBS + [word for pair in OPPOSITES for word in pair]
"""The words that Pebble is asked to repeat."""
