"""Each bad input ends with exit code 2 and one line that helps, and leaves everything as it was.

The inputs are the tables in `tests/system/bad_input`. Each is a mistake that a user could make, or a file that somebody
could have damaged or forged.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from .bad_input import CASES
from .bad_input.case import Case
from .bad_input.place import Place


@pytest.fixture(autouse=True)
def _own_folders() -> None:
    """Replaces the fixture for all tests, which makes a folder for each of them. `Place` sets the same variables."""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("bad") / "inputs")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_input_ends_with_one_line(case: Case, place: Place) -> None:
    assert place.problems(case) == []


def test_there_are_enough_different_cases() -> None:
    assert len(CASES) >= 600
    commands = Counter(" ".join(case.words[: 2 if case.words[:1] == ["latency"] else 1]) for case in CASES)
    assert len({(case.command, repr(case.files), repr(case.environment)) for case in CASES}) == len(CASES)
    named = "run nnictl trial search decode retrain export show report register schema doctor"
    tables = "measure list validate fit suggest predict show import compare"
    assert {*named.split(), *(f"latency {name}" for name in tables.split())} <= set(commands)


def test_a_command_that_ends_otherwise_is_noticed(tmp_path: Path) -> None:
    """The check itself: a good input, a message that says something else, and a command that writes."""
    place = Place(tmp_path / "inputs")
    good = place.problems(Case("show architecture.json", "nothing", "nothing"))
    assert good[0] == "exit code 0"
    other = place.problems(Case("show nowhere.json", "somewhere.json", "buy milk"))
    assert other[:2] == ["does not name what was received: 'somewhere.json'", "does not say: 'buy milk'"]
    words = "latency suggest --space space.yml --networks 2 --out new.csv"
    assert any("written or changed: work/new.csv" in text for text in place.problems(Case(words, "", "")))
    assert not (place.work / "new.csv").exists()
