"""What messages say about a path that does not exist, and about a folder that holds several results."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from nni_proxyless.cli.entry import main
from nni_proxyless.files.nearby import did_you_mean, folders_with, nearest, try_folders_with


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("quickstart/phone", "quickstart/server", "quickstart/phone/retrained", "other"):
        (tmp_path / "results" / name).mkdir(parents=True)
    for name in ("phone", "server", "phone/retrained"):
        for file in ("architecture.json", "checkpoint.ckpt", "weights.pt"):
            (tmp_path / "results" / "quickstart" / name / file).write_text("made up")
    (tmp_path / "results" / ".phome").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("resluts", "results"),
        ("result/quickstart/phone", "results/quickstart/phone"),
        ("results/quickstrat/sever", "results/quickstart/server"),
        ("results/quickstart/phone/architecture.jsn", "results/quickstart/phone/architecture.json"),
        ("results/quickstart/watch", None),  # nothing is like it
        ("result/quickstart/watch", "results/quickstart"),
        ("results", None),  # it exists
        ("results/phome", None),  # hidden folders are not named
        ("", None),
    ],
)
def test_the_nearest_path(text: str, expected: str | None, place: Path) -> None:
    assert nearest(text) == (None if expected is None else Path(expected))
    assert nearest(place / text) == (None if expected is None else place / expected)
    assert did_you_mean(text) == ("" if expected is None else f"; did you mean {expected}?")


def test_folders_that_have_a_file(place: Path) -> None:
    found = folders_with(Path("results"), "weights.pt")
    names = ("phone", "server", "phone/retrained")
    assert found == [Path("results", "quickstart", name) for name in names]  # the nearest first
    told = try_folders_with(Path("results"), "weights.pt", "do something else")
    assert told == "give one of " + ", ".join(f"results/quickstart/{name}" for name in names)
    assert try_folders_with(Path("results/other"), "weights.pt", "do something else") == "do something else"
    for number in range(9):
        (place / "many" / str(number)).mkdir(parents=True)
        (place / "many" / str(number) / "weights.pt").write_text("made up")
    assert try_folders_with(Path("many"), "weights.pt", "").endswith(", many/5 and 3 more")


_WORKING = "results/quickstart/phone, results/quickstart/server"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("retrain results/quickstart", f"has no architecture.json; give one of {_WORKING}"),
        ("export results/quickstart", f"has no architecture.json; give one of {_WORKING}"),
        ("show results/quickstart", f"has no architecture.json; give one of {_WORKING}"),
        ("show mobilenet_v2 --against results/quickstart", f"has no architecture.json; give one of {_WORKING}"),
        ("decode results/quickstart", f"no checkpoint results/quickstart/checkpoint.ckpt; give one of {_WORKING}"),
        (
            "retrain results/quickstart/phon",
            "no file or folder results/quickstart/phon; did you mean results/quickstart",
        ),
        ("export result/quickstart/phone", "no file or folder result/quickstart/phone; did you mean results/quick"),
        ("show nowhere/at/all", "no file or folder nowhere/at/all; give an architecture file or its folder"),
        ("show resluts", "no network, file or folder resluts; did you mean results?"),
        ("show proxyless_mobil", "unknown network 'proxyless_mobil'; did you mean 'proxyless_mobile'?"),
        ("show xyz", "unknown network 'xyz'"),
        (
            "decode results/quickstart/phon",
            "no checkpoint results/quickstart/phon; did you mean results/quickstart/phone?",
        ),
        ("report results/quickstar", "did you mean results/quickstart?"),
        ("search result/recipe.yml", "no file or folder result/recipe.yml; did you mean results?"),
        ("search results/quickstart", "results/quickstart is a folder; give the path of a recipe.yml or one of"),
        ("init --data reslts --budget-ms 5", "nor an .npz file; did you mean results?"),
        ("latency show results/quickstart/phone/weight.pt", "did you mean results/quickstart/phone/weights.pt?"),
    ],
)
def test_messages_name_what_would_work(command: str, message: str, place: Path, capsys: Any) -> None:
    with pytest.raises(SystemExit) as ended:
        main(shlex.split(command))
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in told
    assert len(told.splitlines()) == 1
