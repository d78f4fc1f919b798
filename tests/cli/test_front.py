"""`decode --front` in several quantities, against all networks of a small space."""

from __future__ import annotations

import csv
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nni_proxyless.cli.entry import main
from nni_proxyless.decoding.checkpoint import CHECKPOINT_KEY, CHECKPOINT_SCHEMA
from nni_proxyless.latency import LatencyTable
from nni_proxyless.network.architecture import Architecture
from nni_proxyless.network.footprint import network_peak_bytes
from nni_proxyless.network.space_spec import SpaceSpec
from tests.helpers import REPOSITORY, table_of

RECORDED = REPOSITORY / "tests" / "recorded" / "interrupted_0_1"


def decode(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["decode", *map(str, words)])
    streams = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, streams.out, streams.err


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def search(tmp_path: Path, tiny_spec: SpaceSpec) -> Path:
    """Checkpoint of a search in the space of 80 networks, with tables of two devices beside it."""
    generator = torch.Generator().manual_seed(1)
    alpha = {layer.label: torch.randn(len(layer.names), generator=generator) for layer in tiny_spec.layers}
    state = {
        "schema": CHECKPOINT_SCHEMA,
        "space": tiny_spec.to_dict(),
        "alpha": alpha,
        "candidates": {layer.label: layer.names for layer in tiny_spec.layers},
    }
    torch.save({CHECKPOINT_KEY: state}, tmp_path / "checkpoint.ckpt")
    table = table_of(tiny_spec)
    table.save(tmp_path / "phone.yml")
    content = table.to_dict()
    for row in content["operators"]:
        row["latency_ms"] = 1.0 / row["latency_ms"] if row.get("kernel", 1) > 3 else row["latency_ms"]
    LatencyTable.from_dict(content).save(tmp_path / "board.yml")
    return tmp_path


def all_networks(folder: Path, spec: SpaceSpec) -> list[dict[str, Any]]:
    """All networks of the space with their quantities, likelihood as a cost; computed network by network."""
    alpha = torch.load(folder / "checkpoint.ckpt", weights_only=True)[CHECKPOINT_KEY]["alpha"]
    tables = {name: LatencyTable.load(folder / f"{name}.yml").costs(spec) for name in ("phone", "board")}
    found = []
    for picks in itertools.product(*(layer.names for layer in spec.layers)):
        choices = dict(zip([layer.label for layer in spec.layers], picks, strict=True))
        network = Architecture.of_space(spec, choices)
        logs = [
            alpha[k].double().softmax(0)[la.names.index(choices[k])].log()
            for k, la in zip(alpha, spec.layers, strict=True)
        ]
        found.append(
            {
                "choices": choices,
                "log_likelihood": float(sum(logs)),
                "phone": tables["phone"].of(choices),
                "board": tables["board"].of(choices),
                "parameters": network.parameters,
                "peak_memory": network_peak_bytes(network.operators()),
            }
        )
    return found


def front_of(networks: list[dict[str, Any]], columns: list[str]) -> list[tuple[float, ...]]:
    points = {tuple(round(n[c] * (-1 if c == "log_likelihood" else 1), 9) for c in columns) for n in networks}
    return sorted(
        point
        for point in points
        if not any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in points)
    )


@pytest.mark.parametrize(
    ("names", "budget"),
    [
        (["likelihood", "phone", "peak_memory"], None),
        (["phone", "board"], None),
        (["likelihood", "parameters"], None),
        (["likelihood", "phone"], "parameters<=60%"),
        (["board", "likelihood", "phone"], "phone<=80%"),
    ],
)
def test_the_front_is_that_of_all_networks(
    names: list[str], budget: str | None, search: Path, tiny_spec: SpaceSpec, capsys: pytest.CaptureFixture[str]
) -> None:
    out = search / "out"
    words = ["--budget", budget] if budget else []
    code, told, err = decode(
        capsys, search, "--table", search / "phone.yml", search / "board.yml", "--front", *names, "--out", out, *words
    )
    assert code == 0, err
    networks = all_networks(search, tiny_spec)
    if budget:
        name, _, percent = budget.partition("<=")
        limit = max(n[name] for n in networks) * float(percent.rstrip("%")) / 100
        networks = [n for n in networks if n[name] <= limit]
    columns = [name.replace("likelihood", "log_likelihood") for name in names]
    expected = front_of(networks, columns)
    rows = read_csv(out / "front.csv")
    assert list(rows[0]) == ["file", *columns, *(layer.label for layer in tiny_spec.layers)]
    found = [tuple(round(float(r[c]) * (-1 if c == "log_likelihood" else 1), 9) for c in columns) for r in rows]
    assert found == [pytest.approx(point) for point in expected]
    assert f"{len(expected)} networks on the front of {', '.join(names)}" in told
    assert (out / "front.png").read_bytes().startswith(b"\x89PNG")
    assert ("cheapest ones" in told) == ("likelihood" not in names)
    # One file for each network, with the choices of its row.
    assert {path.name for path in out.glob("*.json")} == {row["file"] for row in rows}
    for row in rows:
        written = Architecture.load(out / row["file"])
        assert dict(written.choices) == {layer.label: row[layer.label] for layer in tiny_spec.layers}
        assert written.predicted_latency_ms == next(n["phone"] for n in networks if n["choices"] == written.choices)
        if budget:
            assert written.budgets[name]["value"] <= limit


def test_fewer_files_than_networks(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (search, "--table", search / "phone.yml", "--front", "likelihood", "phone", "--out", search / "out")
    code, told, _ = decode(capsys, *words, "--points", 3)
    assert code == 0
    assert "architecture files: 3 of them" in told
    rows = read_csv(search / "out" / "front.csv")
    named = [row["file"] for row in rows if row["file"]]
    assert sorted(path.name for path in (search / "out").glob("*.json")) == named
    assert len(named) == 3 < len(rows)
    assert rows[0]["file"]
    assert rows[-1]["file"]


def test_a_front_replaces_the_files_of_an_earlier_one(search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (search, "--table", search / "phone.yml", "--front", "likelihood", "phone", "--out", search / "out")
    assert decode(capsys, *words)[0] == 0
    first = {row["file"] for row in read_csv(search / "out" / "front.csv")}
    (search / "out" / "network_of_mine.json").write_text("{}")
    assert decode(capsys, *words, "--points", 2)[0] == 0
    left = {row["file"] for row in read_csv(search / "out" / "front.csv") if row["file"]}
    assert len(left) == 2 < len(first)
    assert {path.name for path in (search / "out").glob("*.json")} == {*left, "network_of_mine.json"}


def test_a_front_in_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every network of it was on the front in likelihood, and none of those that were evaluated beats it."""
    table = RECORDED / "latency_table.yml"
    common = (RECORDED, "--table", table)
    names = ("cpu_torch", "peak_memory")  # the target of the search, whose table it is
    files = ("latency_table", "peak_memory")
    code, _, err = decode(capsys, *common, "--front", "likelihood", *files, "--out", tmp_path / "likely", "--points", 6)
    assert code == 0, err
    likely = read_csv(tmp_path / "likely" / "front.csv")
    code, told, err = decode(
        capsys, *common, "--front", "accuracy", *names, "--finalists", 6, "--out", tmp_path / "accurate"
    )
    assert code == 0, err
    rows = read_csv(tmp_path / "accurate" / "front.csv")
    assert f"{len(rows)} networks on the front of accuracy" in told
    layers = [column for column in likely[0] if column.startswith("stage")]
    evaluated = [[row[label] for label in layers] for row in likely if row["file"]]
    assert len(evaluated) == 6
    assert 1 <= len(rows) <= 6
    for row in rows:
        assert [row[label] for label in layers] in evaluated
        assert 0 <= float(row["accuracy"]) <= 1
        written = Architecture.load(tmp_path / "accurate" / row["file"])
        assert written.metrics["default"] == float(row["held_out_accuracy"])
        assert not math.isnan(float(row["log_likelihood"]))
        for other in rows:
            better = [float(other["accuracy"]) >= float(row["accuracy"])]
            better += [float(other[name]) <= float(row[name]) for name in names]
            assert other is row or not all(better)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--front", "likelihood", "phone"], "--out"),
        (["--front", "likelihood", "fone", "--out", "o"], "phone"),
        (["--front", "likelihood", "phone", "board", "parameters", "--out", "o"], "two or three quantities, got 4"),
        (["--front", "phone", "phone", "--out", "o"], "twice"),
        (["--front", "likelihood", "accuracy", "--out", "o"], "at least one latency"),
        (["--front", "accuracy", "phone", "--out", "o"], "--finalists"),
        (["--front", "likelihood", "phone", "--out", "o", "--finalists", "4"], "needs accuracy"),
        (["--front", "likelihood", "phone", "--out", "o", "--budget-ms", "4"], "--budget 'phone<=40'"),
        (["--front", "likelihood", "phone", "--out", "o", "--budget", "phone<=0.001"], "smallest value of any network"),
        (["--front", "f.csv", "--points", "4"], "--points needs --front"),
        (["--front", "."], "--front must be the path of a file"),
        (["--front", "a.csv", "--front", "b.csv"], "given twice"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], told: str, search: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(search)
    code, out, err = decode(capsys, search, "--table", "phone.yml", "board.yml", *words)
    assert code == 2
    assert told in err
    assert (out, err.count("\n")) == ("", 1)
    assert not (search / "o").exists()
