"""Each bad input ends with exit code 2 and one line that helps, and leaves everything as it was.

The inputs are the tables in `tests/system/bad_input`. Each is a mistake that a user could make, or a file that somebody
could have damaged or forged.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from .bad_input import CASES
from .bad_input.case import Case, put
from .bad_input.place import Place
from .early import EarlyProcess


@pytest.fixture(autouse=True)
def _own_folders() -> None:
    """Replaces the fixture for all tests, which makes a folder for each of them. `Place` sets the same variables."""


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("bad") / "inputs")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_bad_input_ends_with_one_line(case: Case, place: Place) -> None:
    assert place.problems(case) == []


# What only torch can tell, because it is in images, weights, a checkpoint or the hardware, and what only NNI can tell.
_LATE = re.compile(
    r"(?:search|retrain)\b.*(?:batch_size|_fraction=0\.000|accelerator=gpu|precision=16-mixed|strategy_args)"
    r"|(?:search|retrain)\b.*(?:data=arrays|imagefolder|cifar10|space=colour|data_dir)"
    r"|(?:search|retrain) .*(?:data=\w+:|mean=|std=)"
    r"|search .*cuda"
    r"|(?:search|retrain) .*--overwrite|retrain .*--inherit (?:bad\.pt|found/)"
    r"|decode (?:found|bad\.ckpt)|export .*--weights found/"
    r"|latency predict .*distributions|latency predict .*\.json"
    r"|run |trial |register"
)


def test_most_bad_inputs_are_refused_before_torch_and_nni_are_imported(place: Place) -> None:
    """They take seconds to import. Every third case is tried."""
    process = EarlyProcess()
    late = {}
    for case in [case for case in CASES[::3] if case.words[:1] != ["nnictl"]]:
        for name, content in case.files.items():
            put(place.work / name, content)
        code, told = process.run(case.words, str(place.work), {**place.environment, **case.environment})
        place.tidy(case)
        if code != 2:
            late[f"{case.command} {case.files}"] = told.strip().splitlines()[-1]
    process.close()
    assert {words: told for words, told in late.items() if not _LATE.match(words)} == {}
    assert len(late) < len(CASES) / 3 / 6


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
