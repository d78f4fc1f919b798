"""The commands `latency fit`, `suggest` and `predict --std` on a device whose latency is a combination of counts."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nni_proxyless import LatencyTable
from nni_proxyless.cli.entry import main
from nni_proxyless.latency.counts import counts_of_space
from nni_proxyless.latency.entries import Choice
from nni_proxyless.network.space_spec import SpaceSpec
from tests.cli.test_cli import fails
from tests.helpers import table_of


def says(arguments: list[str], capsys: Any) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["latency", *arguments])
    assert exit_.value.code == 0
    return str(capsys.readouterr().out)


@pytest.fixture
def space(tiny_spec: SpaceSpec, tmp_path: Path) -> str:
    from nni_proxyless.files.writing import write_yaml

    return str(write_yaml(tmp_path / "tiny.yml", tiny_spec.to_dict()))


def latency(spec: SpaceSpec, network: dict[str, str]) -> float:
    """Latency in ms of a device that needs time for each multiply-add and each convolution."""
    counts = counts_of_space(spec)
    rows = [counts.values[Choice(label, name)] for label, name in network.items()]
    sums = dict(zip(counts.columns, np.sum([counts.fixed, *rows], axis=0).tolist(), strict=True))
    return 1e-4 * sums["pointwise_macs"] + 0.2 * sums["convolutions"]


def timed(spec: SpaceSpec, path: Path) -> Path:
    """Add the latencies to the networks of a file."""
    with path.open() as file:
        rows = list(csv.DictReader(file))
    with (path.with_suffix(".timed.csv")).open("w", newline="") as file:
        writer = csv.DictWriter(file, [*rows[0], "latency_ms"])
        writer.writeheader()
        writer.writerows({**row, "latency_ms": latency(spec, row)} for row in rows)
    return path.with_suffix(".timed.csv")


def write_counts(spec: SpaceSpec, path: Path) -> Path:
    counts = counts_of_space(spec)
    lines = [",".join(["layer", "candidate", *counts.columns])]
    lines += [",".join([c.layer, c.candidate, *map(str, row)]) for c, row in counts.values.items()]
    path.write_text("\n".join(lines))
    return path


def test_suggest_time_fit_and_predict(space: str, tiny_spec: SpaceSpec, tmp_path: Path, capsys: Any) -> None:
    """From a space and eight timings to a table that is right for all networks, with standard deviations."""
    out, table = tmp_path / "next.csv", tmp_path / "new.yml"
    assert "time these 8 networks" in says(["suggest", "--space", space, "--networks", "8", "--out", str(out)], capsys)
    measured = timed(tiny_spec, out)
    told = says(["fit", "--measurements", str(measured), "--space", space, "--out", str(table)], capsys)
    assert "counts: " in told
    costs = LatencyTable.load(table).costs(tiny_spec)
    for names in ("k3_e1", "k5_e2"):
        network = {layer.label: names for layer in tiny_spec.layers}
        assert costs.of(network) == pytest.approx(latency(tiny_spec, network), rel=0.01)
    told = says(["predict", str(table), "--architectures", str(out), "--std", "--budget-ms", "0.001"], capsys)
    assert told.count(" +- ") == 8
    assert "0 of 8 networks may be on either side of 0.001 ms\n" in told
    value = costs.of({layer.label: "k3_e1" for layer in tiny_spec.layers})
    (tmp_path / "one.csv").write_text(",".join(costs.layers) + "\n" + ",".join("k3_e1" for _ in costs.layers) + "\n")
    one = ["predict", str(table), "--architectures", str(tmp_path / "one.csv"), "--budget-ms", repr(value)]
    told = says([*one, "--out", str(tmp_path / "p.csv")], capsys)
    assert "1 of 1 networks may be on either side" in told
    assert "network 1: above the budget with a probability of 50 %" in told
    with (tmp_path / "p.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert 0 < float(row["std_ms"]) < 0.1 * float(row["latency_ms"])


def test_counts_come_from_a_file_or_are_left_out(space: str, tiny_spec: SpaceSpec, tmp_path: Path, capsys: Any) -> None:
    counts = str(write_counts(tiny_spec, tmp_path / "counts.csv"))
    out = tmp_path / "next.csv"
    says(["suggest", "--counts", counts, "--networks", "8", "--out", str(out)], capsys)
    measured = str(timed(tiny_spec, out))
    told = says(["fit", "--measurements", measured, "--counts", counts, "--out", str(tmp_path / "t.yml")], capsys)
    assert "counts: " in told
    told = says(
        ["fit", "--measurements", measured, "--space", space, "--no-counts", "--out", str(tmp_path / "t.yml")], capsys
    )
    assert "counts: " not in told
    pool = tmp_path / "pool.csv"
    says(["suggest", "--counts", counts, "--networks", "12", "--out", str(pool)], capsys)
    more = ["suggest", "--counts", counts, "--networks", "2", "--measurements", measured, "--among", str(pool)]
    says([*more, "--out", str(tmp_path / "more.csv")], capsys)
    head, *proposed = (tmp_path / "more.csv").read_text().splitlines()
    assert head == out.read_text().splitlines()[0]
    assert set(proposed) < set(pool.read_text().splitlines()) - set(out.read_text().splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("suggest --networks 5 --out T", "give --space, --counts or --basis"),
        ("suggest --space SPACE --networks 0 --out T", "--networks must be a whole number from 1 to 1000, got 0"),
        ("suggest --space SPACE --networks 1001 --out T", "--networks must be a whole number from 1 to 1000, got 1001"),
        ("fit --measurements M --suggest 1001 --out T", "--suggest must be a whole number from 0 to 1000, got 1001"),
        ("suggest --basis BASIS --out T", "give its --space"),
        ("suggest --space SPACE --counts OTHER --out T", "and the counts in"),
        ("suggest --space SPACE --among OTHER --out T", "--among: "),
        ("suggest --counts BASIS --out T", "counts"),
        ("fit --measurements M --counts OTHER --no-counts --out T", "give --counts or --no-counts, not both"),
        ("fit --measurements M --counts OTHER --out T", "of another space than the measurements"),
        ("predict BASIS --space SPACE --architectures NETWORK --std --out T", "has no standard deviations"),
    ],
)
def test_bad_commands(
    arguments: str, message: str, space: str, tiny_spec: SpaceSpec, tmp_path: Path, capsys: Any
) -> None:
    table_of(tiny_spec).save(tmp_path / "BASIS")
    (tmp_path / "M").write_text("a,b,latency_ms\n" + "x,y,1\nx,z,2\nw,y,3\nx,y,1\nw,z,4\n")
    (tmp_path / "OTHER").write_text("layer,candidate,macs\nother,x,1\nother,y,2\n")
    labels = [layer.label for layer in tiny_spec.layers]
    (tmp_path / "NETWORK").write_text(",".join(labels) + "\n" + ",".join("k3_e1" for _ in labels) + "\n")
    files = ("BASIS", "M", "OTHER", "NETWORK", "T")
    words = [
        space if word == "SPACE" else str(tmp_path / word) if word in files else word for word in arguments.split()
    ]
    assert message in fails(["latency", *words], capsys)
    assert not (tmp_path / "T").exists()
