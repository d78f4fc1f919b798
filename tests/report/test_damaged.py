"""A damaged result file costs a report only what it holds: the page says what could not be read, and shows the rest."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure

from nni_proxyless.errors import InputError, RunError
from nni_proxyless.report import find_results, make_report, page
from nni_proxyless.report.checks import checked_history, checked_probabilities, clean, latency_of, number_of
from nni_proxyless.report.course_figures import heat_map, progress
from nni_proxyless.report.drawing import to_png
from nni_proxyless.report.figures import architectures
from nni_proxyless.report.render import Drawn
from tests.helpers import REPOSITORY, read_csv

RECORDED = REPOSITORY / "tests" / "recorded" / "quickstart"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    return Path(shutil.copytree(RECORDED, tmp_path / "quickstart"))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the drawing, which takes seconds."""
    monkeypatch.setattr(page, "draw", lambda _: Drawn([], "", b""))


def put(*keys: Any, value: Any) -> Callable[[Path], None]:
    """Return a function that changes one value of a JSON or YAML file."""

    def change(path: Path) -> None:
        load, dump = (json.loads, json.dumps) if path.suffix == ".json" else (yaml.safe_load, yaml.safe_dump)
        content = place = load(path.read_text())
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        path.write_text(dump(content))

    return change


def cell(row: int, column: str, value: str) -> Callable[[Path], None]:
    """Return a function that changes one cell of a CSV file; row 0 is the header."""

    def change(path: Path) -> None:
        lines = [line.split(",") for line in path.read_text().splitlines()]
        lines[row][lines[0].index(column)] = value
        path.write_text("".join(",".join(line) + "\n" for line in lines))

    return change


def raw(content: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.write_bytes(content)

    return change


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe_instead(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


# File of the search for cpu_torch, what happens to it, what the page says, and whether the search is still shown.
DAMAGE: list[tuple[str, Callable[[Path], None], str, bool]] = [
    ("history.csv", cell(3, "default", "x"), "row 3: &#39;default&#39; must be a number, got &#39;x&#39;", True),
    ("history.csv", cell(3, "entropy", "nan"), "row 3: &#39;entropy&#39; must be a number", True),
    ("history.csv", cell(2, "epoch", "1.5"), "row 2: &#39;epoch&#39; must be a number", True),
    ("history.csv", cell(2, "latency_ms", "1e308"), "row 2: &#39;latency_ms&#39; must be a number", True),
    ("history.csv", cell(0, "default", "other"), "row 1: &#39;default&#39; must be a number, got None (and", False),
    ("history.csv", raw(b"epoch,default\n\xff\xfe\n"), "it is not text in UTF-8", False),
    ("history.csv", cell(0, "default", "epoch"), "different column names", False),
    ("history.csv", folder_instead, "Is a directory", False),
    ("history.csv", pipe_instead, "it is a pipe", False),
    ("history.csv", cut, "cells, but there are 11 columns", False),
    ("probabilities.csv", cell(1, "probability", "2"), "row 1 must have a whole epoch and a probability", True),
    ("probabilities.csv", cell(5, "layer", ""), "row 5 must name a layer and a candidate", True),
    ("probabilities.csv", cell(5, "epoch", "3"), "lacks epochs, or has some twice", True),
    ("probabilities.csv", raw(b"\x00" * 99), "not read", True),
    ("cost.json", put("seconds", value="long"), "&#39;seconds&#39; must be a number, got &#39;long&#39;", True),
    ("cost.json", put("machine", value=[1]), "&#39;machine&#39; must be a mapping", True),
    ("cost.json", raw(b"[]"), "must be a mapping of keys to values", True),
    ("recipe.yml", put("target", value="../x"), "&#39;target&#39; must be a name", False),
    ("recipe.yml", put("targets", value=[1]), "&#39;targets&#39; must be a mapping, got [1]", False),
    ("recipe.yml", put("strategy", value={}), "&#39;strategy&#39; must be a name, got {}", False),
    ("recipe.yml", raw(b"target: [" * 5000), "not read", False),
    ("architecture.json", put("choices", "stage1_layer1", value=[]), "not read", True),
    ("architecture.json", put("measured_latency_ms", value=-1), "not read", True),
    ("architecture.json", cut, "cannot be parsed", True),
    ("latency_table.yml", put("operators", value=[{}]), "not read", True),
    ("latency_table.yml", cut, "not read", True),
    ("retrained/model_card.json", put("results", "validation", value=None), "must be an accuracy, got None", True),
    ("retrained/model_card.json", put("cost", value=5), "&#39;cost&#39; must be a mapping, got 5", True),
    ("retrained/model_card.json", put("cost", "epochs", value={}), "&#39;epochs&#39; must be a number", True),
    ("retrained/exported/export.json", put("formats", value=7), "&#39;formats&#39; must be a list, got 7", True),
    ("retrained/exported/export.json", put("formats", 0, value=7), "format 1 must have a &#39;file&#39;, got 7", True),
    ("retrained/exported/export.json", put("formats", 0, "measured_latency_ms", value=0), "a positive number", True),
]  # fmt: skip


@pytest.mark.parametrize(("file", "damage", "said", "kept"), DAMAGE)
@pytest.mark.usefixtures("undrawn")
def test_the_page_says_what_it_could_not_read(
    file: str, damage: Callable[[Path], None], said: str, kept: bool, recorded: Path, tmp_path: Path
) -> None:
    damage(recorded / "cpu_torch" / file)
    results = find_results(str(recorded))
    page = make_report(results, tmp_path / "report", measure=False).read_text()
    assert said in page
    assert [search.name for search in results.searches] == ["cpu_onnxruntime"] + ["cpu_torch"] * kept
    assert "not read: " in page
    assert len(results.problems) == 1
    assert file.split("/")[-1] in results.problems[0]


@pytest.mark.usefixtures("undrawn")
def test_a_table_of_another_space_costs_only_the_latencies_of_blocks(recorded: Path, tmp_path: Path) -> None:
    path = recorded / "cpu_torch" / "latency_table.yml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "operators": content["operators"][:3]}))
    make_report(find_results(str(recorded)), tmp_path / "report", measure=False)
    drawn = [row for row in read_csv(tmp_path / "report" / "architectures.csv") if row["target"] == "cpu_torch"]
    assert len(drawn) > 5
    assert {row["latency_ms"] for row in drawn} == {""}


@pytest.mark.usefixtures("undrawn")
def test_many_damaged_files_are_counted(recorded: Path, tmp_path: Path) -> None:
    for number in range(60):
        (recorded / f"n{number}").mkdir()
        (recorded / f"n{number}" / "export.json").write_text("{")
    results = find_results(str(recorded))
    assert len(results.problems) == 51
    assert results.problems[-1] == "10 more files or parts of files"


@pytest.mark.parametrize("name", ["$x^{$", "_$", "\u6f22\u5b57 $a_b$", "\\$", "<b>$$</b>"])
def test_names_are_drawn_as_they_are(name: str, recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with dollar signs is no formula, one with an underscore is in the legend, and no character is an error."""
    drawn: list[str] = []

    def keep(figure: Any, *_: Any, **__: Any) -> None:
        for axes in figure.axes:
            drawn.extend([axes.get_title(), axes.get_title(loc="left")])
            drawn.extend(label.get_text() for label in axes.get_yticklabels())
            legend = axes.get_legend()
            drawn.extend([] if legend is None else [text.get_text() for text in legend.get_texts()])
        figure.set_size_inches(3, 3)
        real(figure, *_, **__)

    real = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", keep)
    search = find_results(str(recorded)).searches[0]
    rows = [{**row, "layer": name, "candidate": name} for row in search.probabilities[:1]]
    odd = replace(search, name=name, recipe={**search.recipe, "target": name, "strategy": name}, probabilities=rows)
    shown = name.replace("$", r"\$")
    blocks = [{"kind": "conv", "position": 0, "kernel": 3, "expansion": 1, "width": 1, "size": 1, "stage": 0}]
    for picture in (
        heat_map(odd, (1, 2), "name"),
        progress(replace(find_results(str(recorded)), searches=[odd])),
        architectures([(name, blocks)]),
    ):
        assert to_png(picture).startswith(b"\x89PNG")
    assert sum(text.strip() == shown for text in drawn) >= 4


@pytest.mark.usefixtures("undrawn")
def test_a_full_disk_is_a_failed_run(recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nni_proxyless.report.page.write_csv", full)
    with pytest.raises(RunError, match=r"cannot write the report into .*/report: No space left on device$"):
        make_report(find_results(str(recorded)), tmp_path / "report", measure=False)


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_drawn(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    results = find_results(str(recorded))
    with pytest.raises(InputError, match=r"cannot write the report into .*/file: .*; choose another folder with --out"):
        make_report(results, tmp_path / "file", measure=True)


def test_numbers_that_can_be_drawn() -> None:
    good = [number_of(value) for value in (1, 0.5, "2e3", -1e9, 0)]
    assert good == [1.0, 0.5, 2000.0, -1e9, 0.0]
    bad = [None, True, [], {}, "", "x", "nan", float("inf"), 1e308, 10**400, "9" * 5000]
    assert [number_of(value) for value in bad] == [None] * len(bad)
    assert [latency_of(value) for value in (0, -1, "0.0", 2)] == [None, None, None, 2.0]


def test_checks_of_rows() -> None:
    row = {"epoch": "1", "default": "0.5", "latency_ms": "1", "expected_latency_ms": "1", "entropy": "0"}
    assert checked_history([row, {**row, "expected_over_budget": ""}]) == (
        [row, {**row, "expected_over_budget": ""}],
        None,
    )
    kept, fault = checked_history([{**row, "expected_over_budget": "x"}, row, {}])
    assert kept == [row]
    assert fault == "row 1: 'expected_over_budget' must be a number, got 'x' (and 1 more row)"
    one = {"epoch": "1", "layer": "a", "candidate": "b", "probability": "1"}
    assert checked_probabilities([one, {**one, "epoch": "2"}])[1] is None
    assert "lacks epochs" in str(checked_probabilities([one, {**one, "epoch": "2", "candidate": "c"}])[1])
    assert "lacks epochs" in str(checked_probabilities([one, one])[1])
    assert clean("a\x00\ud800b") == "a\ufffd\ufffdb"
